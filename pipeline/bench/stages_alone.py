"""Single stages of a run with nothing around them: decoding alone, and writing COGs alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import Window as RasterWindow

from pipeline.bench.machine import Usage, measure, set_gdal_cache
from pipeline.grid import Window
from pipeline.legend import LAYERS
from pipeline.products.tile.cog import write_cog
from pipeline.sources.domain_inputs import Asset

_BANDS = {"rvb": [1, 2, 3], "irc": [1]}
"""The bands that a map needs from each kind of file."""


@dataclass(frozen=True)
class FileWindow:
    """A window of one JPEG 2000 file."""

    asset: Asset
    window: Window
    """In the file's own pixels."""

    @classmethod
    def of(cls, asset: Asset, read: Window) -> "FileWindow":
        """The part of a file that a read window on the lattice covers."""
        own = Window.from_bounds(asset.bounds)
        rows, cols = read.intersect(own).slices_in(own)
        return cls(asset, Window.from_edges(rows.start, cols.start, rows.stop, cols.stop))


class _Files(threading.local):
    """One handle for each thread and file, as in the pipeline."""

    def __init__(self) -> None:
        self.open: dict[Path, Any] = {}


def decode_alone(reads: list[list[FileWindow]], *, threads: int, cache_mb: int) -> Usage:
    """Decodes parts of JPEG 2000 files and does nothing with them; call it in a new process.

    Args:
        reads: a list for each block, which one thread decodes.
        threads: number of readers, each with one GDAL thread.
        cache_mb: GDAL's block cache, in MiB.
    """
    set_gdal_cache(cache_mb)
    files = _Files()

    def read_parts(parts: list[FileWindow]) -> None:
        # GDAL's options apply to the thread that sets them.
        with rasterio.Env(GDAL_NUM_THREADS=1, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            for part in parts:
                path, w = part.asset.path, part.window
                if path not in files.open:
                    files.open[path] = rasterio.open(path)
                files.open[path].read(_BANDS[part.asset.kind], window=RasterWindow(w.col, w.row, w.width, w.height))

    def work() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read_parts, reads))

    return measure(work)[1]


def seal_alone(cogs: tuple[Path, Path], folder: Path, *, live: tuple[int, ...]) -> Usage:
    """Writes the COGs of a sealed tile again, with overviews and checksums and nothing else, into another folder."""
    layers = [read_layer(path) for path in cogs]
    with rasterio.open(cogs[0]) as file:
        geobox = GeoBox.from_rio(file)

    def work() -> None:
        for name, pixels in zip(LAYERS, layers, strict=True):
            path = folder / f"{name}.tif"
            write_cog(path, pixels, layer=name, geobox=geobox, live=live, tags={})

    return measure(work)[1]


def read_layer(path: Path) -> NDArray[np.uint8]:
    """Reads a sealed layer: uint8 (y, x)."""
    with rasterio.open(path) as file:
        pixels: NDArray[np.uint8] = file.read(1)
    return pixels
