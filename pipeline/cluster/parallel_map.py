"""Independent jobs over processes of this machine, or a running cluster, where no campaign says how many."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import dask
from distributed import Client, Future, LocalCluster

from pipeline.cluster.client import running
from pipeline.cluster.in_flight import in_flight
from pipeline.cluster.liveness import worker_count

Job = TypeVar("Job")
Result = TypeVar("Result")

_IN_FLIGHT = 3
"""Jobs a worker that are submitted at once: one is done, one has arrived, one is on its way."""
_LOST_S = 60.0
"""Seconds without any worker after which they count as lost."""
_WAIT_S = 60.0
"""Seconds in which a running cluster has to have a worker."""


def spread(
    jobs: Iterable[Job], work: Callable[[Job], Result], *, workers: int, scheduler: str | None = None
) -> Iterator[Result]:
    """What `work` makes of each job, in the order in which they end.

    Args:
        jobs: picklable; consumed as workers become free.
        work: picklable; what it raises is raised here.
        workers: processes of one thread each on this machine; with one, the jobs are done here, in order.
        scheduler: address or scheduler file of a running cluster, instead of them.

    Raises:
        ClusterError: the cluster could not be had, or was lost.
    """
    if workers == 1 and not scheduler:
        yield from map(work, jobs)
        return
    with running(scheduler, wait_s=_WAIT_S) if scheduler else _started(workers) as client:

        def submit(job: Job) -> Future[Result]:
            future: Future[Result] = client.submit(work, job, pure=False)
            return future

        def limit() -> int:
            return _IN_FLIGHT * worker_count(client)

        for _, future in in_flight(jobs, submit, client=client, limit=limit, lost_s=_LOST_S):
            yield future.result()


@contextmanager
def _started(workers: int) -> Iterator[Client]:
    """Processes on this machine that end with the block."""
    with (
        tempfile.TemporaryDirectory(prefix="landcover-dask-") as scratch,
        dask.config.set({"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            local_directory=scratch,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
