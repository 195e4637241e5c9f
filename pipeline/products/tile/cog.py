"""Cloud Optimized GeoTIFFs: one layer of one tile written, and any raster of one uint8 band read by windows."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from pipeline import legend
from pipeline.durable import check_room, replacing
from pipeline.errors import ProductError
from pipeline.fingerprint import file_sha256
from pipeline.grid import Window
from pipeline.legend import Layer

BLOCK = 512
"""Pixels of a COG's internal block, a side."""

_CREATION = {
    "COMPRESS": "ZSTD",
    # Level 9, GDAL's default, takes twice as long as level 1 and makes the file a sixth smaller.
    "LEVEL": "3",
    "BLOCKSIZE": str(BLOCK),
    "STATISTICS": "NO",
    "BIGTIFF": "IF_SAFER",
    "GEOTIFF_VERSION": "1.1",
}
_OVERVIEWS: dict[Layer, str] = {"landcover": "MODE", "confidence": "AVERAGE"}


@dataclass(frozen=True)
class FileFacts:
    """A file with its size and checksum."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    """In hexadecimal."""


@dataclass(frozen=True)
class Cog:
    """An open raster of one uint8 band."""

    path: Path
    dataset: Any
    """The open rasterio dataset, for header, tags and overviews."""

    def read(
        self,
        window: Window | None = None,
        *,
        shape: tuple[int, int] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> NDArray[np.uint8]:
        """The pixels of a window: uint8 (y, x).

        Args:
            window: from the raster's own corner, inside it; None for all of it.
            shape: (rows, columns) to resample to, from the overview that is fine enough; None for as they are.
            resampling: of that.

        Raises:
            ProductError: it cannot be read.
        """
        place = None if window is None else RasterWindow(window.col, window.row, window.width, window.height)
        try:
            pixels: NDArray[np.uint8] = self.dataset.read(1, window=place, out_shape=shape, resampling=resampling)
        except (RasterioError, CPLE_BaseError) as error:
            cause = str(error.__cause__ or error)
        else:
            return pixels
        # Outside of the handler, so that no GDAL error is in the chain: those do not survive being pickled, and the
        # driver would see neither their class nor ours.
        raise _unreadable(self.path, f"{cause}{f', in {window}' if window else ''}")


@contextmanager
def open_cog(path: Path) -> Iterator[Cog]:
    """Opens a raster to read several windows of it.

    Raises:
        ProductError: it cannot be opened.
    """
    try:
        dataset = rasterio.open(path)
    except (RasterioError, CPLE_BaseError) as error:
        dataset, cause = None, str(error)
    if dataset is None:
        raise _unreadable(path, cause)
    with dataset:
        yield Cog(path, dataset)


def read_cog(path: Path, window: Window | None = None) -> NDArray[np.uint8]:
    """The pixels of one window of a raster, or of all of it: uint8 (y, x).

    Raises:
        ProductError: it cannot be opened or read.

    Example:
        >>> read_cog(Path("products/D064_2021/D064_2021-0595-6890-landcover.tif"), Window(0, 0, 512, 512))
    """
    with open_cog(path) as cog:
        return cog.read(window)


def _unreadable(path: Path, cause: str) -> ProductError:
    return ProductError(
        f"{path}: cannot be read: {cause}; if a tile was sealed with it, remove its item (.json) and run the tile again"
    )


def write_cog(
    path: Path,
    pixels: NDArray[np.uint8],
    *,
    layer: Layer,
    geobox: GeoBox,
    live: tuple[int, ...],
    tags: Mapping[str, str],
) -> FileFacts:
    """Writes one layer as a COG: ZSTD, 512 px blocks, overviews by mode (classes) or average (confidence).

    GDAL reads the array in place, so it is not copied. The file contains no date, and its bytes do not depend on the
    number of threads. GDAL would write the names of a GeoTIFF's classes to a second file, so they are band tags
    `class_0`, `class_1`, … instead.

    Args:
        path: file to write; it appears whole or not at all.
        pixels: uint8 (y, x); 0 is no data.
        layer: `landcover` (FLAIR values, with a palette) or `confidence` (0..255, grey).
        geobox: where the pixels lie.
        live: FLAIR values whose names are written.
        tags: dataset tags, such as licence and citation.

    Returns:
        Size and checksum of the file.

    Raises:
        ProductError: the array is not uint8 (y, x), or the file cannot be written.
        OutOfSpaceError: there is no room for it.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or not pixels.size:
        raise ProductError(f"{path}: expected uint8 (y, x), got {pixels.dtype} of shape {pixels.shape}")
    with replacing(path) as temporary:
        with _in_memory(np.ascontiguousarray(pixels), geobox) as source:
            _describe(source, layer=layer, live=live, tags=tags)
            problem = ""
            try:
                rasterio.shutil.copy(
                    source, temporary, driver="COG", OVERVIEW_RESAMPLING=_OVERVIEWS[layer], **_CREATION
                )
            except (RasterioError, CPLE_BaseError) as error:
                problem = str(error)
            # Outside of the handler, as in `Cog.read`.
            if problem:
                check_room(path, pixels.nbytes)
                raise ProductError(f"{path}: GDAL cannot write the COG: {problem}")
        _check_written(temporary, pixels, path)
        return FileFacts(path, temporary.stat().st_size, file_sha256(temporary))


def _check_written(temporary: Path, pixels: NDArray[np.uint8], path: Path) -> None:
    """Raises ProductError unless the file contains the pixels.

    GDAL reports no error when the disk fills up while it closes the file, whose last kilobytes are then missing.
    Reading the file takes a twentieth of the time of writing it.
    """
    strips = Window(0, 0, *pixels.shape).strips(2 * BLOCK)
    try:
        with open_cog(temporary) as cog:
            unlike = next((s for s in strips if not np.array_equal(cog.read(s), pixels[s.slices])), None)
    except ProductError as error:
        check_room(path, pixels.nbytes)
        raise ProductError(
            f"{path}: was written and cannot be read back; check the disk's free space: {error}"
        ) from error
    if unlike:
        raise ProductError(f"{path}: rows {unlike.row}..{unlike.bottom} differ from what was written; check the disk")


@contextmanager
def _in_memory(pixels: NDArray[np.uint8], geobox: GeoBox) -> Iterator[Any]:
    """A GDAL dataset over the array's own memory; its metadata can be changed."""
    height, width = pixels.shape
    coefficients = "/".join(repr(v) for v in geobox.affine.to_gdal())
    name = (
        f"MEM:::DATAPOINTER={pixels.__array_interface__['data'][0]},PIXELS={width},LINES={height},BANDS=1,"
        f"DATATYPE=Byte,GEOTRANSFORM={coefficients}"
    )
    # GDAL 3.10 and later refuse this by default, because a foreign name could point anywhere in memory.
    with rasterio.Env(GDAL_MEM_ENABLE_OPEN=True), rasterio.open(name, "r+") as dataset:
        dataset.crs = str(geobox.crs)
        yield dataset


def _describe(dataset: Any, *, layer: Layer, live: tuple[int, ...], tags: Mapping[str, str]) -> None:
    dataset.nodata = legend.NODATA
    dataset.set_band_description(1, layer)
    dataset.update_tags(**dict(sorted(tags.items())))
    if layer == "landcover":
        dataset.write_colormap(1, legend.colormap())
        names = {f"class_{legend.NODATA}": "no data"} | {f"class_{c.value}": c.name for c in legend.classes(live)}
        dataset.update_tags(1, **names)
    else:
        dataset.colorinterp = [ColorInterp.gray]
        dataset.update_tags(1, scale="1/255 of the probability of the class")
