"""The protocol of sources that are read by windows, and one raster file as such a source."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioIOError

from pipeline.errors import SourceError
from pipeline.grid import CRS, Window
from pipeline.sources.gdal_open import environment, open_dataset
from pipeline.sources.reading.dataset_cache import gdal_options, read


@dataclass(frozen=True, eq=False)
class Pixels:
    """A window's pixels."""

    bands: NDArray[np.uint8]
    """uint8 (band, y, x)."""
    valid: NDArray[np.bool_]
    """bool (y, x): True = data."""

    @classmethod
    def nothing(cls, bands: int, window: Window) -> "Pixels":
        """Pixels of a window without data: 0 in all bands."""
        return cls(np.zeros((bands, *window.shape), np.uint8), np.zeros(window.shape, np.bool_))

    def part(self, window: Window, *, of: Window) -> "Pixels":
        """A view of the part in `window`, where these are the pixels of the window `of`."""
        place = window.slices_in(of)
        return Pixels(self.bands[:, *place], self.valid[place])


class Source(Protocol):
    """A raster that is read by windows; safe to read from several threads, and picklable."""

    @property
    def window(self) -> Window:
        """Its extent: positions on the lattice, or from the raster's own corner."""

    def read(self, window: Window, *, within: Window | None = None) -> Pixels:
        """The pixels of a window inside `.window`.

        Args:
            within: a larger window for the result, no data outside of `window`: room that the caller fills.

        Raises:
            SourceError: the window exceeds the extent, or a file cannot be read.
        """


class GeoSource(Source, Protocol):
    """A source with a geobox and named bands."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order in which `read` gives them."""

    @property
    def geobox(self) -> GeoBox:
        """Where the pixels of `window` lie."""


@dataclass(frozen=True)
class Raster:
    """One georeferenced uint8 file with the network's bands."""

    path: Path
    """Absolute."""
    bands: tuple[str, ...]
    geobox: GeoBox
    nodata: int | None
    """The file's no-data value; pixels that have it in all bands are no data."""
    version: str
    """Size and modification time when it was opened."""
    allow_vrt: bool = False

    @classmethod
    def open(cls, path: Path, *, bands: tuple[str, ...], allow_vrt: bool = False) -> "Raster":
        """Reads the header.

        Args:
            bands: names of the file's bands, in order.
            allow_vrt: whether it may be a virtual raster, whose author decides what files and servers are read.

        Raises:
            SourceError: it cannot be opened, is not uint8, has no CRS or georeference, or another number of bands.
        """
        path = path.absolute()
        # The georeference of a user's raster may be in a file beside it.
        with environment(georeference=True, network=allow_vrt), open_raster_file(path, allow_vrt=allow_vrt) as file:
            stat = path.stat()
            version = f"{stat.st_size} {stat.st_mtime_ns}"
            if file.count != len(bands):
                raise SourceError(
                    f"{path}: has {file.count} bands; expected {len(bands)}: {', '.join(bands)}, in this order"
                )
            if set(file.dtypes) != {"uint8"}:
                raise SourceError(f"{path}: samples are {file.dtypes[0]}; expected uint8, 0..255 as in BD ORTHO")
            if file.crs is None or file.transform.is_identity:
                raise SourceError(
                    f"{path}: has no CRS or no georeference; expected both: gdal_edit -a_srs {CRS} -a_ullr … "
                    "writes them"
                )
            # Ignored if no uint8 sample can have it.
            nodata = int(file.nodata) if file.nodata in range(256) else None
            return cls(path, bands, GeoBox.from_rio(file), nodata, version, allow_vrt)

    @property
    def window(self) -> Window:
        """(0, 0, height, width): positions count from the file's own corner."""
        return Window(0, 0, *self.geobox.shape)

    def read(self, window: Window, *, within: Window | None = None) -> Pixels:
        """The pixels of a window inside `.window`; not valid where all bands have the file's no-data value.

        Args:
            within: see `Source.read`.

        Raises:
            SourceError: the window exceeds the raster, or the file cannot be read.
        """
        check_inside(window, self.window, str(self.path))
        pixels = Pixels.nothing(len(self.bands), within or window)
        own = pixels.part(window, of=within or window)
        indexes = list(range(1, len(self.bands) + 1))
        try:
            with gdal_options(network=self.allow_vrt):
                read(self.path, window, indexes=indexes, out=own.bands, version=self.version, allow_vrt=self.allow_vrt)
        except RasterioIOError as error:
            raise SourceError(f"{self.path}: cannot be read in {window}: {error.__cause__ or error}") from error
        own.valid[:] = True if self.nodata is None else (own.bands != self.nodata).any(axis=0)
        return pixels


@contextmanager
def open_raster_file(path: Path, *, allow_vrt: bool = False) -> Iterator[Any]:
    """Opens a raster until the block ends; call it inside of `gdal_open.environment`.

    Raises:
        SourceError: it cannot be opened, or cannot be read in the block.
    """
    try:
        with open_dataset(path, allow_vrt=allow_vrt) as file:
            yield file
    except RasterioIOError as error:
        raise SourceError(f"{path}: cannot be read as a raster: {error.__cause__ or error}") from error


def check_inside(window: Window, extent: Window, what: str) -> None:
    """Raises SourceError, naming `what`, unless `window` lies in `extent`."""
    if not extent.contains(window):
        raise SourceError(f"{what}: {window} exceeds the readable {extent}")
