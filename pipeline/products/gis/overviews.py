"""Small pictures of a product, from the overviews of COGs or the levels of an edition, and a sample of confidence."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from pipeline import legend
from pipeline.grid import Window
from pipeline.legend import Layer
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.pyramid.downsample import count_cells
from pipeline.products.national.pyramid.levels import FACTORS, SHARES, groups, pyramid_of
from pipeline.products.national.zarr_store import read_zarr
from pipeline.products.tile.cog import BLOCK, open_cog
from pipeline.products.tile.seal import SealedTile, count_values

_SIDE = 1_000
"""Pixels of a picture's longer side, at most."""
_READERS = 16
"""Threads that wait for a shared file system."""
_AT_ONCE = 4_000_000
"""Cells of a level that are counted at once; counting takes a byte per cell and class."""
_SAMPLES = 4
"""Internal blocks along each side of a tile whose confidence is counted; small tiles are counted completely."""

State = Literal["sealed", "damaged", "failed", "missing"]
STATE_COLOURS: Mapping[State, str] = {
    "sealed": "#2a9d5c",
    "damaged": "#e08a00",
    "failed": "#c62828",
    "missing": "#9e9e9e",
}
_RESAMPLING: dict[Layer, Resampling] = {"landcover": Resampling.mode, "confidence": Resampling.average}


def overview(sealed: Sequence[SealedTile], layer: Layer, *, within: Window, side: int = _SIDE) -> NDArray[np.uint8]:
    """A small picture of one layer over `within`: uint8 (y, x), 0 where there is no tile.

    It is read from the COGs' overviews: classes by mode, confidence by mean.

    Args:
        sealed: tiles in drawing order; later ones cover earlier ones.
        layer: of the product.
        within: lattice window of the picture.
        side: pixels of the picture's longer side, at most.

    Raises:
        ProductError: a tile cannot be read.
    """
    shape, _ = scaled(within, within, side)
    picture = np.zeros(shape, np.uint8)
    places = [scaled(tile.tile.window, within, side) for tile in sealed]
    with ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(partial(_read_small, layer), sealed, (small for small, _ in places))
        for ((height, width), place), small in zip(places, read, strict=True):
            np.copyto(picture[place], small[:height, :width], where=small[:height, :width] != 0)
    return picture


def _read_small(layer: Layer, tile: SealedTile, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (y, x) of this shape, at least one pixel a side."""
    with open_cog(tile.file(layer).path) as cog:
        return cog.read(shape=(max(1, shape[0]), max(1, shape[1])), resampling=_RESAMPLING[layer])


def edition_overview(
    edition: Path, grid: NationalGrid, layer: Layer, *, within: Window, side: int = _SIDE
) -> NDArray[np.uint8]:
    """A small picture of one layer of an edition, in which each pixel is its owner's: uint8 (y, x), 0 for no data.

    It is counted from the coarsest level whose cells are not larger than its pixels: classes by mode, confidence by
    mean. A pixel is a whole number of cells, counted from the north-west corner of `within`.

    Args:
        edition: its folder, current or not; store and levels are complete.
        grid: of the edition.
        layer: of the product.
        within: whole tiles of the grid; no data outside of its extent.
        side: pixels of the picture's longer side, at most.

    Raises:
        ProductError: a level cannot be read.
    """
    pixels = -(-max(within.shape) // side)
    levels = {"0": 1} | {name: FACTORS[name] for name in groups(grid) if name != SHARES}
    name, factor = max(((n, f) for n, f in levels.items() if f <= pixels), key=lambda level: level[1])
    step, path = -(-pixels // factor), pyramid_of(edition) / name / layer
    top, left = (within.row - grid.extent.row) // factor, (within.col - grid.extent.col) // factor
    height, width = (-(-length // (factor * step)) for length in within.shape)
    picture: NDArray[np.uint8] = np.zeros((height, width), np.uint8)
    drawn = Window(top, left, within.height // factor, within.width // factor)
    for strip in Window(0, 0, height, width).strips(max(1, _AT_ONCE // (width * step**2))):
        wanted = Window(top + strip.row * step, left, strip.height * step, width * step)
        there = wanted.intersect(drawn)
        cells: NDArray[np.uint8] = np.full(wanted.shape, legend.NODATA, np.uint8)
        cells[there.slices_in(wanted)] = read_zarr(path, there)
        has_data = (cells != legend.NODATA).view(np.uint8)
        counted = count_cells(has_data if layer == "confidence" else cells, cells, factor=step)
        picture[strip.slices] = counted.mode if layer == "landcover" else counted.mean
    return picture


def scaled(window: Window, within: Window, side: int = _SIDE) -> tuple[tuple[int, int], tuple[slice, slice]]:
    """(shape, slices) of a window in a picture of `within`; neighbouring windows meet without a gap.

    Args:
        window: inside of `within`.
        within: window of the picture.
        side: pixels of the picture's longer side, at most.
    """
    factor = max(1.0, max(within.shape) / side)
    rows, cols = ((round(s.start / factor), round(s.stop / factor)) for s in window.slices_in(within))
    return (rows[1] - rows[0], cols[1] - cols[0]), (slice(*rows), slice(*cols))


def class_colours(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours of a class map: (y, x) of FLAIR values → uint8 rgb (y, x, 3); no data is light grey."""
    colours = np.full((256, 3), 235, np.uint8)
    for c in legend.FLAIR:
        colours[c.value] = c.rgb
    return colours[classes]


def confidence_counts(sealed: SealedTile) -> NDArray[np.int64]:
    """Pixels of each confidence 0..255: int64 (256,), at full resolution in evenly spread blocks of the tile.

    Raises:
        ProductError: it cannot be read.
    """
    size = sealed.tile.window.height
    starts = np.unique(np.linspace(0, max(0, (size - 1) // BLOCK), _SAMPLES).astype(int)) * BLOCK
    counts: NDArray[np.int64] = np.zeros(256, np.int64)
    with open_cog(sealed.file("confidence").path) as cog:
        for row, col in product(starts.tolist(), starts.tolist()):
            block = Window(row, col, min(BLOCK, size - row), min(BLOCK, size - col))
            counts += count_values(cog.read(block))
    return counts
