"""One progress line, for a terminal and for a notebook."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress(
    what: str, *, console: Console | None = None, after_s: float = 0.0
) -> Iterator[Callable[[int, int], None]]:
    """One progress line, gone at the end; told (done, total) by whatever works.

    Args:
        what: stands before the bar.
        console: where; standard output by default.
        after_s: seconds without a line, for work that is mostly short: it comes with what is told after them.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar, began = Progress(*columns, console=console, transient=True), time.monotonic()
    task = bar.add_task(what, total=None)

    def told(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if time.monotonic() - began >= after_s:
            bar.start()

    if not after_s:
        bar.start()
    try:
        yield told
    finally:
        if bar.live.is_started:
            bar.stop()
