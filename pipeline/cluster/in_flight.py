"""Work in flight, bounded: the scheduler never holds more than a few jobs, whatever the domain's size."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from distributed import Client, Future

from pipeline.cluster.liveness import Watch
from pipeline.errors import ClusterError

_LOOK_S = 1.0

Job = TypeVar("Job")


def in_flight(
    jobs: Iterable[Job],
    submit: Callable[[Job], Future[Any]],
    *,
    client: Client,
    limit: Callable[[], int],
    lost_s: float,
) -> Iterator[tuple[Job, Future[Any]]]:
    """Submits jobs, so many at once, and yields each with its ended future, first ended first.

    The future is released after its turn: what a caller wants of it is taken while it has it.

    Args:
        jobs: consumed as places become free.
        submit: gives the one future that stands for a job.
        client: whose futures they are.
        limit: jobs submitted and not yet ended; asked each time, since workers come and go. Under 1 counts as 1.
        lost_s: seconds without any worker after which the cluster counts as lost.

    Raises:
        ClusterError: the cluster was lost while jobs were in flight.
    """
    waiting = iter(jobs)
    started: dict[Future[Any], Job] = {}
    ended: SimpleQueue[Future[Any]] = SimpleQueue()
    watch = Watch(client, lost_s=lost_s)

    def fill() -> None:
        for job in islice(waiting, max(0, max(1, limit()) - len(started))):
            future = submit(job)
            started[future] = job
            future.add_done_callback(ended.put)

    fill()
    while started:
        try:
            future = ended.get(timeout=_LOOK_S)
        except Empty:
            watch.look()
            continue
        if future.cancelled():
            # A client that loses its scheduler cancels what it had there, even where it finds the scheduler again.
            raise ClusterError("the connection to the scheduler was lost, and its tasks with it; run again")
        yield started.pop(future), future
        future.release()
        fill()
