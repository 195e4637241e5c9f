"""The failure policy: what happens to a tile, and to the run, after each kind of failure.

=========================  =========================================  =================================================
cause                      recognised by                              what happens
=========================  =========================================  =================================================
transient read error       EIO, ESTALE, a time-out, an HTTP 5xx       the task retries the read after 1, 4 and 15 s
                           (`sources.reading.retry`)                  (`retry.WAITS_S`); then the tile fails
corrupt input              any other read error                       the tile fails at once; other tiles continue
missing input (purged)     indexed, but there is no such file         the tile fails at once; the message says purged
worker lost                the scheduler loses its connection         other workers run its tasks again
  while it loads the       Dask's call fails for all workers          the call is repeated, up to three times
  network                  (`cluster.client.register_plugin`)         in all; then exit code 6
worker lost three times    Dask counts the losses of each task        the tile is *suspect*; other tiles continue
out of memory              the nanny or the kernel kills the worker   as for a lost worker
disk full, quota used up   ENOSPC or EDQUOT, also behind GDAL         no more tiles start; tiles in flight end; exit 2
lock lost                  the lock names another run                 no worker seals any more; exit code 2
scheduler lost             the client loses its connection            `ClusterError`, exit code 6; run again
any other exception        raised by the tile's tasks                 the tile fails; other tiles continue
=========================  =========================================  =================================================

The next run maps failed and suspect tiles again, suspect ones last. `landcover run --failed` maps only those.
"""

from dataclasses import dataclass
from typing import Any, Literal

from distributed import Client, Future, Scheduler
from distributed.scheduler import KilledWorker

from pipeline.errors import LandcoverError, LockError, OutOfSpaceError

MAX_WORKER_LOSSES = 3
"""Workers that a task may cost. Then its tile is suspect."""

FailureKind = Literal["failed", "suspect", "out of space", "lock lost"]


@dataclass(frozen=True)
class FailureCause:
    """Why a tile was not sealed."""

    kind: FailureKind
    text: str

    @property
    def stops_the_run(self) -> bool:
        """Whether the cause affects every tile."""
        return self.kind in ("out of space", "lock lost")


def failure_cause(future: Future[Any]) -> FailureCause | None:
    """Why the tile of an ended future was not sealed; None where it was sealed."""
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, KilledWorker):
        return FailureCause(
            "suspect",
            f"{MAX_WORKER_LOSSES} workers were lost while they worked on this tile (killed, or out of memory); run it "
            "alone, with more memory per worker or fewer threads",
        )
    if isinstance(error, OutOfSpaceError):
        return FailureCause("out of space", str(error))
    if isinstance(error, LockError):
        return FailureCause("lock lost", str(error))
    text = str(error) if isinstance(error, LandcoverError) else f"{type(error).__name__}: {error}"
    return FailureCause("failed", text)


def limit_worker_losses(client: Client) -> None:
    """Sets how many workers a task may cost, on a scheduler of any origin."""
    client.run_on_scheduler(_limit_worker_losses)


def _limit_worker_losses(dask_scheduler: Scheduler) -> None:
    # Dask fails a task when its count of losses exceeds this number.
    dask_scheduler.allowed_failures = MAX_WORKER_LOSSES - 1
