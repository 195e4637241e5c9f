"""The levels of a pyramid, their cells, and the groups of their Zarr."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.legend import LAYERS, Layer
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.zarr_metadata import Frame

FACTORS = {"1": 5, "2": 10, "3": 50, "4": 250, "shares": 500}
"""Group → side of its cells in lattice pixels; each divides the next. A tile's part of an array is one file."""
OVERVIEWS = {"5": 1_250, "6": 5_000, "7": 25_000}
"""The same of the coarsest levels, whose files have many tiles; each divides the next, and level 4 the first."""
SHARES = "shares"


def pyramid_of(edition: Path) -> Path:
    """The pyramid beside an edition's store."""
    return edition / "pyramid.zarr"


def groups(grid: NationalGrid, layers: Sequence[Layer] = LAYERS) -> dict[str, Frame]:
    """The groups of the grid's pyramid with a file for each tile, from fine to coarse; of all layers with shares."""
    names = [name for name in FACTORS if name != SHARES or tuple(layers) == LAYERS]
    return {n: Frame(grid.extent, grid.crs, FACTORS[n]) for n in names if grid.tile % FACTORS[n] == 0}


def overview_groups(grid: NationalGrid) -> dict[str, Frame]:
    """The groups of the grid's pyramid whose files have many tiles, from fine to coarse."""
    return {name: Frame(grid.extent, grid.crs, f) for name, f in OVERVIEWS.items() if grid.tile % f == 0}
