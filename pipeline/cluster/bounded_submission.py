"""Submits work in small portions: the scheduler never holds more than a few jobs, however large the domain is."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from distributed import Client, Future

from pipeline.cluster.connection import worker_count
from pipeline.errors import ClusterError

_CHECK_S = 1.0

Job = TypeVar("Job")
Result = TypeVar("Result")


def submit_bounded(
    jobs: Iterable[Job],
    submit: Callable[[Job], Future[Any]],
    *,
    client: Client,
    limit: Callable[[], int],
    lost_s: float,
) -> Generator[tuple[Job, Future[Any]], None, None]:
    """Submits a limited number of jobs at a time and yields each with its future, in the order in which they end.

    A future is released when the next one is asked for, so read its result before. Close the generator to release
    the jobs that are still running.

    Args:
        jobs: read as places become free.
        submit: returns the future of a job.
        client: the client of these futures.
        limit: gives the number of jobs to have submitted at once. It is called again each time, because workers come
            and go. Numbers below 1 count as 1.
        lost_s: seconds without any worker after which the cluster is lost.

    Raises:
        ClusterError: the cluster was lost while jobs were running.
    """
    waiting = iter(jobs)
    started: dict[Future[Any], Job] = {}
    ended: SimpleQueue[Future[Any]] = SimpleQueue()

    def fill() -> None:
        for job in islice(waiting, max(0, max(1, limit()) - len(started))):
            future = submit(job)
            started[future] = job
            future.add_done_callback(ended.put)

    try:
        fill()
        last_alive = time.monotonic()
        while started:
            try:
                future = ended.get(timeout=_CHECK_S)
            except Empty:
                if worker_count(client, timeout_s=lost_s):
                    last_alive = time.monotonic()
                elif time.monotonic() - last_alive > lost_s:
                    raise ClusterError(f"no worker for {lost_s:g} s (cluster.lost_s); run again") from None
                continue
            if future.cancelled():
                # A client that loses its scheduler cancels its futures, even if it finds the scheduler again.
                raise ClusterError("the connection to the scheduler was lost, and its tasks with it; run again")
            yield started.pop(future), future
            future.release()
            fill()
            last_alive = time.monotonic()
    finally:
        for future in started:
            future.release()


def map_jobs(
    jobs: Iterable[Job], function: Callable[[Job], Result], *, client: Client, per_worker: int, lost_s: float
) -> Iterator[tuple[Job, Result]]:
    """Calls a function for each job on the workers and yields (job, result), in the order in which they end.

    Args:
        jobs: picklable; read as workers become free.
        function: picklable. Its exceptions are raised here.
        client: of the cluster.
        per_worker: jobs per worker that are submitted at once.
        lost_s: seconds without any worker after which the cluster is lost.

    Raises:
        ClusterError: the cluster was lost.
    """

    def submit(job: Job) -> Future[Any]:
        return client.submit(function, job, pure=False)

    def limit() -> int:
        return per_worker * worker_count(client)

    for job, future in submit_bounded(jobs, submit, client=client, limit=limit, lost_s=lost_s):
        yield job, future.result()
