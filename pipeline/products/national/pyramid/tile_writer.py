"""Writes a tile's part of the coarser levels and of the class counts, from level 0."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.errors import product_error
from pipeline.grid import Window
from pipeline.products.national.grid import GridIndex
from pipeline.products.national.publish_plan import Target
from pipeline.products.national.pyramid.downsample import CLASSES, CellCounts, count_cells
from pipeline.products.national.pyramid.levels import FACTORS, SHARES, groups, overview_groups, pyramid_of
from pipeline.products.national.pyramid.overviews import Cells, overview_cells
from pipeline.products.national.zarr_store import read_zarr

_PIECE = 500
"""Pixels a side that are counted at once, about: they fit into a core's cache."""


def write_tile(target: Target, tile: GridIndex) -> Cells:
    """Writes a tile's part of every level and of the class counts. One task, no locks, may be repeated.

    A tile of 25 000 px takes about 200 MB of memory.

    Args:
        target: the edition, after `begin_pyramid`; the tile's level 0 is complete.
        tile: (row, column) in the national grid.

    Returns:
        The tile's cells of the coarsest levels, for `write_overviews`.

    Raises:
        ProductError: level 0 cannot be read or has a value that is not a class, or a file cannot be written.
    """
    path = pyramid_of(target.store.parent)
    with product_error(f"{path}: tile {tile} (row, column) cannot be written", ValueError):
        levels, coarsest = _levels_of(target, tile)
        for name, values in levels.items():
            side = values.shape[-1]
            place = tuple(slice(i * side, (i + 1) * side) for i in tile)
            array: Any = zarr.open_array(path / name, mode="r+", zarr_format=3)
            array.with_config({"write_empty_chunks": True})[..., *place] = values
        return coarsest


def _levels_of(target: Target, tile: GridIndex) -> tuple[dict[str, NDArray[Any]], Cells]:
    """Path of an array in the pyramid → a tile's values, counted piece by piece; and those of the coarsest levels."""
    grid = target.grid
    names = list(groups(grid, target.layers))
    made: dict[str, NDArray[Any]] = {}
    for name in names:
        side = grid.tile // FACTORS[name]
        if name == SHARES:
            made[f"{name}/count"] = np.zeros((CLASSES, side, side), np.uint32)
        else:
            made |= {f"{name}/{layer}": np.zeros((side, side), np.uint8) for layer in target.layers}
    finest, whole = FACTORS[names[0]], _Whole(grid.tile) if overview_groups(grid) else None
    for window, classes, confidence in _pieces(target, tile, step=FACTORS[names[-1]]):
        cells, factor = count_cells(classes, confidence, factor=finest), finest
        for name in names:
            cells, factor = cells.coarser(FACTORS[name] // factor), FACTORS[name]
            place = tuple(slice(s.start // factor, s.stop // factor) for s in window)
            if name == SHARES:
                made[f"{name}/count"][:, *place] = cells.dense
            else:
                for layer in target.layers:
                    made[f"{name}/{layer}"][place] = cells.of(layer)
            if whole is not None and factor == _Whole.FACTOR:
                whole.add(cells, place)
    return made, {} if whole is None else overview_cells(target, whole.counted)


class _Whole:
    """A whole tile in cells of level 4."""

    FACTOR = FACTORS["4"]

    def __init__(self, tile: int) -> None:
        side = tile // self.FACTOR
        self._counts: NDArray[np.uint32] = np.zeros((CLASSES, side, side), np.uint32)
        self._confidence: NDArray[np.uint64] = np.zeros((side, side), np.uint64)

    def add(self, cells: CellCounts, place: tuple[slice, ...]) -> None:
        """Sets a piece."""
        self._counts[:, *place] = cells.dense
        self._confidence[place] = cells.confidence

    @property
    def counted(self) -> CellCounts:
        """All pieces."""
        return CellCounts(np.arange(CLASSES, dtype=np.uint8), self._counts, self._confidence)


def _pieces(
    target: Target, tile: GridIndex, *, step: int
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.uint8], NDArray[np.uint8]]]:
    """Pieces of a tile's level 0, whose sides are multiples of `step`: their slices, classes and confidence."""
    side = target.grid.tile
    piece = step * max(1, _PIECE // step)
    whole = Window(tile[0] * side, tile[1] * side, side, side)
    for strip in whole.strips(piece * -(-target.grid.chunk // piece)):
        pixels = [read_zarr(target.store / layer, strip) for layer in target.layers]
        for part in strip.split(piece):
            inside = part.slices_in(strip)
            # Without a layer of confidence, its sums are not used.
            yield part.slices_in(whole), pixels[0][inside], pixels[-1][inside]
