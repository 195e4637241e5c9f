"""The lazy mosaic of a domain, from which the network reads any window as uint8 bands.

A `Mosaic` opens nothing until it is read and consists of text and numbers, so it can be sent to workers. GDAL mosaics
and resamples (see `vrt`); every thread has its own open datasets (see `dataset_cache`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioIOError
from rasterio.features import geometry_mask

from pipeline.errors import CatalogError, SourceError, TransientReadError
from pipeline.geobox import lattice_geobox
from pipeline.grid import Window
from pipeline.sources.bit_depth import is_fill
from pipeline.sources.domain_inputs import (
    BANDS,
    CELL,
    IMAGERY,
    RVB,
    Asset,
    DomainInputs,
    InputTile,
    whole_cells,
)
from pipeline.sources.gdal_open import open_dataset
from pipeline.sources.reading import vrt
from pipeline.sources.reading.dataset_cache import gdal_options, read
from pipeline.sources.reading.decoded_tiles import ReadPlan, has_tiles, read_tiles
from pipeline.sources.reading.elevation import read_heights
from pipeline.sources.reading.raster import Pixels, check_inside
from pipeline.sources.reading.retry import is_transient, with_retries
from pipeline.sources.reading.silent_failures import FileReadableAgain, check_header, check_not_silent
from pipeline.sources.reading.valid_assets import valid_in_asset
from pipeline.sources.short_lists import first_names

_HEIGHT_STEP_M = 0.2
"""Metres of one unit of a ready height file."""


@dataclass(frozen=True)
class Mosaic:
    """All of a domain's imagery and elevation as one lazy raster on the lattice."""

    inputs: DomainInputs
    bands: tuple[str, ...]
    height_step_m: float
    """Metres of one unit of the elevation band."""
    readable: Window
    """The part that can be read: the domain, or the window of `around`."""
    plan: ReadPlan | None = None
    """The reads of imagery that the process will probably make, so that it decodes no tile of a file twice."""

    @classmethod
    def of(cls, inputs: DomainInputs, *, bands: tuple[str, ...], height_step_m: float = 0.2) -> "Mosaic":
        """The mosaic of a domain; opens no file.

        Args:
            inputs: the domain, from `read_domain`.
            bands: some of `BANDS`, in the network's order.
            height_step_m: metres of one unit of the elevation band.

        Raises:
            CatalogError: unknown bands, no band of imagery, or a tile without a file for one of them.

        Example:
            >>> mosaic = Mosaic.of(inputs, bands=("red", "green", "blue"))
            >>> pixels = mosaic.read(inputs.tiles[0].tile.window)
        """
        if unknown := set(bands) - set(BANDS):
            raise CatalogError(f"unknown bands {sorted(unknown)}; expected some of {', '.join(BANDS)}")
        if not set(bands) & set(IMAGERY):
            raise CatalogError(f"bands {bands} contain no imagery, which decides where there is data")
        needed = {"rvb" if b in RVB else "irc" for b in bands if b in IMAGERY}
        for kind in sorted(needed):
            if missing := [t.tile.name for t in inputs.tiles if not t.files(kind)]:
                raise CatalogError(
                    f"domain {inputs.domain}: no {kind} file behind tiles {first_names(missing, 12)}; bands "
                    f"{', '.join(bands)} need it: index the domain again with these bands"
                )
        return cls(inputs, bands, height_step_m, inputs.window)

    @cached_property
    def _vrts(self) -> dict[str, str]:
        """VRT of the files of each kind but elevation models; of infrared files it has the band 1, the infrared."""
        kinds = {"rvb": 3, "irc": 1, "height": 1}
        return {k: vrt.imagery([a for a in self.inputs.assets if a.kind == k], bands=n) for k, n in kinds.items()}

    @property
    def window(self) -> Window:
        """The domain's bounding window on the lattice."""
        return self.inputs.window

    @property
    def geobox(self) -> GeoBox:
        """Where the window lies, in EPSG:2154; overseas in a UTM zone."""
        return lattice_geobox(self.window, self.inputs.crs)

    def around(self, window: Window) -> "Mosaic":
        """The same mosaic with only the files behind `window`, which is all that it can read: it pickles small.

        Pixels and extent are those of the whole mosaic.
        """
        part = window.intersect(self.readable)
        return replace(self, inputs=self.inputs.around(part), readable=part)

    def planned(self, windows: Iterable[Window], memory_bytes: int) -> "Mosaic":
        """The same mosaic with a plan of the windows that will be read, in any order; see `ReadPlan`.

        Pixels are the same whatever is planned.
        """
        return replace(self, plan=ReadPlan(tuple(windows), memory_bytes))

    def read(self, window: Window, *, within: Window | None = None) -> Pixels:
        """Reads the pixels of a lattice window, and retries reads that fail for a temporary reason.

        Pixels outside all tiles are 0 and not valid; the height is 0 where the elevation is unknown.

        Args:
            window: position on the lattice.
            within: see `Source.read`.

        Raises:
            SourceError: the window leaves the readable part, or a file behind it cannot be read.
        """
        check_inside(window, self.readable, f"domain {self.inputs.domain}")
        return with_retries(lambda: self._read(window, within or window))

    def _read(self, window: Window, within: Window) -> Pixels:
        whole = Pixels.nothing(len(self.bands), within)
        pixels = whole.part(window, of=within)
        tiles = self.inputs.meeting(window)
        if not tiles:
            return whole
        files = self.inputs.behind(window)
        # Of elevation models, of which a tile has fifty, only those that are read.
        self._check_headers(a for a in files if a.kind not in ("dsm", "dtm"))
        with gdal_options(a.path for a in files):
            try:
                self._read_imagery(pixels.bands, window)
                self._check_imagery(pixels.bands, window)
                if "elevation" in self.bands:
                    self._read_elevation(pixels.bands[self.bands.index("elevation")], window, tiles)
                for tile in tiles:
                    self._mark_valid(pixels, window, tile)
            except FileReadableAgain:
                return replace(self).read(window, within=within)  # with new virtual rasters
            except RasterioIOError as error:
                raise self._explain(window, error) from error
        return whole

    def _check_headers(self, files: Iterable[Asset]) -> None:
        for asset in files:
            try:
                check_header(asset)
            except SourceError as error:
                names = [t.tile.name for t in self.inputs.tiles if asset in t.assets]
                raise type(error)(f"domain {self.inputs.domain}, tile {names[0]}: {error}") from error

    def _read_imagery(self, out: NDArray[np.uint8], window: Window) -> None:
        if not any(a.resampled and a.kind in ("rvb", "irc") for a in self.inputs.assets):
            self._read_pixels(out, window)
            return
        # Resampled in whole cells, like elevation: the same request to GDAL whatever window is read.
        for cell in whole_cells(window).split(CELL):
            part = cell.intersect(window)
            pixels = np.zeros((len(self.bands), *cell.shape), np.uint8)
            self._read_pixels(pixels, cell)
            out[:, *part.slices_in(window)] = pixels[:, *part.slices_in(cell)]
        # Resampling reaches half a source pixel beyond a tile's edge.
        outside = np.ones(window.shape, np.bool_)
        for tile in self.inputs.meeting(window):
            outside[tile.tile.window.intersect(window).slices_in(window)] = False
        out[:, outside] = 0

    def _check_imagery(self, bands: NDArray[np.uint8], window: Window) -> None:
        for kind, names in (("rvb", RVB), ("irc", ("nir",))):
            own = [i for i, name in enumerate(self.bands) if name in names]
            if own and not all(bands[i].all() for i in own):
                files = [a for a in self.inputs.behind(window) if a.kind == kind]
                check_not_silent(files, bands[own], window)

    def _read_pixels(self, out: NDArray[np.uint8], window: Window) -> None:
        for kind, names in (("rvb", RVB), ("irc", ("nir",))):
            if wanted := [i for i, name in enumerate(self.bands) if name in names]:
                indexes = [names.index(self.bands[i]) + 1 for i in wanted]
                # Directly into the result if its bands are contiguous, to avoid a copy of the largest array.
                if wanted == list(range(wanted[0], wanted[0] + len(wanted))):
                    self._read_kind(kind, out[wanted[0] : wanted[-1] + 1], window, indexes=indexes)
                else:
                    bands = np.zeros((len(wanted), *window.shape), np.uint8)
                    self._read_kind(kind, bands, window, indexes=indexes)
                    out[wanted] = bands

    def _read_kind(self, kind: str, out: NDArray[np.uint8], window: Window, *, indexes: list[int]) -> None:
        files = [a for a in self.inputs.assets if a.kind == kind and a.meets(window)]
        if self.plan and all(has_tiles(a) for a in files):
            read_tiles(files, out, window, indexes=indexes, plan=self.plan)
        else:
            read(self._vrts[kind], window.within(vrt.FRAME), indexes=indexes, out=out)

    def _read_elevation(self, out: NDArray[np.uint8], window: Window, tiles: tuple[InputTile, ...]) -> None:
        """A tile's ready height takes precedence over its surface and terrain models; nothing is read outside tiles."""
        for tile in tiles:
            part = tile.tile.window.intersect(window)
            if not tile.files("height"):
                # A virtual raster visits each of its files in every read, and a domain has thousands.
                near = [a for a in tile.assets if a.meets(whole_cells(part))]
                self._check_headers(near)
                known = read_heights(near, out[part.slices_in(window)], part, step_m=self.height_step_m)
                if not known.all():
                    check_not_silent((a for a in near if a.kind in ("dsm", "dtm")), known, part)
                continue
            units = read(self._vrts["height"], part.within(vrt.FRAME), indexes=[1])[0]
            check_not_silent(tile.files("height"), units, part)
            if self.height_step_m != _HEIGHT_STEP_M:
                units = np.rint(np.clip(units * (_HEIGHT_STEP_M / self.height_step_m), 0, 255))
            out[part.slices_in(window)] = units

    def _mark_valid(self, pixels: Pixels, window: Window, tile: InputTile) -> None:
        """Marks a tile's pixels as data, except fill and what the files state as nodata.

        Fill is what has its value in every imagery band, inside of its area.
        """
        part = tile.tile.window.intersect(window)
        inside = part.slices_in(window)
        pixels.valid[inside] = True
        for asset in (a for a in tile.assets if a.validity is not None):
            names = {"rvb": RVB, "irc": ("nir",)}.get(asset.kind, ())
            if own := [i for i, name in enumerate(self.bands) if name in names]:
                indexes = [names.index(self.bands[i]) + 1 for i in own]
                bands = pixels.bands[own][:, *inside]
                pixels.valid[inside] &= valid_in_asset(asset, part, indexes=indexes, pixels=bands)
        imagery = [i for i, name in enumerate(self.bands) if name in IMAGERY]
        for fill in tile.fill:
            place = {"out_shape": part.shape, "transform": Affine(*part.transform)}
            region = geometry_mask([fill.geometry], **place, invert=True)
            if not region.any():
                continue
            for i in imagery:
                region &= is_fill(pixels.bands[i][inside], fill.value)
            pixels.valid[inside] &= ~region

    def _explain(self, window: Window, error: RasterioIOError) -> SourceError:
        """An error that names the unreadable file. GDAL names only the virtual raster, so each file is read alone."""
        tiles = ", ".join(t.tile.name for t in self.inputs.meeting(window))
        where = f"domain {self.inputs.domain}, tiles {tiles}"
        for asset in self.inputs.behind(window):
            if asset.kind in ("dsm", "dtm"):
                single, place = vrt.elevation([asset]), whole_cells(window)
            else:
                single, place = vrt.imagery([asset], bands=1), window
            try:
                # If GDAL's pool remembers a file as missing, reading the virtual raster fails without a message.
                with open_dataset(asset.path):
                    pass
                read(single, place.within(vrt.FRAME), indexes=[1])
            except RasterioIOError as own:
                cause = own.__cause__ or own
                if purged := self.inputs.purged(asset):
                    return SourceError(f"{where}: {purged}")
                kind = TransientReadError if is_transient(own, asset.path) else SourceError
                return kind(
                    f"{where}: {asset.href} cannot be read: {cause}; restore the file, then run again (index the "
                    "domain again if you replace it by another one)"
                )
        return TransientReadError(
            f"{where}: cannot be read: {error.__cause__ or error}, although each file can be read alone; run again"
        )
