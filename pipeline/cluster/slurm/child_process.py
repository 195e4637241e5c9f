"""A child process of the driver: its output goes to a file, and it always ends with the block."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ClusterError

_END_S = 10
_TAIL_LINES = 20


@dataclass(frozen=True)
class ChildProcess:
    """A started process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Makes sure that the process is still running.

        Raises:
            ClusterError: it ended. The message contains the end of its output.
        """
        if (code := self.process.poll()) is not None:
            raise ClusterError(f"{self.name} ended with exit code {code}{self.tail}")

    @property
    def tail(self) -> str:
        """The last lines of its output, as the end of a message."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        return "; it printed:\n  " + "\n  ".join(lines) if lines else "; it printed nothing"


@contextmanager
def child_process(
    command: list[str], log: Path, *, environment: Mapping[str, str], grace_s: float = 0
) -> Iterator[ChildProcess]:
    """Starts a process in a session of its own, so that Ctrl-C in a terminal reaches the driver alone.

    Args:
        command: found on the PATH.
        log: receives its output.
        environment: all of its variables.
        grace_s: seconds at the end in which it may end by itself. Then it is terminated, and at last killed.

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
        yield ChildProcess(Path(command[0]).name, process, log)
    finally:
        _end(process, grace_s)


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
        return
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
        return
    process.kill()
    process.wait()
