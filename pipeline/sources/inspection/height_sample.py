"""Checks the encoding of a domain's heights on a small sample, whatever the domain's size."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError

from pipeline.errors import DeliveryError
from pipeline.grid import Tile, Window
from pipeline.sources.delivery.names import Kind
from pipeline.sources.domain_inputs import whole_cells
from pipeline.sources.gdal_open import open_own_vrt
from pipeline.sources.inspection.elevation_coverage import ElevationCoverage
from pipeline.sources.inspection.inspected_files import InspectedFile
from pipeline.sources.inspection.lowest_level import read_lowest_cells
from pipeline.sources.inspection.model_card_limits import ExceededCardLimit, height_differences, ready_heights
from pipeline.sources.reading import vrt
from pipeline.sources.reading.dataset_cache import gdal_options

_TILES = 64
"""Tiles in the sample, evenly spaced among all."""
_STEP = 5
"""Every fifth pixel (1 m) is used."""
_PLACES = (0.25, 0.75)
"""Positions along each side of a tile at which a cell of 50 m is read."""


def implausible_heights(
    tiles: Mapping[Tile, Mapping[Kind, InspectedFile]], coverage: ElevationCoverage
) -> list[ExceededCardLimit]:
    """Reads a sample of a domain's heights and returns what is implausible about their encoding.

    Raises:
        DeliveryError: a file of the sample cannot be read.
    """
    ordered = sorted(tiles)
    some = [ordered[i] for i in np.linspace(0, len(tiles), min(_TILES, len(tiles)), endpoint=False).astype(int)]
    counts = np.zeros(256, np.int64)
    for tile in some:
        if (ready := tiles[tile].get("height")) and ready.header.dtype == "uint8":
            counts += np.bincount(read_lowest_cells(ready.path).ravel(), minlength=256)
    metres = [part for tile in some if "height" not in tiles[tile] for part in _differences(tile, coverage)]
    return ready_heights(counts) + height_differences(np.concatenate(metres) if metres else np.zeros(0, np.float32))


def _differences(tile: Tile, coverage: ElevationCoverage) -> Iterator[NDArray[np.float32]]:
    """Yields surface minus terrain in metres where both are known, (n,)."""
    assets = [f.asset for f in coverage.behind(tile)]
    for cell in _cells(tile.window):
        near = [a for a in assets if a.meets(cell)]
        surface, terrain = (vrt.elevation([a for a in near if a.kind == kind]) for kind in ("dsm", "dtm"))
        if not (surface and terrain):
            continue
        try:
            with gdal_options(a.path for a in near):
                above, below = _read(surface, cell), _read(terrain, cell)
        except RasterioIOError as error:
            paths = ", ".join(str(a.path) for a in near[:4])
            raise DeliveryError(
                f"one of {paths}: cannot be read: {error.__cause__ or error}; download these files again"
            ) from error
        known = (above != vrt.NODATA_M) & (below != vrt.NODATA_M) & np.isfinite(above) & np.isfinite(below)
        yield (above - below)[known]


def _read(name: str, cell: Window) -> NDArray[np.float32]:
    """Reads metres and closes the file at once, so that a later run does not get pixels that an index cached."""
    with open_own_vrt(name) as file:
        metres: NDArray[np.float32] = file.read(1, window=cell.slices_in(vrt.FRAME))[::_STEP, ::_STEP].copy()
    return metres


def _cells(window: Window) -> list[Window]:
    """The distinct whole cells of elevation at `_PLACES` of a window."""
    points = [
        (window.row + int(window.height * y), window.col + int(window.width * x)) for y in _PLACES for x in _PLACES
    ]
    return list(dict.fromkeys(whole_cells(Window(row, col, 1, 1)) for row, col in points))
