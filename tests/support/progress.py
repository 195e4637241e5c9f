"""A progress that keeps what was reported, for tests."""

from threading import Lock

from pipeline.progress import Progress, Unit


class Recorder(Progress):
    """`totals` of each piece of work, and the steps `done` of the last one."""

    def __init__(self) -> None:
        self.totals: list[int] = []
        self.done = 0
        self._lock = Lock()

    def start(self, total: int, unit: Unit = "steps") -> None:  # noqa: ARG002  (the unit is for people)
        self.totals.append(total)
        self.done = 0

    def advance(self, steps: int = 1) -> None:
        with self._lock:
            self.done += steps
