"""Levels 5 to 7 of a pyramid: 250 m, 1 km and 5 km, in a few files, so that a first view of a nation asks for few.

A cell lies in one tile, and is counted from level 0 when the tile's part of the other levels is. The cells of unchanged
tiles are those of the former edition.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.errors import MALFORMED, product_error
from pipeline.legend import LAYERS, Layer
from pipeline.products.national.grid import GridIndex, NationalGrid, lost_files
from pipeline.products.national.publish_plan import Target
from pipeline.products.national.pyramid.downsample import CellCounts
from pipeline.products.national.pyramid.levels import FACTORS, OVERVIEWS, overview_groups, pyramid_of

CHUNK = 1_024
"""Cells a side of a file: France has some 25 files of a layer at 250 m."""
_FINEST = "4"
"""The level whose counts are added up."""

Cells = Mapping[str, NDArray[np.uint8]]
"""Path of an array in the pyramid → a tile's cells (y, x)."""


def overview_cells(target: Target, counted: CellCounts) -> Cells:
    """A tile's cells.

    Args:
        target: the edition.
        counted: the tile in cells of level 4, with confidence in 64 bits.
    """
    made: dict[str, NDArray[np.uint8]] = {}
    cells, factor = counted, FACTORS[_FINEST]
    for name in overview_groups(target.grid):
        cells, factor = cells.coarser(OVERVIEWS[name] // factor), OVERVIEWS[name]
        made |= {f"{name}/{layer}": cells.of(layer) for layer in target.layers}
    return made


def write_overviews(
    target: Target, cells: Mapping[GridIndex, Cells], *, former: Path | None, tiles: Iterable[GridIndex]
) -> None:
    """Writes the levels of a new edition, once all its tiles are written.

    Args:
        target: the edition, after `begin_pyramid`.
        cells: what `write_tile` returned for each tile that it wrote.
        former: folder of the edition whose tiles `begin_pyramid` linked; None if it linked none.
        tiles: all tiles that the edition covers.

    Raises:
        ProductError: the former edition cannot be read, or a file cannot be written.
    """
    path, grid, kept = pyramid_of(target.store.parent), target.grid, set(tiles) - cells.keys()
    for name, frame in overview_groups(grid).items():
        side = grid.tile // OVERVIEWS[name]
        for layer in target.layers:
            array = f"{name}/{layer}"
            with product_error(f"{path / array}: cannot be written", *MALFORMED):
                whole: NDArray[np.uint8] = np.zeros(frame.geobox.shape, np.uint8)
                if kept and former is not None:
                    before: Any = zarr.open_array(pyramid_of(former) / array, mode="r", zarr_format=3)[:]
                    for tile in kept:
                        whole[_part(tile, side)] = before[_part(tile, side)]
                for tile, made in cells.items():
                    whole[_part(tile, side)] = made[array]
                opened: Any = zarr.open_array(path / array, mode="r+", zarr_format=3)
                opened.with_config({"write_empty_chunks": True})[:] = whole


def _part(tile: GridIndex, side: int) -> tuple[slice, slice]:
    row, col = tile
    return slice(row * side, (row + 1) * side), slice(col * side, (col + 1) * side)


def lost_overviews(path: Path, grid: NationalGrid, layers: Sequence[Layer] = LAYERS) -> list[str]:
    """Problems: lost files of these levels. Empty if there are none.

    Args:
        path: a pyramid that has them.
        grid: of its edition.
        layers: that it has.
    """
    problems = []
    for name, frame in overview_groups(grid).items():
        chunks = np.ndindex(*(-(-length // CHUNK) for length in frame.geobox.shape))
        arrays = (path / name / layer / "c" for layer in layers)
        problems += lost_files(arrays, [(row, col) for row, col in chunks])
    return problems


def any_overview(names: Collection[str]) -> bool:
    """Whether one of these paths in an edition is a file of these levels."""
    return any(name.startswith(f"pyramid.zarr/{level}/") for name in names for level in OVERVIEWS)
