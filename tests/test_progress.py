"""A progress bar is shown for long work in a terminal, and nowhere else."""

import io
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from pipeline.progress import SILENT, Unit, progress_bar
from tests.support.progress import Recorder
from tests.support.waiting import wait_until


def shown(*, terminal: bool, after_s: float = 0.0, steps: int = 3, unit: Unit = "steps") -> str:
    """What work of these steps leaves on a screen or in a log."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, force_interactive=terminal, width=100)
    with progress_bar("hectares", console=console, after_s=after_s) as progress:
        progress.start(steps, unit)
        for _ in progress.track(range(steps)):
            pass
    return screen.getvalue()


def test_a_terminal_shows_the_steps_and_a_log_shows_nothing() -> None:
    assert "hectares" in shown(terminal=True)
    assert "3/3" in shown(terminal=True)
    assert shown(terminal=False) == ""


def test_a_log_has_plain_lines_with_amount_speed_and_time_left() -> None:
    log = io.StringIO()
    with progress_bar("run", console=Console(file=log, width=20), line_s=0.01) as progress:
        progress.start(625_000_000, "pixels")
        progress.advance(125_000_000)
        wait_until(lambda: log.getvalue().count("\n") > 1, log.getvalue)
    line = log.getvalue().splitlines()[-1]
    assert re.fullmatch(r"\d\d:\d\d:\d\d run: 125/625 Mpx, [\d.]+ Mpx/s, .+ left", line)
    written = log.getvalue()
    assert "\x1b" not in written


def test_bytes_and_pixels_are_shown_in_their_unit() -> None:
    assert "3 bytes/3 bytes" in shown(terminal=True, unit="bytes")
    screen = io.StringIO()
    with progress_bar("run", console=Console(file=screen, force_terminal=True, width=100)) as progress:
        progress.start(320_000, "pixels")
        progress.advance(160_000)
    assert "0.16/0.32 Mpx" in screen.getvalue()


def test_short_work_shows_nothing() -> None:
    assert shown(terminal=True, after_s=3600.0) == ""
    assert "hectares" in shown(terminal=True, after_s=1e-9)


def test_steps_of_several_threads_are_all_counted() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, force_interactive=True, width=100)
    with progress_bar("tiles", console=console) as progress, ThreadPoolExecutor(8) as pool:
        progress.start(400)
        list(pool.map(lambda _: progress.advance(), range(400)))
    assert "400/400" in screen.getvalue()


def test_the_silent_progress_yields_every_step() -> None:
    assert list(SILENT.track(iter("abc"))) == ["a", "b", "c"]


def test_a_part_counts_as_a_whole_whatever_is_reported_inside() -> None:
    seen = Recorder()
    for reported in ([], [3, 4], [3, 400], [10]):
        with seen.part(10) as part:
            for steps in reported:
                part.advance(steps)
            assert seen.done == min(sum(reported), 10)
        assert seen.done == 10
        seen.start(0)
    with pytest.raises(OSError, match="gone"), seen.part(10):
        raise OSError("gone")
    assert seen.done == 10


def test_a_failure_removes_the_bar() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, force_interactive=True, width=100)

    def fail() -> None:
        with progress_bar("hectares", console=console) as progress:
            progress.start(2)
            progress.advance()
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        fail()
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K"), "the cursor stands where the bar was"
