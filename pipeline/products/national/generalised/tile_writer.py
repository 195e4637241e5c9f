"""Writes one tile of the generalised map."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.durable import sync
from pipeline.errors import product_error
from pipeline.grid import Window
from pipeline.legend import NODATA
from pipeline.products.national.generalised.settling import settle
from pipeline.products.national.grid import GridIndex, NationalGrid
from pipeline.products.national.pyramid.downsample import CLASSES
from pipeline.products.national.zarr_store import read_zarr, write_layer

_BLOCK = 2_500
"""Pixels a side that are generalised at once. Bytes do not depend on it; with its margin, a block takes some 0.3 GB."""


@dataclass(frozen=True, eq=False)
class LayerTarget:
    """What a worker needs besides the tile."""

    source: Path
    """The edition's level 0."""
    store: Path
    """The Zarr to write into."""
    grid: NationalGrid
    units: NDArray[np.int64]
    block: int = _BLOCK


@dataclass(frozen=True)
class WrittenTile:
    """What the driver records of a tile."""

    read: frozenset[GridIndex]
    """Shards that the result may depend on."""
    pixels: dict[str, int]
    """FLAIR value → its pixels in the tile of the map itself."""
    moved: dict[str, int]
    """`from/to`, FLAIR values → pixels that changed class."""


def write_generalised(target: LayerTarget, tile: GridIndex) -> WrittenTile:
    """Writes the shards of a tile. One task, no locks, may be repeated.

    It takes a byte for each pixel of a shard, and what a block takes.

    Args:
        target: the layer, after `create_layer`.
        tile: (row, column) in the national grid.

    Raises:
        ProductError: level 0 cannot be read, a block depends on ground too far away, or a shard cannot be written.
    """
    grid = target.grid
    read = partial(_read, target.source / "landcover", grid.extent)
    seen: set[GridIndex] = set()
    counts, moved = np.zeros(CLASSES, np.int64), np.zeros(CLASSES**2, np.int64)
    with product_error(f"{target.store}: tile {tile} (row, column) cannot be written"):
        for index in grid.shards_of(tile):
            shard = grid.shard_window(index)
            pixels: NDArray[np.uint8] = np.zeros(shard.shape, np.uint8)
            for block in shard.split(target.block):
                made = settle(read, block, extent=grid.extent, units=target.units)
                pixels[block.slices_in(shard)] = made.classes
                seen |= _shards_in(made.read, grid)
                counts += np.bincount(made.before.ravel(), minlength=CLASSES)
                differ = made.before != made.classes
                codes = made.before[differ].astype(np.int64) * CLASSES + made.classes[differ]
                moved += np.bincount(codes, minlength=CLASSES**2)
            sync(write_layer(target.store, "landcover", index, shard=grid.shard, pixels=pixels))
    pairs = {f"{i // CLASSES}/{i % CLASSES}": int(moved[i]) for i in np.flatnonzero(moved).tolist()}
    own = {str(value): int(counts[value]) for value in np.flatnonzero(counts).tolist() if value != NODATA}
    return WrittenTile(frozenset(seen), own, pairs)


def _read(array: Path, extent: Window, window: Window) -> NDArray[np.uint8]:
    return read_zarr(array, window.within(extent))


def _shards_in(window: Window, grid: NationalGrid) -> set[GridIndex]:
    """The shards that a window of the lattice meets."""
    inside = window.within(grid.extent)
    rows = range(inside.row // grid.shard, (inside.bottom - 1) // grid.shard + 1)
    cols = range(inside.col // grid.shard, (inside.right - 1) // grid.shard + 1)
    return {(row, col) for row in rows for col in cols}
