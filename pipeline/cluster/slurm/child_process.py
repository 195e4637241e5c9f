"""A process of ours beside the driver: its output in a file, and its end certain."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ClusterError

_END_S = 10
_TAIL_LINES = 20


@dataclass(frozen=True)
class Child:
    """A started process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Makes sure that it still runs.

        Raises:
            ClusterError: it ended; the message holds what it printed last.
        """
        if (code := self.process.poll()) is not None:
            raise ClusterError(f"{self.name} ended with {code}{self.tail}")

    @property
    def tail(self) -> str:
        """What it printed last, as the end of a message."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        return "; it printed:\n  " + "\n  ".join(lines) if lines else "; it printed nothing"


@contextmanager
def child(command: list[str], log: Path, *, environment: Mapping[str, str], patience_s: float = 0) -> Iterator[Child]:
    """Starts a process in a session of its own, so that Ctrl-C in a terminal reaches the driver alone.

    Args:
        command: found on the PATH.
        log: takes its output.
        environment: all of its variables.
        patience_s: seconds at the end in which it may go by itself; then it is asked, then killed.

    Raises:
        ClusterError: it cannot be started.
    """
    with log.open("wb") as out:
        try:
            process = subprocess.Popen(  # noqa: S603  (the callers' own commands)
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise ClusterError(f"{command[0]} cannot be started: {error}") from error
    try:
        yield Child(Path(command[0]).name, process, log)
    finally:
        _end(process, patience_s)


def _end(process: subprocess.Popen[bytes], patience_s: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
        return
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
        return
    process.kill()
    process.wait()


def inherited(without: tuple[str, ...] = (), **more: str) -> dict[str, str]:
    """This process's environment without some variables and with others."""
    return {name: value for name, value in os.environ.items() if name not in without} | more
