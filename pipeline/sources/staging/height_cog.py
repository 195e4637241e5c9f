"""One tile's height as a file: uint8 in units of 0.2 m, a COG that carries the mask of its holes."""

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.windows import Window as RasterWindow

from pipeline.durable import replacing
from pipeline.errors import SourceError, StorageError
from pipeline.grid import CRS, PIXELS_PER_M, Tile, Window
from pipeline.sources.domain_inputs import Asset, whole_cells
from pipeline.sources.reading.dataset_cache import gdal_options
from pipeline.sources.reading.elevation import Elevation
from pipeline.sources.staging import hole_filling as holes

Treatment = Literal["interpolate", "leave"]
"""What happens to holes: interpolated up to `holes.REACH_M`, or left 0, the ground's height."""

STEP_M = 0.2
"""Metres of one unit: FLAIR's fifth band (the FLAIR-INC model card)."""

PART = 5000
"""Pixels a side that are computed at once: 1 km, as the elevation files; whole elevation cells."""

_READERS = min(4, os.cpu_count() or 1)
_CACHE_BYTES = 128 * 2**20
"""GDAL's cache: its default is a share of the machine's memory, whatever that is."""
_STRIP_ROWS = 250
_CREATION = {
    "COMPRESS": "ZSTD",
    "LEVEL": "3",
    "BLOCKSIZE": "512",
    "STATISTICS": "NO",
    "BIGTIFF": "IF_SAFER",
    "GEOTIFF_VERSION": "1.1",
    "OVERVIEW_RESAMPLING": "AVERAGE",
}
_GDAL_ERRORS = (RasterioError, CPLE_BaseError)


@dataclass(frozen=True)
class Holes:
    """Where a height file knows no height."""

    share: float
    """0..1 of the tile where surface or terrain model has no data."""
    filled: float
    """0..1 of the tile: the part of `share` that was interpolated."""
    treatment: Treatment

    @property
    def note(self) -> str | None:
        """A sentence for the item; None where there is no hole."""
        if self.share == 0:
            return None
        what = f"height: {self.share:.2%} of the tile are holes of the surface or terrain model"
        if self.treatment == "leave":
            return f"{what}, left at 0, the ground's height"
        return f"{what}; {self.filled:.2%} interpolated up to {holes.REACH_M:g} m, the rest left at 0"


@dataclass(frozen=True)
class Record:
    """What a height file written by `stage` says about itself."""

    holes: Holes
    inputs: Mapping[str, str]
    """`kind/name` → signature of the elevation files that it was made from."""


def read_record(path: Path) -> Record | None:
    """What `write_height` wrote into the file's tags; None where another program made it.

    Raises:
        rasterio.errors.RasterioIOError: it cannot be opened.
    """
    with rasterio.open(path) as file:
        tags = file.tags()
    try:
        treatment = tags["height_holes"]
        if treatment not in get_args(Treatment):
            return None
        found = Holes(float(tags["height_holes_share"]), float(tags["height_filled_share"]), treatment)
        return Record(found, dict(json.loads(tags["height_inputs"])))
    except (KeyError, ValueError, TypeError):
        return None


def holes_of(path: Path) -> Holes | None:
    """The holes of a height file that `stage` wrote; None for any other height file.

    Raises:
        rasterio.errors.RasterioIOError: it cannot be opened.
    """
    record = read_record(path)
    return None if record is None else record.holes


def inputs_of(assets: Sequence[Asset]) -> dict[str, str]:
    """`kind/name` → signature."""
    return {f"{a.kind}/{a.path.name}": a.signature for a in assets}


@dataclass(frozen=True)
class _Job:
    """What a height is made from, and how."""

    tile: Tile
    assets: tuple[Asset, ...]
    treatment: Treatment
    work: Path
    part: int
    crs: str


def write_height(
    path: Path,
    tile: Tile,
    assets: Sequence[Asset],
    *,
    treatment: Treatment,
    work: Path,
    part: int = PART,
    crs: str = CRS,
) -> Holes:
    """Writes DSM − DTM of a tile at 0.20 m, exactly as the mosaic reads it from the same files.

    The files are laid side by side at their own resolution and resampled from there (see `vrt`). The file's internal
    mask is 0 in holes, interpolated or not, and 255 elsewhere. Computed in parts, a row of them in memory at a time:
    about 1.1 GB for 25 000² px. It appears when it has been read back and is on the disk.

    Args:
        path: the file to be.
        tile: its pixels are the file's.
        assets: surface and terrain files within reach of the tile.
        treatment: of holes.
        work: folder for what is made on the way.
        part: pixels a side that are computed at once, a multiple of `inputs.CELL`; it changes no byte of pixels.
        crs: `EPSG:…` of the lattice.

    Raises:
        SourceError: an elevation file cannot be read.
        StorageError: the file cannot be written.
    """
    job = _Job(tile, tuple(assets), treatment, work, part, crs)
    plain = work / "height"
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_TIFF_INTERNAL_MASK="YES"), replacing(path) as temporary:
        try:
            found, sums = _write_plain(plain, job)
            rasterio.shutil.copy(plain, temporary, driver="COG", **_CREATION)
            read_back = _sums(temporary, tile, part)
        except _GDAL_ERRORS as error:
            raise _unwritten(path, str(error)) from error
        finally:
            plain.unlink(missing_ok=True)
        if read_back != sums:
            raise _unwritten(path, "it reads back unlike what was written")
    return found


def _unwritten(path: Path, what: str) -> StorageError:
    return StorageError(f"{path}: cannot be written: {what}; is the disk full? Run the same command again")


def _write_plain(path: Path, job: _Job) -> tuple[Holes, list[int]]:
    """The height as a striped GeoTIFF, and the checksums of its rows of parts."""
    window = job.tile.window
    sums, known_pixels, filled_pixels = [], 0, 0
    # Strips are as high as they are written: GDAL then compresses each once.
    strip = min(_STRIP_ROWS, job.part)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": job.crs, "compress": "ZSTD", "zstd_level": 1}
    shape = {"height": window.height, "width": window.width, "blockysize": strip}
    with rasterio.open(path, "w", transform=Affine(*window.transform), **profile, **shape) as file:
        for rows in _rows(job):
            for top in range(0, len(rows.units), strip):
                # GDAL gets copies of what it writes: a strip of them, not a row of parts.
                units, known = rows.units[top : top + strip], rows.known[top : top + strip]
                place = RasterWindow(0, rows.first - window.row + top, window.width, len(units))
                file.write(units, 1, window=place)
                file.write_mask(known, window=place)
            sums.append(_sum(rows.units, rows.known))
            known_pixels += int(rows.known.sum())
            filled_pixels += rows.filled
        found = Holes((window.pixels - known_pixels) / window.pixels, filled_pixels / window.pixels, job.treatment)
        file.update_tags(
            height_holes=job.treatment,
            height_holes_share=repr(found.share),
            height_filled_share=repr(found.filled),
            height_inputs=json.dumps(inputs_of(job.assets), sort_keys=True),
            height_unit=f"{STEP_M} m above ground",
        )
    return found, sums


@dataclass(frozen=True, eq=False)
class _Rows:
    """A row of parts; the arrays are good until the next one."""

    first: int
    """Row on the lattice."""
    units: NDArray[np.uint8]
    known: NDArray[np.bool_]
    filled: int
    """Pixels interpolated."""


def _rows(job: _Job) -> Iterator[_Rows]:
    """The tile's height, a row of parts at a time; parts of a row are read side by side."""
    window = job.tile.window
    shape = (min(job.part, window.height), window.width)
    # One pair of arrays for all rows: a row of a whole tile is 250 MB.
    units, known = np.zeros(shape, np.uint8), np.zeros(shape, np.bool_)
    with ThreadPoolExecutor(_READERS) as pool:
        for top in range(window.row, window.bottom, job.part):
            row = Window.from_edges(top, window.col, min(top + job.part, window.bottom), window.right)
            filled = _read_row(pool, job, row, units[: row.height], known[: row.height])
            yield _Rows(top, units[: row.height], known[: row.height], filled)


def _read_row(
    pool: ThreadPoolExecutor, job: _Job, row: Window, units: NDArray[np.uint8], known: NDArray[np.bool_]
) -> int:
    """Overwrites `units` and `known` with those of the window `row`; returns pixels interpolated."""
    units[:], known[:] = 0, False

    def read(place: Window) -> int:
        inside = place.slices_in(row)
        try:
            return _read_part(job, place, units[inside], known[inside])
        except RasterioIOError as error:
            cause = error.__cause__ or error
            raise SourceError(f"tile {job.tile.name}: its elevation cannot be read in {place}: {cause}") from error

    return sum(pool.map(read, row.split(job.part)))


def _read_part(job: _Job, place: Window, units: NDArray[np.uint8], known: NDArray[np.bool_]) -> int:
    """Writes a lattice window's units, and where they are known, into arrays of zeros; returns pixels interpolated."""
    cells = whole_cells(place)
    near = [a for a in job.assets if a.meets(cells)]
    with gdal_options():
        known[:] = Elevation.of(near).read_into(units, place, step_m=STEP_M)
        if job.treatment == "leave" or known.all() or not near:
            return 0
        around = cells.grow(round(holes.REACH_M * PIXELS_PER_M))
        with holes.patches([a for a in job.assets if a.meets(around)], place, job.work) as patches:
            if not patches:
                return 0
            mended = np.zeros(place.shape, np.uint8)
            closed = Elevation.of([*near, *patches]).read_into(mended, place, step_m=STEP_M) & ~known
    # Only holes: what is known has the value that it has without them, at the rim and at the domain's edge too.
    np.copyto(units, mended, where=closed)
    return int(closed.sum())


def _sum(units: NDArray[np.uint8], known: NDArray[np.bool_]) -> int:
    return zlib.crc32(known.view(np.uint8).data, zlib.crc32(units.data))


def _sums(path: Path, tile: Tile, part: int) -> list[int]:
    """Checksums of a written file's rows, as `_write_plain` gives them.

    GDAL reports no error when the disk is full as a file is closed.
    """
    height, width = tile.window.shape
    sums = []
    with rasterio.open(path) as file:
        for row in range(0, height, part):
            place = RasterWindow(0, row, width, min(part, height - row))
            sums.append(_sum(file.read(1, window=place), file.read_masks(1, window=place) > 0))
    return sums
