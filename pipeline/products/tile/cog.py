"""Cloud Optimized GeoTIFFs: one layer of one tile written, and any raster of uint8 read by windows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
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
from pipeline.errors import ProductError, SourceError
from pipeline.fingerprint import file_sha256
from pipeline.grid import Window
from pipeline.legend import AnyLayer
from pipeline.sources.gdal_open import environment, open_dataset
from pipeline.untrusted.escape import for_xml

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
_CACHE_BYTES = 128 * 2**20
"""GDAL's cache while windows are written. Its default is a share of the machine's memory."""
_OVERVIEWS: dict[AnyLayer, str] = {"landcover": "MODE"}
"""Of other layers by `AVERAGE`."""


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
    """An open raster of uint8 bands: of one, but for probabilities."""

    path: Path
    dataset: Any
    """The open rasterio dataset, for header, tags and overviews."""

    def read(
        self,
        window: Window | None = None,
        *,
        band: int = 1,
        shape: tuple[int, int] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> NDArray[np.uint8]:
        """The pixels of a window: uint8 (y, x).

        Args:
            window: from the raster's own corner, inside it; None for all of it.
            band: number of the band, from 1 on.
            shape: (rows, columns) to resample to, from the overview that is fine enough; None for as they are.
            resampling: of that.

        Raises:
            ProductError: it cannot be read.
        """
        place = None if window is None else RasterWindow(window.col, window.row, window.width, window.height)
        try:
            pixels: NDArray[np.uint8] = self.dataset.read(band, window=place, out_shape=shape, resampling=resampling)
        except (RasterioError, CPLE_BaseError) as error:
            cause = str(error.__cause__ or error)
        else:
            return pixels
        # Outside of the handler, so that no GDAL error is in the chain: those do not survive being pickled, and the
        # driver would see neither their class nor ours.
        raise _unreadable(self.path, f"{cause}{f', in {window}' if window else ''}")

    def check_place(self, window: Window, crs: str) -> None:
        """Raises ProductError unless the file has one band of bytes, in this window of the lattice of `crs`."""
        file = self.dataset
        place = (file.crs and file.crs.to_string(), tuple(file.transform)[:6], file.shape, file.dtypes)
        expected = (crs, window.transform, window.shape, ("uint8",))
        if place != expected:
            raise _unreadable(self.path, f"its header has {place}, expected {expected}")


@contextmanager
def open_cog(path: Path) -> Iterator[Cog]:
    """Opens a raster to read several windows of it.

    Raises:
        ProductError: it cannot be opened.
    """
    try:
        with environment():
            dataset = open_dataset(path, driver="GTiff")
    except (RasterioError, CPLE_BaseError, SourceError) as error:
        dataset, cause = None, str(error)
    if dataset is None:
        raise _unreadable(path, cause)
    with environment(), dataset:
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
    layer: AnyLayer,
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
        pixels: uint8 (y, x), or (band, y, x) of probabilities; 0 is no data.
        layer: `landcover` (FLAIR values, with a palette), `confidence` (0..255, grey) or an optional layer.
        geobox: where the pixels lie.
        live: FLAIR values whose names are written.
        tags: dataset tags, such as licence and citation.

    Returns:
        Size and checksum of the file.

    Raises:
        ProductError: the array is not uint8 of that shape, or the file cannot be written.
        OutOfSpaceError: there is no room for it.
    """
    count = bands_of(layer, live)
    if pixels.dtype != np.uint8 or pixels.ndim != (2 if layer != "probabilities" else 3) or not pixels.size:
        raise ProductError(f"{path}: expected uint8 (y, x), got {pixels.dtype} of shape {pixels.shape}")
    bands = pixels.reshape(-1, *pixels.shape[-2:])
    if len(bands) != count:
        raise ProductError(f"{path}: expected {count} bands, one for each live class, got {len(bands)}")
    with replacing(path) as temporary:
        with _in_memory(np.ascontiguousarray(bands), geobox) as source:
            _describe(source, layer=layer, live=live, tags=tags)
            _copy(source, temporary, layer=layer, path=path)
        _check_written(temporary, path, size=bands.size, written=lambda band, window: bands[band - 1, *window.slices])
        return FileFacts(path, temporary.stat().st_size, file_sha256(temporary))


class CogDraft:
    """The pixels of a COG while it is written, in any order, from several threads.

    `draft[rows, columns] = pixels`, or `draft[bands, rows, columns] = pixels` with bands from 0 on.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset, self._lock = dataset, Lock()

    def __setitem__(self, place: tuple[slice, ...], pixels: NDArray[np.uint8]) -> None:
        *bands, rows, columns = place
        given = [i + 1 for part in bands for i in range(part.start, part.stop)] or 1
        with self._lock:
            self._dataset.write(pixels, given, window=(rows, columns))


@contextmanager
def cog_by_windows(
    path: Path, *, layer: AnyLayer, geobox: GeoBox, live: tuple[int, ...], tags: Mapping[str, str]
) -> Iterator[CogDraft]:
    """Writes one layer as a COG from windows, in memory that does not depend on its size; see `write_cog`.

    The pixels go to an uncompressed file beside `path`, which needs a byte a pixel until the block ends. The COG
    appears then, and has the same bytes as one that `write_cog` writes; it does not appear if the block fails.

    Raises:
        ProductError: the file cannot be written.
        OutOfSpaceError: there is no room for it.
    """
    (height, width), count = geobox.shape, bands_of(layer, live)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": count, "crs": str(geobox.crs), "transform": geobox.affine}
    blocks = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "bigtiff": "IF_SAFER"}
    with replacing(path) as temporary, rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        plain = temporary.with_name(f"{temporary.name.removesuffix('.tmp')}-plain.tmp")
        try:
            with (
                _writing(path, count * height * width),
                rasterio.open(plain, "w", height=height, width=width, **profile, **blocks) as file,
            ):
                yield CogDraft(file)
            with open_cog(plain) as source, _over_file(plain, geobox, count) as described:
                # Described only here: a GeoTIFF does not keep tags without a value.
                _describe(described, layer=layer, live=live, tags=tags)
                _copy(described, temporary, layer=layer, path=path)
                _check_written(
                    temporary, path, size=count * height * width, written=lambda b, window: source.read(window, band=b)
                )
        finally:
            plain.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path, size: int) -> Iterator[None]:
    problem = ""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        problem = str(error)
    # Outside of the handler, as in `Cog.read`.
    if problem:
        check_room(path, size)
        raise ProductError(f"{path}: GDAL cannot write the COG: {problem}")


def bands_of(layer: AnyLayer, live: Sequence[int]) -> int:
    """Bands of a layer: one for each live class of probabilities, else one."""
    return len(live) if layer == "probabilities" else 1


def _copy(source: Any, temporary: Path, *, layer: AnyLayer, path: Path) -> None:
    with _writing(path, source.count * source.width * source.height):
        rasterio.shutil.copy(
            source, temporary, driver="COG", OVERVIEW_RESAMPLING=_OVERVIEWS.get(layer, "AVERAGE"), **_CREATION
        )


def _check_written(
    temporary: Path, path: Path, *, size: int, written: Callable[[int, Window], NDArray[np.uint8]]
) -> None:
    """Raises ProductError unless the file contains the pixels.

    GDAL reports no error when the disk fills up while it closes the file, whose last kilobytes are then missing.
    Reading the file takes a twentieth of the time of writing it.
    """
    try:
        with open_cog(temporary) as cog:
            strips = list(Window(0, 0, *cog.dataset.shape).strips(2 * BLOCK))
            parts = ((band, strip) for strip in strips for band in cog.dataset.indexes)
            unlike = next((s for b, s in parts if not np.array_equal(cog.read(s, band=b), written(b, s))), None)
    except ProductError as error:
        check_room(path, size)
        raise ProductError(
            f"{path}: was written and cannot be read back; check the disk's free space: {error}"
        ) from error
    if unlike:
        raise ProductError(f"{path}: rows {unlike.row}..{unlike.bottom} differ from what was written; check the disk")


@contextmanager
def _in_memory(pixels: NDArray[np.uint8], geobox: GeoBox) -> Iterator[Any]:
    """A GDAL dataset over the array's own memory; its metadata can be changed."""
    bands, height, width = pixels.shape
    coefficients = "/".join(repr(v) for v in geobox.affine.to_gdal())
    name = (
        f"MEM:::DATAPOINTER={pixels.__array_interface__['data'][0]},PIXELS={width},LINES={height},BANDS={bands},"
        f"DATATYPE=Byte,GEOTRANSFORM={coefficients}"
    )
    # GDAL 3.10 and later refuse this by default, because a foreign name could point anywhere in memory.
    with rasterio.Env(GDAL_MEM_ENABLE_OPEN=True), rasterio.open(name, "r+") as dataset:
        dataset.crs = str(geobox.crs)
        yield dataset


@contextmanager
def _over_file(plain: Path, geobox: GeoBox, count: int) -> Iterator[Any]:
    """A GDAL dataset with the pixels of a file; its metadata can be changed and is not written to the file."""
    height, width = geobox.shape
    file = f"<SourceFilename>{for_xml(plain.absolute())}</SourceFilename>"
    sources = [f"<SimpleSource>{file}<SourceBand>{i}</SourceBand></SimpleSource>" for i in range(1, count + 1)]
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{i}">{s}</VRTRasterBand>' for i, s in enumerate(sources, 1))
    # Placed from the beginning: rasterio warns of a raster without a place.
    place = f"<GeoTransform>{', '.join(map(repr, geobox.affine.to_gdal()))}</GeoTransform>"
    xml = f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{place}{bands}</VRTDataset>'
    with rasterio.open(xml, "r+", driver="VRT") as dataset:
        dataset.transform, dataset.crs = geobox.affine, str(geobox.crs)
        yield dataset


def _describe(dataset: Any, *, layer: AnyLayer, live: tuple[int, ...], tags: Mapping[str, str]) -> None:
    dataset.nodata = legend.NODATA
    names = [c.slug for c in legend.classes(live)] if layer == "probabilities" else [layer]
    for band, name in enumerate(names, 1):
        dataset.set_band_description(band, name)
    dataset.update_tags(**dict(sorted(tags.items())))
    if layer == "landcover":
        dataset.write_colormap(1, legend.colormap())
        names_of = {f"class_{legend.NODATA}": "no data"} | {f"class_{c.value}": c.name for c in legend.classes(live)}
        dataset.update_tags(1, **names_of)
        return
    dataset.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (len(names) - 1)
    if layer == "confidence":
        dataset.update_tags(1, scale="1/255 of the probability of the class")
    else:
        # GDAL's scale and offset: a share is (byte - 1) / 254, because byte 0 is nodata.
        dataset.scales = [1 / legend.SHARE_STEPS] * len(names)
        dataset.offsets = [-1 / legend.SHARE_STEPS] * len(names)
