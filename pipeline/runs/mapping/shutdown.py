"""Stops a run in order: signals become a request that the driver reads between two tiles.

SIGUSR1 (the warning of a batch system), SIGTERM and the first SIGINT request a stop: no more tiles are submitted, the
tiles in flight are sealed, and the run ends with `RunStopped`. The second SIGINT ends the run at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """A request to stop a run, once somebody made it."""

    reason: str | None = None
    """Why the run is to stop, such as `SIGTERM`; None: nobody made a request."""

    def request(self, reason: str) -> None:
        """Requests a stop. The first reason is kept."""
        self.reason = self.reason or reason


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns signals into a `StopRequest` until the block ends.

    It has no effect outside the main thread, where Python allows no signal handlers.

    Example:
        >>> with stop_on_signals() as stop:  # doctest: +SKIP
        ...     run(plan, stop=stop)
    """
    stop = StopRequest()

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and stop.reason:
            raise KeyboardInterrupt
        stop.request(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def ignore_stop_signals() -> None:
    """Makes a worker's process ignore the signals that a terminal or batch system sends to all processes of a run.

    SIGTERM is not ignored, because it is how workers are ended.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
