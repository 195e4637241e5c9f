"""The steps of a vectorization, on any number of workers."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipeline.domain import Domain
from pipeline.errors import ProductError
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.products.national.edition_record import Edition
from pipeline.products.vectors.cells import BlockGrid, BlockIndex, parents
from pipeline.products.vectors.cosia_geopackage import write_cosia
from pipeline.products.vectors.edition_pixels import EditionPixels, windows_with_pixels
from pipeline.products.vectors.features import PolygonOrigin
from pipeline.products.vectors.pmtiles import TILES, write_pmtiles
from pipeline.products.vectors.tasks import (
    PartFacts,
    VectorWork,
    check_finished,
    merge_blocks,
    parts_in,
    vectorize_block,
    write_part,
)
from pipeline.products.vectors.vector_folder import Staging, work_key, write_dataset, write_record

Job = TypeVar("Job")
Result = TypeVar("Result")


class ForEach(Protocol):
    """Calls a function for each job, in any order and on any process; returns the results in the order of the jobs."""

    def __call__(self, jobs: Sequence[Job], function: Callable[[Job], Result]) -> list[Result]:
        """Calls the function."""


def write_vectors(
    staging: Staging,
    edition: Edition,
    *,
    domain: Domain | None,
    tolerance_m: float,
    for_each: ForEach,
    tiles: bool = True,
) -> dict[str, Any]:
    """Writes the vector files of an edition, or goes on with what a killed run of the same settings left.

    1. Traces the cells of each block, one task a block, then merges blocks, four into one, until one is left.
    2. Sorts the polygons of each part of the dataset.
    3. Writes the files. `Staging.commit` then gives the folder its name.

    Args:
        staging: where the files are written; nobody else may write there.
        edition: whose pixels are read.
        domain: read only what the edition shows of this domain.
        tolerance_m: of the simplification.
        for_each: runs the tasks.
        tiles: write PMTiles too.

    Returns:
        The content of `vectors.json`.

    Raises:
        ConfigError: the edition does not have the domain.
        ProductError: it has no pixels, or a shard cannot be read.
        StorageError: a file cannot be written.
    """
    pixels, windows = EditionPixels.of(edition, domain), windows_with_pixels(edition, domain)
    if not windows:
        raise ProductError(f"{edition.path}: has no pixels{f' of {domain}' if domain else ''}")
    staging.begin(work_key(edition, domain=domain, tolerance_m=tolerance_m))
    grid = BlockGrid.of(windows, tile=edition.grid.tile)
    work = VectorWork(staging.work, pixels, grid, PolygonOrigin.of(edition), tolerance_m * PIXELS_PER_M)
    parts = for_each(trace(work, windows, for_each), partial(write_part, work))
    if not parts:
        raise ProductError(f"{edition.path}: has no land cover{f' of {domain}' if domain else ''}")
    write_dataset(work, parts, staging.ready)
    domains = sorted({name for p in parts for name in p.domains})
    for_each((*domains, *([TILES] if tiles else [])), partial(_write_file, work, parts, staging.ready))
    return write_record(staging.ready, parts, edition=edition, domain=domain, tolerance_m=tolerance_m)


def trace(work: VectorWork, windows: Sequence[Window], for_each: ForEach) -> list[int]:
    """Traces all blocks and merges them, level by level; returns the parts that have polygons.

    Raises:
        ProductError: a raster cannot be read.
        StorageError: a file cannot be written.
    """
    first = work.grid.first_blocks(windows)
    for_each(list(first.items()), partial(vectorize_block, work))
    blocks: list[BlockIndex] = list(first)
    for _ in range(1, work.grid.levels):
        larger = parents(blocks)
        for_each(list(larger.items()), partial(merge_blocks, work))
        blocks = list(larger)
    check_finished(work, blocks[0])
    return parts_in(work)


def _write_file(work: VectorWork, parts: Sequence[PartFacts], folder: Path, name: str) -> None:
    """Writes the tiles, or the GeoPackage of the domain of this name."""
    if name == TILES:
        write_pmtiles(folder / name, [work.part_file(p.part) for p in parts], crs=work.origin.crs)
        return
    files = [work.part_file(p.part) for p in parts if name in p.domains]
    write_cosia(folder / f"{name}.gpkg", files, domain=name, crs=work.origin.crs)
