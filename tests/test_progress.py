"""A progress line shows up for long work where somebody looks, and nowhere else."""

import io

import pytest
from rich.console import Console

from pipeline.progress import progress


def shown(*, terminal: bool, after_s: float = 0.0, steps: int = 3) -> str:
    """What work of these steps leaves on a screen or in a log."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, force_interactive=terminal, width=100)
    with progress("hectares", console=console, after_s=after_s) as told:
        for done in range(1, steps + 1):
            told(done, steps)
    return screen.getvalue()


def test_work_shows_how_far_it_is_in_a_terminal_and_nothing_in_a_log() -> None:
    assert "hectares" in shown(terminal=True)
    assert "3/3" in shown(terminal=True)
    assert shown(terminal=False) == ""


def test_work_that_is_shorter_than_its_patience_shows_nothing() -> None:
    assert shown(terminal=True, after_s=3600.0) == ""
    assert "hectares" in shown(terminal=True, after_s=1e-9)


def test_work_that_fails_takes_its_line_away() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, force_interactive=True, width=100)

    def fail() -> None:
        with progress("hectares", console=console) as told:
            told(1, 2)
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        fail()
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K"), "the cursor stands where the line was"
