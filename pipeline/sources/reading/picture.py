"""The imagery behind a window as a picture for the eye, at any resolution; nothing is mapped from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from pipeline.errors import SourceError
from pipeline.grid import Window
from pipeline.sources.bit_depth import to_levels
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.reading.dataset_cache import gdal_options, open_here


@dataclass(frozen=True, eq=False)
class Picture:
    """Colours, and where there are any."""

    colours: NDArray[np.uint8]
    """uint8 (y, x, 3): red, green, blue."""
    covered: NDArray[np.bool_]
    """bool (y, x): False outside of all files."""


def read_picture(assets: Sequence[Asset], window: Window, *, factor: int) -> Picture:
    """Reads the mean colour of squares of pixels, from a file's own coarser levels where it has them.

    Args:
        assets: RVB files, of which the first come last, above the others.
        window: on the lattice; `factor` divides its sides.
        factor: pixels of the lattice a side of a pixel of the picture.

    Raises:
        SourceError: a file cannot be read.
    """
    shape = (window.height // factor, window.width // factor)
    picture = Picture(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.bool_))
    with gdal_options(asset.path for asset in assets):
        for asset in reversed(assets):
            try:
                _draw(picture, asset, window.bounds, (window.bounds[2] - window.bounds[0]) / shape[1])
            except RasterioError as error:
                raise SourceError(f"{asset.path}: cannot be read: {error.__cause__ or error}") from error
    return picture


def _draw(picture: Picture, asset: Asset, bounds: tuple[float, float, float, float], step: float) -> None:
    """Draws one file; `step` is the side of a pixel of the picture in metres."""
    left, bottom, right, top = (
        pick(own, wanted) for pick, own, wanted in zip((max, max, min, min), asset.bounds, bounds, strict=True)
    )
    rows = round((bounds[3] - top) / step), round((bounds[3] - bottom) / step)
    cols = round((left - bounds[0]) / step), round((right - bounds[0]) / step)
    if rows[0] >= rows[1] or cols[0] >= cols[1]:
        return
    own = asset.resolution_m
    place = RasterWindow(
        (left - asset.bounds[0]) / own, (asset.bounds[3] - top) / own, (right - left) / own, (top - bottom) / own
    )
    with open_here(asset.path, version=str(asset.mtime_ns)) as dataset:
        pixels = dataset.read(
            [1, 2, 3],
            window=place,
            out_shape=(3, rows[1] - rows[0], cols[1] - cols[0]),
            resampling=Resampling.average if step > own else Resampling.nearest,
        )
    here = slice(*rows), slice(*cols)
    picture.colours[here] = np.moveaxis(to_levels(pixels), 0, -1)
    picture.covered[here] = True
