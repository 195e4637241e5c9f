"""Work in flight, bounded: the scheduler never holds more than a few jobs, whatever the domain's size."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from distributed import Future, as_completed

Job = TypeVar("Job")


def in_flight(
    jobs: Iterable[Job], submit: Callable[[Job], Future[Any]], *, limit: int
) -> Iterator[tuple[Job, Future[Any]]]:
    """Submits jobs, at most `limit` at once, and yields each with its ended future, first ended first.

    The future is released after its turn: what a caller wants of it is taken while it has it.

    Args:
        jobs: consumed as places become free.
        submit: gives the one future that stands for a job.
        limit: jobs submitted and not yet ended, at least 1.
    """
    waiting = iter(jobs)
    started: dict[Future[Any], Job] = {}
    queue = as_completed()

    def fill(places: int) -> None:
        for job in islice(waiting, places):
            future = submit(job)
            started[future] = job
            queue.add(future)

    fill(limit)
    for future in queue:
        yield started.pop(future), future
        future.release()
        fill(1)
