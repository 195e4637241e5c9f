"""Interpolates the holes of elevation models on the models' own grids."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.fill import fillnodata

from pipeline.errors import StorageError
from pipeline.fingerprint import digest
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.sources.delivery.names import Kind
from pipeline.sources.domain_inputs import Asset, whole_cells
from pipeline.sources.reading import vrt
from pipeline.sources.reading.dataset_cache import read, read_band
from pipeline.sources.reading.vrt import NODATA_M, NativeGrid

REACH_M = 25.0
"""How far in metres values are carried into a hole: gaps up to 50 m across are closed, the middle of wider ones is not.

Image correlation fails over water, shadow and single trees, which makes small holes. Large ones are restricted zones,
in whose middle nothing is known.
"""

_CREATE_LOCK = threading.Lock()
"""rasterio silences Python's warnings while it creates a dataset, which is not safe for threads."""


@contextmanager
def hole_patches(assets: Sequence[Asset], part: Window, work: Path) -> Iterator[list[Asset]]:
    """Yields small elevation files that fill the holes of `assets` around `part`; removes them when the block ends.

    A patch lies on the grid of the files that it completes and has values only where they have none, so together with
    them it resamples as if there were no hole. Each cell is interpolated from the cells within `REACH_M` (inverse
    distance over four quadrants, GDAL's FillNodata), and is therefore the same whatever `part` is. Where files of
    another grid have values there is no hole.

    Args:
        assets: all surface and terrain files that intersect the part.
        part: lattice window.
        work: folder for the patches.

    Raises:
        rasterio.errors.RasterioIOError: a file cannot be read.
        StorageError: a patch cannot be written.
    """
    patches: list[Asset] = []
    try:
        for kind in ("dsm", "dtm"):
            grids = vrt.by_grid(a for a in assets if a.kind == kind)
            for grid, own in grids.items():
                others = [a for other, files in grids.items() if other != grid for a in files]
                if (patch := _patch(grid, own, others, part, work)) is not None:
                    patches.append(patch)
        yield patches
    finally:
        for patch in patches:
            patch.path.unlink(missing_ok=True)


def _patch(grid: NativeGrid, own: list[Asset], others: list[Asset], part: Window, work: Path) -> Asset | None:
    inner = _around(grid, part)
    margin = math.ceil(REACH_M / grid.resolution_m) + 1
    values = read(vrt.native(grid, own), inner.grow(margin), indexes=[1])[0]
    valid = (values != NODATA_M) & np.isfinite(values)
    inside = inner.slices_in(inner.grow(margin))
    if valid[inside].all() or not valid.any():
        return None
    values[~valid] = NODATA_M
    with _CREATE_LOCK:
        filled = fillnodata(values, mask=valid, max_search_distance=REACH_M / grid.resolution_m)[inside]
    filled[valid[inside]] = NODATA_M
    if others:
        filled[_known(others, grid, inner)] = NODATA_M
    return None if (filled == NODATA_M).all() else _write_patch(filled, grid, inner, own[0].kind, work)


def _around(grid: NativeGrid, part: Window) -> Window:
    """The grid's pixels that resampling to the part uses: two more on each side."""
    left, bottom, right, top = whole_cells(part).bounds
    step = grid.resolution_m
    return Window.from_edges(
        math.floor((grid.top - top) / step),
        math.floor((left - grid.left) / step),
        math.ceil((grid.top - bottom) / step),
        math.ceil((right - grid.left) / step),
    ).grow(2)


def _known(others: list[Asset], grid: NativeGrid, inner: Window) -> NDArray[np.bool_]:
    """bool (y, x) over `inner`: True where files of other grids have a value at the pixel's centre."""
    step = grid.resolution_m
    x = grid.left + (inner.col + np.arange(inner.width) + 0.5) * step
    y = grid.top - (inner.row + np.arange(inner.height) + 0.5) * step
    cols, rows = np.floor(x * PIXELS_PER_M).astype(int), np.floor(-y * PIXELS_PER_M).astype(int)
    place = Window.from_edges(rows[0], cols[0], rows[-1] + 1, cols[-1] + 1)
    values = read_band(vrt.elevation(others), place)
    known: NDArray[np.bool_] = ((values != NODATA_M) & np.isfinite(values))[np.ix_(rows - place.row, cols - place.col)]
    return known


def _write_patch(values: NDArray[np.float32], grid: NativeGrid, place: Window, kind: Kind, work: Path) -> Asset:
    step = grid.resolution_m
    transform = Affine(step, 0, grid.left + place.col * step, 0, -step, grid.top - place.row * step)
    path = work / f"patch-{uuid4().hex}"
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "float32", "count": 1, "compress": "ZSTD", "zstd_level": 1}
    profile |= {"height": place.height, "width": place.width, "transform": transform, "nodata": NODATA_M}
    try:
        with _CREATE_LOCK, rasterio.open(path, "w", **profile) as file:
            file.write(values, 1)
            block = file.block_shapes[0]
    except RasterioError as error:
        raise StorageError(
            f"{path}: cannot be written: {error}; is the disk full? Run the same command again"
        ) from error
    stat, on_grid = path.stat(), (tuple(transform)[:6], place.shape, "float32", tuple(block))
    return Asset(kind, path, digest([path.name]), stat.st_size, stat.st_mtime_ns, *on_grid, str(NODATA_M))
