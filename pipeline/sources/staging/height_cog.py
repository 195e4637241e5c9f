"""Writes the height of one tile: uint8 in units of 0.2 m, as a COG with the mask of its holes."""

import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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
from pipeline.sources.staging.height_record import HeightHoles, HeightRecord, Treatment, inputs_of
from pipeline.sources.staging.hole_filling import REACH_M, hole_patches

STEP_M = 0.2
"""Metres of one unit: FLAIR's fifth band (the FLAIR-INC model card)."""

PART = 5000
"""Side in pixels of the parts that are computed: 1 km, like the elevation files, and whole elevation cells."""

_THREADS = min(4, os.cpu_count() or 1)
_CACHE_BYTES = 128 * 2**20
"""GDAL's cache. Its default is a share of the machine's memory."""
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
class _Job:
    """The inputs and options of one height file."""

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
) -> HeightHoles:
    """Writes DSM − DTM of a tile at 0.20 m, exactly as the mosaic would read it from the same files.

    The files are mosaicked at their own resolution and then resampled (see `vrt`). The internal mask of the result is 0
    in holes, interpolated or not, and 255 elsewhere. The height is computed in parts, one row of parts in memory at a
    time: about 1.1 GB for 25 000² px. The file appears under its name after it was read back and synced.

    Args:
        path: the file to write.
        tile: the tile whose pixels it has.
        assets: surface and terrain files within reach of the tile.
        treatment: of holes.
        work: folder for temporary files.
        part: side of the computed parts in pixels, a multiple of `domain_inputs.CELL`; it does not change any pixel.
        crs: `EPSG:…` of the lattice.

    Returns:
        Its holes.

    Raises:
        SourceError: an elevation file cannot be read.
        StorageError: the file cannot be written.
    """
    job = _Job(tile, tuple(assets), treatment, work, part, crs)
    plain = work / "height"
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_TIFF_INTERNAL_MASK="YES"), replacing(path) as temporary:
        try:
            holes, sums = _write_plain(plain, job)
            rasterio.shutil.copy(plain, temporary, driver="COG", **_CREATION)
            sums_read_back = _read_sums(temporary, tile, part)
        except _GDAL_ERRORS as error:
            raise _write_error(path, str(error)) from error
        finally:
            plain.unlink(missing_ok=True)
        if sums_read_back != sums:
            raise _write_error(path, "checksum mismatch when it was read back")
    return holes


def _write_error(path: Path, cause: str) -> StorageError:
    return StorageError(f"{path}: cannot be written: {cause}; is the disk full? Run the same command again")


def _write_plain(path: Path, job: _Job) -> tuple[HeightHoles, list[int]]:
    """Writes the height as a striped GeoTIFF; returns its holes and the checksum of each row of parts."""
    window = job.tile.window
    sums, known_pixels, filled_pixels = [], 0, 0
    # Each write is one strip, so that GDAL compresses it once.
    strip = min(_STRIP_ROWS, job.part)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": job.crs, "compress": "ZSTD", "zstd_level": 1}
    shape = {"height": window.height, "width": window.width, "blockysize": strip}
    with rasterio.open(path, "w", transform=Affine(*window.transform), **profile, **shape) as file:
        for rows in _rows(job):
            for top in range(0, len(rows.units), strip):
                # GDAL copies what it writes: by strips, not a whole row of parts.
                units, known = rows.units[top : top + strip], rows.known[top : top + strip]
                place = RasterWindow(0, rows.first - window.row + top, window.width, len(units))
                file.write(units, 1, window=place)
                file.write_mask(known, window=place)
            sums.append(_sum(rows.units, rows.known))
            known_pixels += int(rows.known.sum())
            filled_pixels += rows.filled
        share, filled = (window.pixels - known_pixels) / window.pixels, filled_pixels / window.pixels
        holes = HeightHoles(share, filled, job.treatment)
        record = HeightRecord(holes, inputs_of(job.assets))
        file.update_tags(**record.to_tags(), height_unit=f"{STEP_M} m above ground")
    return holes, sums


@dataclass(frozen=True, eq=False)
class _Rows:
    """A row of parts; the arrays are valid until the next row is computed."""

    first: int
    """Row on the lattice."""
    units: NDArray[np.uint8]
    known: NDArray[np.bool_]
    filled: int
    """Number of interpolated pixels."""


def _rows(job: _Job) -> Iterator[_Rows]:
    """Yields the tile's height by rows of parts; threads read the parts of a row."""
    window = job.tile.window
    shape = (min(job.part, window.height), window.width)
    # All rows share one pair of arrays: a row of a whole tile has 250 MB.
    units, known = np.zeros(shape, np.uint8), np.zeros(shape, np.bool_)
    with ThreadPoolExecutor(_THREADS) as pool:
        for top in range(window.row, window.bottom, job.part):
            row = Window.from_edges(top, window.col, min(top + job.part, window.bottom), window.right)
            filled = _read_row(pool, job, row, units[: row.height], known[: row.height])
            yield _Rows(top, units[: row.height], known[: row.height], filled)


def _read_row(
    pool: ThreadPoolExecutor, job: _Job, row: Window, units: NDArray[np.uint8], known: NDArray[np.bool_]
) -> int:
    """Overwrites `units` and `known` with those of the window `row`; returns the number of interpolated pixels."""
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
    """Fills two arrays of zeros with the units of a window and where they are known; returns interpolated pixels."""
    cells = whole_cells(place)
    near = [a for a in job.assets if a.meets(cells)]
    with gdal_options():
        known[:] = Elevation.of(near).read_into(units, place, step_m=STEP_M)
        if job.treatment == "leave" or known.all() or not near:
            return 0
        around = cells.grow(round(REACH_M * PIXELS_PER_M))
        with hole_patches([a for a in job.assets if a.meets(around)], place, job.work) as patches:
            if not patches:
                return 0
            mended = np.zeros(place.shape, np.uint8)
            closed = Elevation.of([*near, *patches]).read_into(mended, place, step_m=STEP_M) & ~known
    # Only in holes: known pixels keep the value that they have without patches, also at the rim and the domain's edge.
    np.copyto(units, mended, where=closed)
    return int(closed.sum())


def _sum(units: NDArray[np.uint8], known: NDArray[np.bool_]) -> int:
    return zlib.crc32(known.view(np.uint8).data, zlib.crc32(units.data))


def _read_sums(path: Path, tile: Tile, part: int) -> list[int]:
    """Checksums of a written file's rows, as `_write_plain` returns them.

    They are compared because GDAL reports no error if the disk is full when it closes a file.
    """
    height, width = tile.window.shape
    sums = []
    with rasterio.open(path) as file:
        for row in range(0, height, part):
            place = RasterWindow(0, row, width, min(part, height - row))
            sums.append(_sum(file.read(1, window=place), file.read_masks(1, window=place) > 0))
    return sums
