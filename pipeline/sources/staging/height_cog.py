"""Writes the height of one tile: uint8 in units of 0.2 m, as a COG with the mask of its holes."""

import os
import secrets
import zlib
from collections.abc import Sequence
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

from pipeline.durable import replacing
from pipeline.errors import SourceError, StorageError
from pipeline.grid import CRS, PIXELS_PER_M, Tile, Window
from pipeline.sources.domain_inputs import Asset, whole_cells
from pipeline.sources.reading.dataset_cache import gdal_options
from pipeline.sources.reading.elevation import read_heights
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
    plain = work / f"height-{secrets.token_hex(8)}"
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
    # All rows of parts share one pair of arrays: a row of a whole tile has 250 MB.
    units = np.zeros((min(job.part, window.height), window.width), np.uint8)
    known = np.zeros(units.shape, np.bool_)
    with (
        rasterio.open(path, "w", transform=Affine(*window.transform), **profile, **shape) as file,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for row in window.strips(job.part):
            row_units, row_known = units[: row.height], known[: row.height]
            filled_pixels += _read_row(pool, job, row, row_units, row_known)
            for part in row.strips(strip):
                # GDAL copies what it writes: by strips, not a whole row of parts.
                inside, place = part.slices_in(row), part.slices_in(window)
                file.write(row_units[inside], 1, window=place)
                file.write_mask(row_known[inside], window=place)
            sums.append(_sum(row_units, row_known))
            known_pixels += int(row_known.sum())
        share, filled = (window.pixels - known_pixels) / window.pixels, filled_pixels / window.pixels
        holes = HeightHoles(share, filled, job.treatment)
        record = HeightRecord(holes, inputs_of(job.assets))
        file.update_tags(**record.to_tags(), height_unit=f"{STEP_M} m above ground")
    return holes, sums


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
    with gdal_options(a.path for a in job.assets):
        known[:] = read_heights(near, units, place, step_m=STEP_M)
        if job.treatment == "leave" or known.all() or not near:
            return 0
        around = cells.grow(round(REACH_M * PIXELS_PER_M))
        with hole_patches([a for a in job.assets if a.meets(around)], place, job.work) as patches:
            if not patches:
                return 0
            mended = np.zeros(place.shape, np.uint8)
            closed = read_heights([*near, *patches], mended, place, step_m=STEP_M) & ~known
    # Only in holes: known pixels keep the value that they have without patches, also at the rim and the domain's edge.
    np.copyto(units, mended, where=closed)
    return int(closed.sum())


def _sum(units: NDArray[np.uint8], known: NDArray[np.bool_]) -> int:
    return zlib.crc32(known.view(np.uint8).data, zlib.crc32(units.data))


def _read_sums(path: Path, tile: Tile, part: int) -> list[int]:
    """Checksums of a written file's rows, as `_write_plain` returns them.

    They are compared because GDAL reports no error if the disk is full when it closes a file.
    """
    with rasterio.open(path) as file:
        places = [row.slices_in(tile.window) for row in tile.window.strips(part)]
        return [_sum(file.read(1, window=place), file.read_masks(1, window=place) > 0) for place in places]
