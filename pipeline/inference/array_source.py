"""Arrays that a user already has, read as a mosaic is; and coordinates for what is mapped."""

from dataclasses import dataclass

import numpy as np
import rioxarray  # noqa: F401  (registers the .rio accessor)
import xarray as xr
from numpy.typing import NDArray

from pipeline.grid import Affine6, Window
from pipeline.sources.reading.mosaic import Mosaic, Pixels


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An array, or the part of one that a Dask chunk holds, in the image's own pixel positions."""

    pixels: NDArray[np.uint8]
    """uint8 (band, y, x) of `held`."""
    valid: NDArray[np.bool_]
    """bool (y, x) of `held`; False is no data."""
    held: Window
    """The part of the image that is in `pixels`."""
    window: Window
    """The whole image: beyond it is reflected."""
    bands: tuple[str, ...] = ()
    """Band names; empty where nobody named them."""
    crs: str = ""
    """Not known to an array."""
    transform: Affine6 = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    """Not known to an array."""

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], held: Window, *, window: Window, nodata: float | None) -> "ArraySource":
        """Pixels where every band equals `nodata` are no data; with None all are data."""
        valid = np.ones(held.shape, bool) if nodata is None else (pixels != nodata).any(axis=0)
        return cls(pixels, valid, held, window)

    def read(self, window: Window, *, within: Window | None = None) -> Pixels:
        """See `Source`."""
        own = Pixels(self.pixels, self.valid).part(window, of=self.held)
        if within is None:
            return own
        whole = Pixels.nothing(len(self.pixels), within)
        part = whole.part(window, of=within)
        part.bands[:], part.valid[:] = own.bands, own.valid
        return whole


def coordinates(window: Window, transform: Affine6, crs: str) -> xr.DataArray:
    """An empty (y, x) array's coordinates: pixel centres and the CRS.

    Args:
        window: gives the shape alone.
        transform: of the north-west corner.
        crs: anything that rioxarray takes; empty for none.

    Returns:
        DataArray without data of its own, whose coordinates are to be taken.
    """
    a, _, c, _, e, f = transform
    y = f + e * (np.arange(window.height) + 0.5)
    x = c + a * (np.arange(window.width) + 0.5)
    empty = xr.DataArray(np.broadcast_to(np.uint8(0), window.shape), dims=("y", "x"), coords={"y": y, "x": x})
    return empty.rio.write_crs(crs) if crs else empty


def mosaic_behind(image: xr.DataArray) -> Mosaic | None:
    """The mosaic whose whole, untouched view `image` is; None for any other array.

    The view's tasks carry their mosaic. A slice or a change gives an array of another name, which is
    then mapped as the array that it is.
    """
    if image.chunks is None:
        return None
    task = image.data.dask.get((image.data.name, 0, 0, 0))
    held = [part for part in task if isinstance(part, Mosaic)] if isinstance(task, tuple) else []
    return held[0] if held else None
