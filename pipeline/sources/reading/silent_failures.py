"""A read that failed without saying so, found out.

GDAL's pool of open files remembers a file that it could not open and from then on fails without a message, which
rasterio takes for success: the pixels stay 0. So where a file gave nothing at all, it is asked directly.
"""

from collections.abc import Iterable

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow
from rasterio.windows import from_bounds

from pipeline.grid import PIXELS_PER_M, Affine6, Window
from pipeline.sources.bit_depth import as_levels
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.reading import vrt


class CameBack(Exception):
    """A file that could not be opened a while ago and can be now: virtual rasters made anew read it."""


def check_not_silent(assets: Iterable[Asset], given: NDArray[np.uint8] | NDArray[np.bool_], window: Window) -> None:
    """Asks each file directly whose part of a read is empty.

    Args:
        assets: files behind the read.
        given: (…, y, x) over `window`: what was read of them, or where something was.
        window: on the lattice.

    Raises:
        rasterio.errors.RasterioIOError: a file cannot be opened.
        CameBack: a file can be opened, and the read had none of its pixels.
    """
    for asset in assets:
        part = _place(asset).intersect(window)
        own = given[..., *part.slices_in(window)]
        # A neighbour's elevation reaches a pixel into the part of a file that is missing.
        silent = not own.all() if asset.kind in ("dsm", "dtm") else not own.any()
        if part.pixels and silent:
            _ask(asset, part)


def _place(asset: Asset) -> Window:
    """The whole lattice pixels inside a file."""
    left, bottom, right, top = (round(edge * PIXELS_PER_M, 3) for edge in asset.bounds)
    return Window.from_edges(*(int(np.ceil(e)) for e in (-top, left)), *(int(np.floor(e)) for e in (-bottom, right)))


def _ask(asset: Asset, part: Window) -> None:
    with rasterio.open(asset.path) as file:
        if asset.kind in ("dsm", "dtm"):
            # Its pixels may be holes, or its counterpart's are: that it opens, here and in the pool, must do.
            with rasterio.open(vrt.probe(asset)) as pooled:
                if pooled.read(1, window=RasterWindow(0, 0, 1, 1))[0, 0] == vrt.UNREAD:
                    raise _came_back(asset)
            return
        place = _in_file(part, asset.transform, asset.shape)
        if as_levels(file.read(window=place)).any():
            raise _came_back(asset)


def _came_back(asset: Asset) -> CameBack:
    vrt.reopen(asset)
    return CameBack(f"{asset.path}: could not be opened a while ago and can be now")


def _in_file(part: Window, transform: Affine6, shape: tuple[int, int]) -> RasterWindow:
    place = from_bounds(*part.bounds, transform=rasterio.Affine(*transform))
    return place.round_offsets().round_lengths().intersection(RasterWindow(0, 0, shape[1], shape[0]))
