"""Arrays that a user already has, read as a mosaic is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.grid import Window
from pipeline.sources.reading.raster import Pixels


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An array, or the part of one in a Dask chunk, in the image's own pixel positions."""

    pixels: NDArray[np.uint8]
    """uint8 (band, y, x) of `part`."""
    valid: NDArray[np.bool_]
    """bool (y, x) of `part`; False is no data."""
    part: Window
    """The part of the image that is in `pixels`."""
    window: Window
    """The whole image; reads beyond it are reflected."""

    @classmethod
    def all_valid(cls, pixels: NDArray[np.uint8], window: Window) -> "ArraySource":
        """A whole image at this position, of which every pixel is data."""
        return cls(pixels, np.ones(window.shape, np.bool_), window, window)

    def read(self, window: Window, *, within: Window | None = None) -> Pixels:
        """See `Source`."""
        own = Pixels(self.pixels, self.valid).part(window, of=self.part)
        if within is None:
            return own
        whole = Pixels.nothing(len(self.pixels), within)
        part = whole.part(window, of=within)
        part.bands[:], part.valid[:] = own.bands, own.valid
        return whole
