"""Detects reads that would be wrong without an error: of a file that the catalog describes otherwise, and of nothing.

The guarantee: a file that cannot be read is an error, and never 0 in the mosaic. Neither rasterio nor a library above
it gives it. GDAL's pool of open files remembers a file that it could not open, and later reads of virtual rasters fail
without a message, which rasterio takes for success: the pixels stay 0. So if a read gave nothing from a file, the file
is opened directly.

Virtual rasters are made from the catalog alone. So each process compares the header of a file with the catalog once,
before it first reads the file.
"""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow
from rasterio.windows import from_bounds

from pipeline.errors import DeliveryError, SourceError
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.sources.bit_depth import to_levels
from pipeline.sources.delivery.headers import peek_header
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.gdal_open import open_dataset, open_own_vrt
from pipeline.sources.reading import vrt
from pipeline.sources.validity import Validity


class FileReadableAgain(Exception):
    """A file could not be opened earlier and now can: the read must be repeated with a new virtual raster."""


def check_header(asset: Asset) -> None:
    """Compares the header of a file with the catalog: place, shape, type, nodata, and which pixels are valid.

    A file that cannot be opened is no error here: reading its pixels names it.

    Raises:
        SourceError: they differ, or the header is damaged.
    """
    try:
        difference = _difference(asset)
    except DeliveryError as error:
        # A header may be readable and damaged, so that pixels are read too, from other places.
        if isinstance(error.__cause__, SourceError):
            raise type(error.__cause__)(str(error)) from error
        return
    if difference:
        raise SourceError(f"{asset.href}: {difference}; index the domain again")


@lru_cache(maxsize=1 << 16)
def _difference(asset: Asset) -> str:
    """What the header and the catalog state differently; empty where they agree."""
    header = peek_header(asset.path)
    # A catalog of others may not state a nodata value. Text, because nan differs from itself.
    nodata = None if asset.nodata is None or header.nodata is None else str(header.nodata)
    stated = (asset.transform, asset.shape, asset.dtype, asset.nodata and str(float(asset.nodata)))
    found = (header.transform, header.shape, header.dtype, nodata)
    if stated != found:
        return f"the catalog states transform, shape, type and nodata {stated}, its header has {found}"
    if asset.kind in ("rvb", "irc") and (asset.validity or Validity()) != header.validity:
        return (
            "its header states which pixels are valid (a mask, transparency, nodata values or unwritten blocks), and "
            "the catalog has something else"
        )
    return ""


def check_not_silent(assets: Iterable[Asset], pixels: NDArray[np.uint8] | NDArray[np.bool_], window: Window) -> None:
    """Opens each file directly whose part of a read is empty.

    Args:
        assets: files behind the read.
        pixels: (…, y, x) over `window`: what was read from them, or True where something was.
        window: position on the lattice.

    Raises:
        rasterio.errors.RasterioIOError: a file cannot be opened.
        FileReadableAgain: a file can be opened, and the read lacked its pixels.
    """
    for asset in assets:
        part = _extent(asset).intersect(window)
        own = pixels[..., *part.slices_in(window)]
        # Elevation of a neighbouring file reaches one pixel into the part of an unreadable file.
        empty = not own.all() if asset.kind in ("dsm", "dtm") else not own.any()
        if part.pixels and empty:
            _open_directly(asset, part)


def _extent(asset: Asset) -> Window:
    """The lattice pixels that lie wholly inside a file."""
    left, bottom, right, top = (round(edge * PIXELS_PER_M, 3) for edge in asset.bounds)
    return Window.from_edges(*(int(np.ceil(e)) for e in (-top, left)), *(int(np.floor(e)) for e in (-bottom, right)))


def _open_directly(asset: Asset, part: Window) -> None:
    with open_dataset(asset.path) as file:
        if asset.kind in ("dsm", "dtm"):
            # The pixels may be holes of this file or of its counterpart. The file must open, here and in the pool.
            with open_own_vrt(vrt.probe(asset)) as pooled:
                if pooled.read(1, window=RasterWindow(0, 0, 1, 1))[0, 0] == vrt.UNREAD:
                    raise _readable_again(asset)
            return
        place = from_bounds(*part.bounds, transform=rasterio.Affine(*asset.transform)).round_offsets().round_lengths()
        height, width = asset.shape
        if to_levels(file.read(window=place.intersection(RasterWindow(0, 0, width, height)))).any():
            raise _readable_again(asset)


def _readable_again(asset: Asset) -> FileReadableAgain:
    vrt.reopen(asset)
    return FileReadableAgain(f"{asset.path}: could not be opened earlier and now can")
