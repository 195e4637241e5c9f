"""Single stages of a run with nothing around them: decoding alone, and writing COGs alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import rasterio
from odc.geo.geobox import GeoBox
from rasterio.windows import Window as RasterWindow

from pipeline.bench.machine import Usage, measure, set_gdal_cache
from pipeline.grid import Window
from pipeline.legend import LAYERS
from pipeline.products.tile.cog import read_cog, write_cog
from pipeline.sources.domain_inputs import Asset

_BANDS = {"rvb": [1, 2, 3], "irc": [1]}
"""The bands that a map needs from each kind of file."""


FilePart = tuple[Path, list[int], RasterWindow]
"""A JPEG 2000 file, the bands to decode, and a window in the file's own pixels."""


def file_part(asset: Asset, read: Window) -> FilePart:
    """The part of a file that a read window on the lattice covers."""
    own = Window.from_bounds(asset.bounds)
    part = read.intersect(own).within(own)
    return asset.path, _BANDS[asset.kind], RasterWindow(part.col, part.row, part.width, part.height)


def decode_alone(reads: list[list[FilePart]], *, threads: int, cache_mb: int) -> Usage:
    """Decodes parts of JPEG 2000 files and does nothing with them; call it in a new process.

    Args:
        reads: a list for each block, which one thread decodes.
        threads: number of readers, each with one GDAL thread.
        cache_mb: GDAL's block cache, in MiB.
    """
    set_gdal_cache(cache_mb)

    @cache
    def opened(path: Path, _thread: int) -> Any:
        """One handle for each thread and file, as in the pipeline."""
        return rasterio.open(path)

    def read_parts(parts: list[FilePart]) -> None:
        # GDAL's options apply to the thread that sets them.
        with rasterio.Env(GDAL_NUM_THREADS=1, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            for path, bands, window in parts:
                opened(path, threading.get_ident()).read(bands, window=window)

    def work() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read_parts, reads))

    return measure(work)[1]


def seal_alone(cogs: tuple[Path, Path], folder: Path, *, live: tuple[int, ...]) -> Usage:
    """Writes the COGs of a sealed tile again, with overviews and checksums and nothing else, into another folder."""
    layers = [read_cog(path) for path in cogs]
    with rasterio.open(cogs[0]) as file:
        geobox = GeoBox.from_rio(file)

    def work() -> None:
        for name, pixels in zip(LAYERS, layers, strict=True):
            path = folder / f"{name}.tif"
            write_cog(path, pixels, layer=name, geobox=geobox, live=live, tags={})

    return measure(work)[1]
