"""Signals become a request that the driver answers between two tiles.

SIGUSR1 (a batch system's warning) and SIGTERM ask a run to stop, and so does the first SIGINT: no tile is
submitted any more, those in flight are sealed, and the run ends in `RunStopped`. The second SIGINT ends at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether a run is to stop, and why."""

    reason: str | None = None
    """Who asked; None: nobody."""

    def ask(self, reason: str) -> None:
        """Asks the run to stop; the first reason stays."""
        self.reason = self.reason or reason


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turns the signals into `Stop.ask` until the block ends; outside the main thread Python allows no handlers."""
    stop = Stop()

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and stop.reason:
            raise KeyboardInterrupt
        stop.ask(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def leave_signals_to_the_driver() -> None:
    """In a worker's process: what a terminal or a batch system sends to all processes of a run is not for workers.

    SIGTERM stays what it is, because it is how workers are ended.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
