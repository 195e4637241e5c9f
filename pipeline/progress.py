"""Progress of long work: functions report steps to a `Progress`, and a `ProgressBar` shows them to a person."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Literal, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from pipeline.untrusted.escape import for_terminal

Step = TypeVar("Step")
Unit = Literal["steps", "bytes"]
OnMessage = Callable[[str], None]
"""A callback that gets one line of text after each step of long work."""

SHORT_S = 2.0
"""Seconds. Calls that are usually shorter show a progress bar only after this time."""


class Progress:
    """Receives the progress of one piece of work. This base class shows nothing.

    The function that knows the number of steps calls `start`; whoever finishes a step calls `advance`, from any thread.

    Example:
        >>> for name in SILENT.track(["a", "b"]):
        ...     print(name)
        a
        b
    """

    def start(self, total: int, unit: Unit = "steps") -> None:
        """A new piece of work begins that has `total` steps, or as many bytes."""

    def advance(self, steps: int = 1) -> None:
        """Reports that so many more steps are done."""

    def track(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Yields each step, and reports it as done when the next one is requested."""
        for step in steps:
            yield step
            self.advance()


SILENT = Progress()
"""The default of functions that report progress: shows nothing."""


def _columns(unit: Unit) -> tuple[ProgressColumn, ...]:
    """`hectares ━━━━ 3/12 0:00:05 0:00:15`, or `1.2/3.4 GB`."""
    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        count,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


class ProgressBar(Progress):
    """A bar in a terminal or a notebook; it shows nothing where the output is a file or a pipe.

    Args:
        description: text before the bar.
        console: where it is shown; by default standard error, or the notebook.
        after_s: seconds before it appears.
    """

    def __init__(self, description: str, *, console: Console | None, after_s: float) -> None:
        shown = Console(stderr=True) if console is None else console
        self._bar = Bar(*_columns("steps"), console=shown, transient=True)
        self._task = self._bar.add_task(for_terminal(description), total=None)
        self._visible = shown.is_interactive or shown.is_jupyter
        self._appears = time.monotonic() + after_s
        self._done, self._total, self._lock = 0, 0, Lock()
        if self._visible and not after_s:
            self._bar.start()

    def start(self, total: int, unit: Unit = "steps") -> None:
        """Sets the bar to 0 of `total`."""
        with self._lock:
            self._done, self._total = 0, total
            self._bar.columns = _columns(unit)
            self._draw()

    def advance(self, steps: int = 1) -> None:
        """Moves the bar on."""
        with self._lock:
            self._done += steps
            self._draw()

    def close(self) -> None:
        """Removes the bar from the screen."""
        if self._bar.live.is_started:
            self._bar.stop()

    def _draw(self) -> None:
        self._bar.update(self._task, completed=self._done, total=self._total)
        waiting = self._done < self._total and time.monotonic() >= self._appears
        if self._visible and waiting and not self._bar.live.is_started:
            self._bar.start()


@contextmanager
def progress_bar(description: str, *, console: Console | None = None, after_s: float = 0.0) -> Iterator[Progress]:
    """A `ProgressBar` that is removed when the block ends; the arguments are its own."""
    bar = ProgressBar(description, console=console, after_s=after_s)
    try:
        yield bar
    finally:
        bar.close()
