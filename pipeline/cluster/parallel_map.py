"""Maps a function over jobs, on processes of this machine or on a running cluster, for commands without a campaign."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from distributed import LocalCluster

from pipeline.cluster.bounded_submission import map_jobs
from pipeline.cluster.connection import connect
from pipeline.cluster.local import start_cluster

Job = TypeVar("Job")
Result = TypeVar("Result")

_ONE_THREAD = {"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
_PER_WORKER = 3
"""Jobs per worker that are submitted at once: one runs, one has arrived, one is on its way."""
_LOST_S = 60.0
"""Seconds without any worker after which the workers are lost."""
_WAIT_S = 60.0
"""Seconds to wait for the first worker of a running cluster."""


def parallel_map(
    jobs: Iterable[Job], function: Callable[[Job], Result], *, workers: int, scheduler: str | None = None
) -> Iterator[Result]:
    """Calls a function for each job in parallel and yields the results, in the order in which the jobs end.

    Args:
        jobs: picklable; read as workers become free.
        function: picklable. Its exceptions are raised here.
        workers: processes of one thread each on this machine. With one, the jobs run in this process, in order.
        scheduler: address or scheduler file of a running cluster, instead of processes of this machine.

    Raises:
        ClusterError: the cluster did not start, or was lost.

    Example:
        >>> list(parallel_map([-1, 2], abs, workers=1))
        [1, 2]
    """
    if workers == 1 and not scheduler:
        yield from map(function, jobs)
        return
    processes = start_cluster(LocalCluster, _ONE_THREAD, n_workers=workers, threads_per_worker=1)
    with connect(scheduler, wait_s=_WAIT_S) if scheduler else processes as client:
        for _, result in map_jobs(jobs, function, client=client, per_worker=_PER_WORKER, lost_s=_LOST_S):
            yield result
