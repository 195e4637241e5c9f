"""Progress of long work: functions report steps to a `Progress`, and a `ProgressBar` shows them to a person."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Literal, TypeVar

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from pipeline.untrusted.escape import for_terminal

Step = TypeVar("Step")
Unit = Literal["steps", "bytes", "pixels"]
OnMessage = Callable[[str], None]
"""A callback that gets one line of text after each step of long work."""

LINE_S = 60.0
"""Seconds between two lines where there is no terminal."""
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
        """A new piece of work begins that has `total` steps, or as many bytes or pixels."""

    def advance(self, steps: int = 1) -> None:
        """Reports that so many more steps are done."""

    def track(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Yields each step, and reports it as done when the next one is requested."""
        for step in steps:
            yield step
            self.advance()

    @contextmanager
    def part(self, steps: int) -> Iterator["Progress"]:
        """A part of the work that has so many steps: those that the block does not report count at its end."""
        inside = _Part(self, steps)
        try:
            yield inside
        finally:
            self.advance(inside.left)


class _Part(Progress):
    """Passes on at most `left` steps. One thread at a time reports."""

    def __init__(self, whole: Progress, steps: int) -> None:
        self._whole, self.left = whole, steps

    def advance(self, steps: int = 1) -> None:
        steps = min(steps, self.left)
        self.left -= steps
        self._whole.advance(steps)


SILENT = Progress()
"""The default of functions that report progress: shows nothing."""


class _Amount(ProgressColumn):
    """`3/12`, `1.2 GB/3.4 GB  90.1 MB/s`, `250/1,250 Mpx  3.21 Mpx/s`, `0.16/0.32 Mpx`."""

    def render(self, task: Task) -> Text:
        """What is done, of how much, and how fast."""
        return Text(f"{_amount(task.completed, task.total, task.fields['unit'])}  {_speed(task)}".rstrip())


class _TimeLeft(ProgressColumn):
    """`12 min left`, at the mean speed since the start: single steps may take longer than rich looks back."""

    def render(self, task: Task) -> Text:
        """Empty until a step is done."""
        return Text(_left(task))


def _amount(done: float, total: float | None, unit: Unit) -> str:
    if total is None:
        return "starting"
    if unit == "bytes":
        return f"{decimal(int(done))}/{decimal(int(total))}"
    scale, name = (1e6, " Mpx") if unit == "pixels" else (1.0, "")
    digits = 2 if unit == "pixels" and total < 10e6 else 0
    return f"{done / scale:,.{digits}f}/{total / scale:,.{digits}f}{name}"


def _speed(task: Task) -> str:
    """`3.21 Mpx/s`; empty for steps, which take their time."""
    unit = task.fields["unit"]
    if unit == "steps" or not task.completed or not task.elapsed:
        return ""
    rate = task.completed / task.elapsed
    return f"{decimal(int(rate))}/s" if unit == "bytes" else f"{rate / 1e6:.2f} Mpx/s"


def _left(task: Task) -> str:
    if not task.completed or not task.total or not task.elapsed:
        return ""
    return f"{_clock(task.elapsed / task.completed * max(0.0, task.total - task.completed))} left"


def _clock(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


class ProgressBar(Progress):
    """A bar in a terminal or a notebook; where the output is a file or a pipe, a plain line every minute.

    Args:
        description: text before the bar.
        console: where it is shown; by default standard error, or the notebook.
        after_s: seconds before it appears.
        line_s: seconds between two plain lines.
    """

    def __init__(self, description: str, *, console: Console | None, after_s: float, line_s: float = LINE_S) -> None:
        shown = Console(stderr=True) if console is None else console
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            _Amount(),
            TimeElapsedColumn(),
            _TimeLeft(),
        )
        self._bar = Bar(*columns, console=shown, transient=True)
        self._task = self._bar.add_task(for_terminal(description), total=None, unit="steps")
        self._visible = shown.is_interactive or shown.is_jupyter
        self._appears = time.monotonic() + after_s
        self._done, self._total, self._lock = 0, 0, Lock()
        self._closed = Event()
        if self._visible and not after_s:
            self._bar.start()
        if not self._visible:
            Thread(target=self._print_lines, args=(line_s,), daemon=True).start()

    def start(self, total: int, unit: Unit = "steps") -> None:
        """Sets the bar to 0 of `total`."""
        with self._lock:
            self._done, self._total = 0, total
            self._bar.reset(self._task, total=total, unit=unit)
            self._draw()

    def advance(self, steps: int = 1) -> None:
        """Moves the bar on."""
        with self._lock:
            self._done += steps
            self._draw()

    def close(self) -> None:
        """Removes the bar from the screen."""
        self._closed.set()
        if self._bar.live.is_started:
            self._bar.stop()

    def _draw(self) -> None:
        self._bar.update(self._task, completed=self._done, total=self._total)
        waiting = self._done < self._total and time.monotonic() >= self._appears
        if self._visible and waiting and not self._bar.live.is_started:
            self._bar.start()

    def _print_lines(self, every_s: float) -> None:
        """Prints a line now and then, as logs of batch jobs need it."""
        while not self._closed.wait(every_s):
            with self._lock:
                task = self._bar.tasks[0]
                parts = (_amount(task.completed, task.total, task.fields["unit"]), _speed(task), _left(task))
                line = f"{time.strftime('%H:%M:%S')} {task.description}: {', '.join(filter(None, parts))}"
            self._bar.console.print(Text(line), highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(
    description: str, *, console: Console | None = None, after_s: float = 0.0, line_s: float = LINE_S
) -> Iterator[Progress]:
    """A `ProgressBar` that is removed when the block ends; the arguments are its own."""
    bar = ProgressBar(description, console=console, after_s=after_s, line_s=line_s)
    try:
        yield bar
    finally:
        bar.close()
