"""Why a tile was not sealed, and what follows: the retry policy, in one place.

=========================  =========================================  =================================================
cause                      known by                                   what happens
=========================  =========================================  =================================================
transient read error       EIO, ESTALE, a time-out, a store's 5xx     read again in the same task, after 1, 4 and 15 s
                           (`sources.reading.retry`)                       (`retry.WAITS_S`); then the tile fails
corrupt input              any other read error                       the tile fails at once, by name; others go on
input gone (purged)        indexed, and no file there                 the tile fails at once; the message says purged
worker lost                the scheduler misses it                    its tasks are done anew on other workers
  while it loads the       Dask's call fails for all workers          it is called again, up to three times
  network                                                             (`cluster.equip`); then exit 6
worker lost three times    Dask's count of losses a task              the tile is *suspect*, and the others go on
out of memory              the nanny or the kernel kills the worker   as a lost worker
disk full, quota           ENOSPC or EDQUOT, also behind GDAL         no more tiles; those in flight end; exit 2
lock taken over            the lock names another run                 no more seals, in no worker; exit 2
scheduler lost             the client's connection                    `ClusterError`, exit 6; run again
any other error            it is raised                               the tile fails, by name; others go on
=========================  =========================================  =================================================

A failed or suspect tile is mapped again by the next run, suspect ones last. `run --failed` maps only those.
"""

from dataclasses import dataclass
from typing import Any, Literal

from distributed import Client, Future, Scheduler
from distributed.scheduler import KilledWorker

from pipeline.errors import LandcoverError, LockError, OutOfSpaceError

LOSSES = 3
"""Workers that a task may cost before its tile is suspect."""

Kind = Literal["failed", "suspect", "no room", "lock lost"]


@dataclass(frozen=True)
class Cause:
    """Why a tile was not sealed."""

    kind: Kind
    text: str

    @property
    def stops_the_run(self) -> bool:
        """True where no other tile would fare better."""
        return self.kind in ("no room", "lock lost")


def cause_of(future: Future[Any]) -> Cause | None:
    """Why a tile that ended was not sealed; None where it is."""
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, KilledWorker):
        return Cause(
            "suspect",
            f"{LOSSES} workers were lost while they worked on it (killed, or out of memory): run it alone with more "
            "memory a worker, or with fewer threads",
        )
    if isinstance(error, OutOfSpaceError):
        return Cause("no room", str(error))
    if isinstance(error, LockError):
        return Cause("lock lost", str(error))
    return Cause("failed", str(error) if isinstance(error, LandcoverError) else f"{type(error).__name__}: {error}")


def limit_losses(client: Client) -> None:
    """Tells the scheduler how many workers a task may cost, whoever started that scheduler."""
    client.run_on_scheduler(_limit_losses)


def _limit_losses(dask_scheduler: Scheduler) -> None:
    # Dask gives up when the count is over this number.
    dask_scheduler.allowed_failures = LOSSES - 1
