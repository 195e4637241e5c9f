"""A sample of a domain's heights, small whatever the domain's size, for a look at how they are encoded."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.windows import Window as RasterWindow

from pipeline.errors import DeliveryError
from pipeline.grid import Tile, Window
from pipeline.sources.delivery.names import Kind
from pipeline.sources.domain_inputs import whole_cells
from pipeline.sources.inspection.elevation_coverage import Relief
from pipeline.sources.inspection.lowest_level import lowest_level
from pipeline.sources.inspection.model_card_limits import Excess, ready_heights, relief_heights
from pipeline.sources.inspection.validation import Examined
from pipeline.sources.reading import vrt
from pipeline.sources.reading.dataset_cache import gdal_options, on_frame

_TILES = 64
"""Tiles that are looked at, evenly among all."""
_STEP = 5
"""Every fifth pixel, a metre, is kept."""
_PLACES = (0.25, 0.75)
"""Where in a tile, along each side, a cell of 50 m is read."""


def implausible_heights(tiles: Mapping[Tile, Mapping[Kind, Examined]], relief: Relief) -> list[Excess]:
    """What the heights of a sample say against their encoding.

    Raises:
        DeliveryError: a file of the sample cannot be read.
    """
    some = _evenly(sorted(tiles))
    counts = np.zeros(256, np.int64)
    for tile in some:
        if (ready := tiles[tile].get("height")) and ready.header.dtype == "uint8":
            counts += np.bincount(lowest_level(ready.path).ravel(), minlength=256)
    metres = [_differences(tile, relief) for tile in some if "height" not in tiles[tile]]
    return ready_heights(counts) + relief_heights(np.concatenate(metres) if metres else np.zeros(0, np.float32))


def _evenly(tiles: Sequence[Tile]) -> list[Tile]:
    edges = np.linspace(0, len(tiles), min(_TILES, len(tiles)) + 1).astype(int)
    return [tiles[start] for start, end in pairwise(edges) if end > start]


def _differences(tile: Tile, relief: Relief) -> NDArray[np.float32]:
    """Surface minus terrain in metres where both are known, (n,)."""
    assets = [f.asset for f in relief.behind(tile)]
    found = []
    for cell in _cells(tile.window):
        near = [a for a in assets if a.meets(cell)]
        surface, terrain = (vrt.elevation([a for a in near if a.kind == kind]) for kind in ("dsm", "dtm"))
        if not (surface and terrain):
            continue
        try:
            with gdal_options():
                above, below = _read(surface, cell), _read(terrain, cell)
        except RasterioIOError as error:
            paths = ", ".join(str(a.path) for a in near[:4])
            raise DeliveryError(f"one of {paths}: cannot be read: {error.__cause__ or error}") from error
        known = (above != vrt.NODATA_M) & (below != vrt.NODATA_M) & np.isfinite(above) & np.isfinite(below)
        found.append((above - below)[known])
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _read(name: str, cell: Window) -> NDArray[np.float32]:
    """Closed at once: what an index read must not stand for what a later run reads."""
    place = on_frame(cell)
    with rasterio.open(name) as file:
        window = RasterWindow(place.col, place.row, place.width, place.height)
        metres: NDArray[np.float32] = file.read(1, window=window)[::_STEP, ::_STEP].copy()
    return metres


def _cells(window: Window) -> list[Window]:
    """Whole cells of elevation, each once, at `_PLACES` of a window."""
    points = [
        (window.row + int(window.height * y), window.col + int(window.width * x)) for y in _PLACES for x in _PLACES
    ]
    return list(dict.fromkeys(whole_cells(Window(row, col, 1, 1)) for row, col in points))
