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
from pipeline.grid import CRS, RESOLUTION_M, Window
from pipeline.sources.bit_depth import DEEP, to_levels
from pipeline.sources.delivery.header_problems import crs_problem, depth_problem, no_georeference, placement_problem
from pipeline.sources.delivery.headers import Header, check_codestream, check_complete, header_of
from pipeline.sources.gdal_open import environment, open_dataset
from pipeline.sources.reading.dataset_cache import gdal_options, open_here
from pipeline.sources.reading.virtual_sources import check_sources


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
    """One georeferenced file with the network's bands, and maybe transparency."""

    path: Path
    """Absolute."""
    bands: tuple[str, ...]
    header: Header
    geobox: GeoBox
    version: str
    """Size and modification time when it was opened."""
    allow_vrt: bool = False

    @classmethod
    def open(cls, path: Path, *, bands: tuple[str, ...], allow_vrt: bool = False) -> "Raster":
        """Reads the header.

        Args:
            bands: names of the file's bands, in order. A band of transparency may follow them.
            allow_vrt: whether it may be a virtual raster, whose author decides what files and servers are read.

        Raises:
            SourceError: it cannot be opened, its samples are neither uint8 nor uint16, it has no CRS in metres or no
                georeference, is rotated, has other bands, or its valid pixels cannot be told.
        """
        path = path.absolute()
        # The georeference of a user's raster may be in a file beside it.
        with environment(georeference=True, network=allow_vrt), open_raster_file(path, allow_vrt=allow_vrt) as file:
            stat = path.stat()
            header = header_of(file)
            if wrong := [*_band_problems(header, bands), *_placement_problems(path, header, file)]:
                raise SourceError(f"{path}: {'; '.join(wrong)}")
            if file.driver == "JP2OpenJPEG":
                check_codestream(path)
            check_complete(path, file)
            if file.driver == "VRT":
                check_sources(file, header.validity, path)
            return cls(path, bands, header, GeoBox.from_rio(file), f"{stat.st_size} {stat.st_mtime_ns}", allow_vrt)

    @property
    def window(self) -> Window:
        """(0, 0, height, width): positions count from the file's own corner."""
        return Window(0, 0, *self.geobox.shape)

    @property
    def nodata(self) -> int | None:
        """The nodata value of the bands of imagery; None where they have none or several."""
        values = {self.header.validity.nodata[i] for i in self.imagery if self.header.validity.nodata}
        return values.pop() if len(values) == 1 else None

    @property
    def imagery(self) -> list[int]:
        """Places of the bands that decide which pixels are valid: all but the elevation."""
        return [i for i, band in enumerate(self.bands) if band != "elevation"]

    def read(self, window: Window, *, within: Window | None = None) -> Pixels:
        """The pixels of a window inside `.window`; see `validity` for which are valid.

        Args:
            within: see `Source.read`.

        Raises:
            SourceError: the window exceeds the raster, or the file cannot be read.
        """
        check_inside(window, self.window, str(self.path))
        pixels = Pixels.nothing(len(self.bands), within or window)
        own = pixels.part(window, of=within or window)
        indexes = list(range(1, len(self.bands) + 1))
        how: dict[str, Any] = {"version": self.version, "allow_vrt": self.allow_vrt}
        try:
            with gdal_options(network=self.allow_vrt), open_here(self.path, **how) as file:
                samples = own.bands if self.header.dtype == "uint8" else None
                samples = file.read(indexes, window=window.slices, out=samples)
                if samples is not own.bands:
                    own.bands[:] = to_levels(samples)
                used = [i + 1 for i in self.imagery]
                own.valid[:] = True
                if self.header.validity.stated:
                    levels = samples[self.imagery]
                    own.valid[:] = self.header.validity.valid(file, window, indexes=used, pixels=levels)
        except RasterioIOError as error:
            raise SourceError(f"{self.path}: cannot be read in {window}: {error.__cause__ or error}") from error
        return pixels

    def transparency(self, window: Window) -> NDArray[np.uint8]:
        """The band of transparency of a window inside `.window`, as levels 0..255: uint8 (y, x).

        Raises:
            SourceError: it cannot be read.
        """
        how: dict[str, Any] = {"version": self.version, "allow_vrt": self.allow_vrt}
        try:
            with gdal_options(network=self.allow_vrt), open_here(self.path, **how) as file:
                return to_levels(file.read(self.header.validity.alpha, window=window.slices))
        except RasterioIOError as error:
            raise SourceError(f"{self.path}: cannot be read in {window}: {error.__cause__ or error}") from error


def _band_problems(header: Header, bands: tuple[str, ...]) -> list[str]:
    expected = f"expected {len(bands)}: {', '.join(bands)}, in this order"
    alpha = header.validity.alpha
    if alpha is not None and alpha <= len(bands):
        colours = ",".join([*header.colours[: alpha - 1], "undefined", *header.colours[alpha:]])
        wrong = f"its band {alpha} is declared as transparency, not {bands[alpha - 1]}; {expected}"
        return [f"{wrong}. If it is that band, declare it so: `rio edit-info --colorinterp {colours} FILE`"]
    if header.colour_bands != len(bands):
        return [f"has {header.colour_bands} band{'s' if header.colour_bands > 1 else ''}; {expected}"]
    for i, (band, colour) in enumerate(zip(bands, header.colours, strict=False)):
        # Infrared composites are often declared as the colours that they are shown in.
        if {band, colour} <= {"red", "green", "blue", "nir"} and band != colour:
            return [f"its band {i + 1} is {colour} by its colour interpretation; {expected}"]
    if header.dtype != "uint8" and not (header.dtype == DEEP and "elevation" not in bands):
        return [depth_problem(header.dtype)]
    return []


def _placement_problems(path: Path, header: Header, file: Any) -> list[str]:
    """What keeps a raster from lying north-up in a CRS of metres."""
    if missing := no_georeference(path, header):
        return [missing]
    if header.crs == "absent" or header.local:
        return [crs_problem(header)]
    if file.crs.is_geographic or abs(file.crs.linear_units_factor[1] - 1) > 1e-9:
        units = "degrees" if file.crs.is_geographic else file.crs.linear_units
        remedy = f"`rio warp IN OUT --dst-crs {CRS} --res {RESOLUTION_M:g}` resamples it"
        return [f"CRS is {header.crs_text}, in {units}; expected metres, as in {CRS}: {remedy}"]
    placed = placement_problem(header.transform)
    return [placed] if placed else []


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
