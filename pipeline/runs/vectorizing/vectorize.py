"""Writes an edition of the national product, or one of its domains, as polygons."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client

from pipeline.cluster.bounded_submission import map_jobs
from pipeline.cluster.client import open_cluster
from pipeline.cluster.slurm.queue import is_job_running
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.errors import ConfigError, ProductError
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.lock import lock_folder
from pipeline.products.national.edition_record import Edition, current_edition, edition_of
from pipeline.products.national.zarr_store import check_whole
from pipeline.products.vectors.cells import BlockGrid, BlockIndex, parents
from pipeline.products.vectors.cosia_geopackage import write_cosia
from pipeline.products.vectors.edition_pixels import EditionPixels, windows_with_pixels
from pipeline.products.vectors.features import Origin
from pipeline.products.vectors.tasks import (
    PartFacts,
    VectorWork,
    check_finished,
    merge_blocks,
    parts_in,
    vectorize_block,
    write_part,
)
from pipeline.products.vectors.vector_folder import VECTORS, Staging, work_key, write_dataset, write_record
from pipeline.progress import SILENT, Progress

log = logging.getLogger("landcover")

Job = TypeVar("Job")
Result = TypeVar("Result")

TOLERANCE_M = 0.5
"""Default tolerance: the steps of pixels along slanting borders go, and no border moves by more than half a metre."""


@dataclass(frozen=True)
class VectorProduct:
    """Vector files that were written."""

    folder: Path
    edition: int
    polygons: int
    area_m2: float
    files: tuple[str, ...]


def vectorize(
    campaign: Campaign,
    *,
    domain: str | None = None,
    edition: int | None = None,
    tolerance_m: float = TOLERANCE_M,
    out: Path | None = None,
    client: Client | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> VectorProduct:
    """Writes the polygons of an edition: GeoParquet, a GeoPackage for each domain, and PMTiles.

    1. Finds the edition and its pixels, and goes on with what a killed run of the same settings left.
    2. Traces the cells of each block (one task a block of about a tile), then merges blocks, four into one.
    3. Sorts the polygons of each part of the dataset.
    4. Writes the files, then gives the folder its name.

    Args:
        campaign: whose national product is read.
        domain: write only what the edition shows of this domain; polygons end where other domains begin.
        edition: number; None for the current one.
        tolerance_m: borders are simplified by at most so many metres; 0 keeps the pixels.
        out: a new folder, or one that an earlier call wrote. By default `vectors` in the edition, or
            `vectors-<domain>`.
        client: a client of a running cluster, which is left open. By default the campaign's cluster is opened.
        workers: number of worker processes, instead of the campaign's.
        progress: counts blocks, then parts, then files.

    Raises:
        ConfigError: the tolerance is negative, the edition does not have the domain, or `out` holds other files.
        ClusterError: the cluster did not start, or was lost.
        LockError: another process writes into the same folder.
        ProductError: there is no such edition, it has no pixels, or a shard cannot be read.
        StorageError: a file cannot be written.
    """
    if not 0 <= tolerance_m <= _MOST_M:
        raise ConfigError(f"--tolerance {tolerance_m:g}: expected 0 to {_MOST_M} m")
    national = campaign.output.national
    found = current_edition(national) if edition is None else edition_of(national, edition)
    if found is None:
        raise ProductError(f"{national}: nothing is published yet; `landcover publish` makes the first edition")
    check_whole(found)
    name = None if domain is None else Domain(domain)
    staging = Staging.beside(out or found.path / (f"{VECTORS}-{name}" if name else VECTORS))
    with lock_folder(staging.folder, what=f"the vector files {staging.final}", job_runs=is_job_running):
        staging.begin(work_key(found, domain=name, tolerance_m=tolerance_m))
        with open_cluster(campaign, client=client, workers=workers) as opened:
            steps = _Steps(campaign, opened, progress)
            record = _write(steps, staging, found, name, tolerance_m)
        staging.commit()
    with suppress(OSError):
        staging.folder.rmdir()
    files = tuple(sorted(path.name for path in staging.final.iterdir()))
    return VectorProduct(staging.final, found.number, record["polygons"], record["area_m2"], files)


_MOST_M = 100
"""Largest tolerance in metres. Arcs are simplified in cells of 200 m."""


@dataclass(frozen=True, eq=False)
class _Steps:
    """Calls functions on the workers."""

    campaign: Campaign
    client: Client
    progress: Progress

    def each(self, jobs: Sequence[Job], function: Callable[[Job], Result]) -> list[Result]:
        """Calls a function for each job; the results, in the order of the jobs."""
        section = self.campaign.cluster
        self.progress.start(len(jobs))
        results = map_jobs(jobs, function, client=self.client, per_worker=2 * section.threads, lost_s=section.lost_s)
        answers = dict(self.progress.track(results))
        return [answers[job] for job in jobs]


def _write(
    steps: _Steps, staging: Staging, edition: Edition, domain: Domain | None, tolerance_m: float
) -> dict[str, Any]:
    """Writes all files into the folder that becomes the final one; returns the record."""
    pixels, windows = EditionPixels.of(edition, domain), windows_with_pixels(edition, domain)
    if not windows:
        raise ProductError(f"{edition.path}: has no pixels{f' of {domain}' if domain else ''}")
    grid = BlockGrid.of(windows, tile=edition.grid.tile)
    work = VectorWork(staging.work, pixels, grid, Origin.of(edition), tolerance_m * PIXELS_PER_M)
    _trace(steps, work, windows)
    parts = steps.each(list(parts_in(work)), partial(write_part, work))
    write_dataset(work, parts, staging.ready)
    domains = sorted({name for p in parts for name in p.domains})
    steps.each(domains, partial(_write_domain, work, parts, staging.ready))
    return write_record(staging.ready, parts, edition=edition, domain=domain, tolerance_m=tolerance_m)


def _trace(steps: _Steps, work: VectorWork, windows: Sequence[Window]) -> None:
    """Traces all blocks and merges them, level by level."""
    first = work.grid.first_blocks(windows)
    steps.each(list(first.items()), partial(vectorize_block, work))
    blocks: list[BlockIndex] = list(first)
    for _ in range(1, work.grid.levels):
        larger = parents(blocks)
        steps.each(list(larger.items()), partial(merge_blocks, work))
        blocks = list(larger)
    check_finished(work, blocks[0])


def _write_domain(work: VectorWork, parts: Sequence[PartFacts], folder: Path, domain: str) -> None:
    files = [work.part_file(p.part) for p in parts if domain in p.domains]
    write_cosia(folder / f"{domain}.gpkg", files, domain=domain, crs=work.origin.crs)
