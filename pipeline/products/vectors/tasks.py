"""The tasks of a vectorization: functions that workers call, and the folder through which results pass.

::

    <folder>/blocks/<level>-<row>-<column>.npz      open regions of a block; written last, so it marks a finished task
    <folder>/features/<part>/<level>-….arrow        polygons that a task has finished
    <folder>/parts/<part>.parquet                   all polygons of a part, in order
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.durable import replacing
from pipeline.errors import ProductError
from pipeline.grid import Window
from pipeline.products.vectors.block_files import read_block, write_block
from pipeline.products.vectors.cells import BlockGrid, BlockIndex, read_cells
from pipeline.products.vectors.coverage.arcs import Arcs
from pipeline.products.vectors.coverage.blocks import Block, Counts, merge
from pipeline.products.vectors.coverage.regions import NO_REGION
from pipeline.products.vectors.edition_pixels import PixelReader
from pipeline.products.vectors.features import FeatureFiles, FeatureMaker, read_features
from pipeline.products.vectors.geoparquet import in_order, write_geoparquet


@dataclass(frozen=True)
class VectorWork:
    """What all tasks of a vectorization need."""

    folder: Path
    pixels: PixelReader
    grid: BlockGrid
    origin: FeatureMaker
    tolerance: float
    """In pixels."""

    def block_file(self, block: BlockIndex) -> Path:
        """Where a block's open regions are written."""
        return self.folder / "blocks" / f"{_name(block)}.npz"

    @property
    def features(self) -> Path:
        """The folder of unfinished polygons."""
        return self.folder / "features"

    def part_file(self, part: int) -> Path:
        """The file of a part."""
        return self.folder / "parts" / f"{part}.parquet"


@dataclass(frozen=True)
class PartFacts:
    """A part of the dataset."""

    part: int
    classes: Mapping[int, tuple[int, float]]
    """Class → number of polygons, and their area in m²."""
    domains: tuple[str, ...]

    @property
    def polygons(self) -> int:
        """Number of polygons."""
        return sum(number for number, _ in self.classes.values())


def _name(block: BlockIndex) -> str:
    return "-".join(map(str, block))


def vectorize_block(work: VectorWork, job: tuple[BlockIndex, tuple[Window, ...]]) -> None:
    """Traces the cells of a block of level 0, and writes the polygons that lie inside it and its open regions.

    Memory: the layers of one cell, the block's open regions, and what it has finished of a cell.

    Args:
        work: of all tasks.
        job: the block, and the windows in which it has pixels.

    Raises:
        ProductError: a shard cannot be read.
        StorageError: a file cannot be written.
    """
    block, windows = job
    if work.block_file(block).exists():
        return
    cells: dict[tuple[int, int], Block] = {}
    with FeatureFiles(work.features, _name(block), work.origin.schema) as files:
        reached = work.grid.cells_of(block, windows)
        for place, finished, left in read_cells(work.pixels, reached, tolerance=work.tolerance):
            files.write(work.origin.to_table(finished))
            cells[place] = left
        if cells:
            finished, left = merge(cells, across=work.grid.across)
            files.write(work.origin.to_table(finished))
        else:
            left = _nothing(work.grid.cell * work.grid.across)
    write_block(work.block_file(block), left)


def merge_blocks(work: VectorWork, job: tuple[BlockIndex, tuple[BlockIndex, ...]]) -> None:
    """Merges blocks into the next larger one, and writes the polygons that this finishes.

    Memory: the open regions of the blocks, and the polygons that are finished.

    Raises:
        ProductError: a file cannot be read.
        StorageError: a file cannot be written.
    """
    block, children = job
    if work.block_file(block).exists():
        return
    parts = {(row % 2, col % 2): read_block(work.block_file((level, row, col))) for level, row, col in children}
    finished, left = merge(parts, across=2)
    with FeatureFiles(work.features, _name(block), work.origin.schema) as files:
        files.write(work.origin.to_table(finished))
    write_block(work.block_file(block), left)


def check_finished(work: VectorWork, block: BlockIndex) -> None:
    """Raises ProductError where the block that covers everything has open regions."""
    if number := len(read_block(work.block_file(block)).classes):
        raise ProductError(f"{work.folder}: {number} regions were left open; remove the folder and run again")


def parts_in(work: VectorWork) -> list[int]:
    """The parts that have polygons, in order."""
    return sorted(int(folder.name) for folder in work.features.glob("*"))


def sorted_polygons(work: VectorWork, part: int) -> Iterator[pa.Table]:
    """The polygons of a part, in order; a table for each square that is sorted together.

    Raises:
        ProductError: a file cannot be read.
    """
    return map(in_order, read_features(work.features, part))


def write_part(work: VectorWork, part: int) -> PartFacts:
    """Writes the polygons of a part, in order.

    Memory: the polygons of a square that are sorted together.

    Raises:
        ProductError: a file cannot be read.
        StorageError: a file cannot be written.
    """
    number, area, domains = Counter[int](), Counter[int](), set[str]()

    def tables() -> Iterator[pa.Table]:
        for table in sorted_polygons(work, part):
            sums = table.group_by("landcover").aggregate([("area_m2", "sum"), ("area_m2", "count")])
            for row in sums.to_pylist():
                number[row["landcover"]] += row["area_m2_count"]
                # In units of half a pixel, which add up without rounding.
                area[row["landcover"]] += round(row["area_m2_sum"] * 50)
            domains.update(filter(None, table["domain"].unique().to_pylist()))
            yield table
            del table, sums  # before the next one is read

    with replacing(work.part_file(part)) as temporary:
        write_geoparquet(temporary, tables(), schema=work.origin.schema, crs=work.origin.crs)
    classes = {value: (number[value], area[value] / 50) for value in sorted(number)}
    return PartFacts(part, classes, tuple(sorted(domains)))


def _nothing(side: int) -> Block:
    """A block without open regions."""
    none, no = np.empty(0, np.int64), np.empty(0, bool)
    arcs = Arcs(none, none, np.zeros(1, np.int64), none, none, none, none, no, no)
    empty = np.full(side, NO_REGION)
    return Block(none, none, Counts(none, none, none), arcs, empty, empty, empty, empty)
