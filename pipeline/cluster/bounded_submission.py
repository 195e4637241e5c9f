"""Submits work in small portions: the scheduler never holds more than a few jobs, however large the domain is."""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice, takewhile
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from distributed import Client, Future

from pipeline.cluster.connection import paused_workers, restart_workers, worker_count
from pipeline.errors import ClusterError
from pipeline.progress import Progress

_CHECK_S = 1.0
_STOP_S = 3600.0
"""Seconds that running jobs have after a stop request: more than the longest tile takes."""

log = logging.getLogger("landcover")

Job = TypeVar("Job")
Result = TypeVar("Result")


def submit_bounded(
    jobs: Iterable[Job],
    submit: Callable[[Job], Future[Any]],
    *,
    client: Client,
    limit: Callable[[], int],
    lost_s: float,
    stopping: Callable[[], bool] = lambda: False,
    on_wait: Callable[[], None] = lambda: None,
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
        lost_s: seconds without any worker after which the cluster is lost. A worker that stays paused for so long is
            started again.
        stopping: whether a stop was requested; jobs that then run for ever are abandoned after an hour.
        on_wait: called every second in which no job ends.

    Raises:
        ClusterError: the cluster was lost while jobs were running, or a stop found jobs that did not end.
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
        watch = _Watch(client, lost_s)
        while started:
            try:
                future = ended.get(timeout=_CHECK_S)
            except Empty:
                watch.check(stopping=stopping())
                on_wait()
                continue
            if future.cancelled():
                # A client that loses its scheduler cancels its futures, even if it finds the scheduler again.
                raise ClusterError("the connection to the scheduler was lost, and its tasks with it; run again")
            yield started.pop(future), future
            future.release()
            fill()
            watch.job_ended()
    finally:
        for future in started:
            future.release()


class _Watch:
    """Watches the workers while no job ends."""

    def __init__(self, client: Client, lost_s: float) -> None:
        self._client, self._lost_s = client, lost_s
        self._last_alive = self._last_end = time.monotonic()
        self._paused_since: dict[str, float] = {}

    def job_ended(self) -> None:
        """A job has ended just now."""
        self._last_alive = self._last_end = time.monotonic()

    def check(self, *, stopping: bool) -> None:
        """Starts workers again that stay paused; raises ClusterError where no job will end any more."""
        number, paused = paused_workers(self._client, timeout_s=self._lost_s)
        now = time.monotonic()
        self._paused_since = {worker: self._paused_since.get(worker, now) for worker in paused}
        if stopping and now - self._last_end > _STOP_S:
            raise ClusterError(f"no job has ended within {_STOP_S:g} s after the request to stop; run again")
        if number > len(paused):
            self._last_alive = now
            if stuck := [worker for worker, since in self._paused_since.items() if now - since > self._lost_s]:
                log.warning("%d workers stay paused for lack of memory; they are started again", len(stuck))
                restart_workers(self._client, stuck, timeout_s=self._lost_s)
        elif now - self._last_alive > self._lost_s:
            why = f": the {number} there are paused, because their memory is nearly used up. Use fewer of them"
            raise ClusterError(f"no worker for {self._lost_s:g} s (cluster.lost_s){why if number else ''}; run again")


def map_jobs(
    jobs: Iterable[Job], function: Callable[[Job], Result], *, client: Client, per_worker: int, lost_s: float
) -> Iterator[tuple[Job, Result]]:
    """Calls a function for each job on the workers and yields (job, result), in the order in which they end.

    Args:
        jobs: picklable; read as workers become free.
        function: picklable. Its first exception is raised here, after the jobs that were running have ended.
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

    failure: BaseException | None = None
    wanted = takewhile(lambda _: failure is None, jobs)
    for job, future in submit_bounded(wanted, submit, client=client, limit=limit, lost_s=lost_s):
        if future.status == "error":
            # What runs beside it ends first: it may still write into a folder that the caller uses again.
            failure = failure or future.exception().with_traceback(future.traceback())
        elif failure is None:
            yield job, future.result()
    if failure is not None:
        raise failure


def map_in_order(
    jobs: Sequence[Job],
    function: Callable[[Job], Result],
    *,
    client: Client,
    per_worker: int,
    lost_s: float,
    progress: Progress,
) -> list[Result]:
    """The results of `map_jobs` in the order of the jobs, which are hashable; counts them.

    Raises:
        ClusterError: the cluster was lost.
    """
    progress.start(len(jobs))
    ended = map_jobs(jobs, function, client=client, per_worker=per_worker, lost_s=lost_s)
    results = dict(progress.track(ended))
    return [results[job] for job in jobs]
