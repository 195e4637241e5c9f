"""An edition whose shards are written and that is not current yet: what a writer of anything beside the store gets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client, Future

from pipeline.cluster import in_flight, worker_count
from pipeline.config import Campaign, ClusterSection
from pipeline.products.national.grid import GridIndex
from pipeline.products.national.publish_plan import DomainProduct, EditionPlan
from pipeline.progress import Progress

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Draft:
    """What the writers of `runs.publishing.publish.EXTRAS` get.

    They write under `folder`, whole files by `durable.replacing` or as Zarr does; `commit` syncs all of it. What did
    not change they link from the same place under `former` with `os.link`. Links between files are relative, and hold
    when the folder gets its name.
    """

    campaign: Campaign
    products: tuple[DomainProduct, ...]
    """The campaign's domains, with their sealed tiles."""
    plan: EditionPlan
    changed: frozenset[GridIndex]
    """(row, column) of tiles in the national grid, any of whose shards has new bytes."""
    client: Client
    """Of the cluster that wrote the shards."""
    progress: Progress
    """Counts the files that are being written."""

    @property
    def folder(self) -> Path:
        """The edition's folder, under its temporary name beside the finished ones."""
        return self.plan.staging

    @property
    def store(self) -> Path:
        """Level 0, whole."""
        return self.plan.target.store

    @property
    def former(self) -> Path | None:
        """The current edition's folder, where it has the same grid: of tiles not in `changed` it has the same."""
        return self.plan.former

    def each(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[Job, Result]]:
        """Runs a task for each job on the workers, a few at once, and yields what they gave, first ended first.

        Raises:
            ClusterError: the cluster was lost.
            LandcoverError: what a task raised.
        """
        return spread(task, jobs, client=self.client, section=self.campaign.cluster, progress=self.progress)


def spread(
    task: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    client: Client,
    section: ClusterSection,
    progress: Progress,
) -> Iterator[tuple[Job, Result]]:
    """`Draft.each`, on any cluster: two tasks a thread are submitted at a time, however many there are."""

    def submit(job: Job) -> Future[Any]:
        return client.submit(task, job, pure=False)

    def limit() -> int:
        return 2 * section.threads * worker_count(client)

    progress.start(len(jobs))
    for job, future in progress.track(in_flight(jobs, submit, client=client, limit=limit, lost_s=section.lost_s)):
        yield job, future.result()
