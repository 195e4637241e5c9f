"""A draft edition: its shards are written, and it is not current yet. The writers of all other files receive it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from distributed import Client

from pipeline.cluster.bounded_submission import map_jobs
from pipeline.config import Campaign
from pipeline.products.national.grid import GridIndex
from pipeline.products.national.publish_plan import DomainProduct, EditionPlan
from pipeline.progress import Progress

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class DraftEdition:
    """The argument of the writers in `runs.publishing.publish.EXTRAS`.

    They write below `folder`, complete files with `durable.replacing` or as Zarr does; `commit` syncs all of them.
    Files that did not change are hard links to the same files below `plan.former`. Links between files are relative, so
    that they stay valid when the folder gets its final name.
    """

    campaign: Campaign
    products: tuple[DomainProduct, ...]
    """The campaign's domains with their sealed tiles."""
    plan: EditionPlan
    """`plan.target.store` has the complete level 0."""
    client: Client
    """Of the cluster that writes the shards."""
    progress: Progress
    """Counts the pixels, or the files, that are being written."""
    changed: frozenset[GridIndex] = frozenset()
    """(row, column) of the tiles in the national grid with new bytes in any shard, once the shards are written."""

    @property
    def folder(self) -> Path:
        """The edition's folder, under a temporary name beside the finished ones."""
        return self.plan.staging

    def map_on_workers(
        self, jobs: Sequence[Job], function: Callable[[Job], Result], *, pixels: int | None = None
    ) -> Iterator[tuple[Job, Result]]:
        """Calls a function for each job on the workers and yields (job, result), in the order in which they end.

        Two jobs per thread are submitted at once; the progress counts the `pixels` of each, or jobs.

        Raises:
            ClusterError: the cluster was lost.
            LandcoverError: raised by the function.
        """
        section = self.campaign.cluster
        each = pixels or 1
        self.progress.start(len(jobs) * each, "pixels" if pixels else "steps")
        results = map_jobs(jobs, function, client=self.client, per_worker=2 * section.threads, lost_s=section.lost_s)
        for result in results:
            yield result
            self.progress.advance(each)
