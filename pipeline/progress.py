"""A progress line for who looks on in a terminal or a notebook; logs see nothing of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Line

Progress = Callable[[int, int], None]
"""Told (steps done, steps)."""

PATIENCE_S = 2.0
"""What is done sooner needs no line."""


@contextmanager
def progress(what: str, *, console: Console | None = None, after_s: float = 0.0) -> Iterator[Progress]:
    """A line that is gone at the end.

    Args:
        what: stands before the bar.
        console: where; by default standard error, or the notebook.
        after_s: seconds before it appears, for work that is mostly short.

    Yields:
        What whoever works tells its steps.
    """
    shown = Console(stderr=True) if console is None else console
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar, began = Line(*columns, console=shown, transient=True), time.monotonic()
    task = bar.add_task(what, total=None)
    watched = shown.is_interactive or shown.is_jupyter

    def told(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if watched and not bar.live.is_started and done < total and time.monotonic() - began >= after_s:
            bar.start()

    if watched and not after_s:
        bar.start()
    try:
        yield told
    finally:
        if bar.live.is_started:
            bar.stop()
