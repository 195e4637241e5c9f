"""Open rasters: one handle a thread, a bounded number of them, and GDAL's options, each once."""

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.windows import Window as RasterWindow

from pipeline.grid import Window
from pipeline.sources.http_path import gdal_headers
from pipeline.sources.reading.vrt import FRAME

OPTIONS: dict[str, Any] = {
    # One thread a reader: two decode 1.24 times faster for 1.42 times the CPU, and readers are many.
    "GDAL_NUM_THREADS": 1,
    # The catalogue knows the files; listing a folder of hundreds at every open, or taking georeference
    # from a sidecar that the index did not see, is not wanted.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Files that virtual rasters keep open in a process. The default of 100 is fewer than 16 reading threads need
    # where four tiles and their elevation files meet, and then files are opened again and again.
    "GDAL_MAX_DATASET_POOL_SIZE": 450,
    # Files on the web: a server's hiccup is no failure of a tile.
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}

HANDLES_PER_THREAD = 32
"""Virtual rasters or files that a thread keeps open: three of a mosaic's imagery and two a tile of elevation."""


class _Handles(threading.local):
    """The handles of one thread, least recently used first."""

    def __init__(self) -> None:
        self.open: OrderedDict[tuple[str, str], Any] = OrderedDict()


_HANDLES = _Handles()


def gdal_options() -> rasterio.Env:
    """The environment in which all reading happens."""
    return rasterio.Env(**OPTIONS, **gdal_headers())


def read(
    name: str, window: Window, *, indexes: list[int], out: NDArray[Any] | None = None, version: str = ""
) -> NDArray[Any]:
    """Bands (counted from 1) of a dataset in a window of its own pixels, (band, y, x); into `out` where given.

    Args:
        name: a path, or a VRT's XML.
        window: rows and columns of the dataset.
        indexes: bands, the first is 1.
        out: array of the result's shape and type.
        version: what tells a file from another one that later has the same path; a VRT's XML has it inside.

    Raises:
        rasterio.errors.RasterioIOError: it cannot be opened or read.
    """
    place = RasterWindow(window.col, window.row, window.width, window.height)
    try:
        array: NDArray[Any] = _handle(name, version).read(indexes, window=place, out=out)
    except RasterioIOError:
        # After a failed read the next try opens anew.
        if (dataset := _HANDLES.open.pop((name, version), None)) is not None:
            dataset.close()
        raise
    return array


def _handle(name: str, version: str) -> Any:
    """This thread's open dataset."""
    handles = _HANDLES.open
    dataset = handles.get((name, version))
    if dataset is None:
        dataset = handles[name, version] = rasterio.open(name)
    handles.move_to_end((name, version))
    while len(handles) > HANDLES_PER_THREAD:
        handles.popitem(last=False)[1].close()
    return dataset


def on_frame(window: Window) -> Window:
    """A lattice window in the pixels of the virtual rasters' frame."""
    return Window(window.row - FRAME.row, window.col - FRAME.col, window.height, window.width)


def read_band(vrt: str, window: Window) -> NDArray[np.float32]:
    """The first band of a virtual raster in a lattice window, (y, x).

    Raises:
        rasterio.errors.RasterioIOError: a file behind the window cannot be read.
    """
    array: NDArray[np.float32] = read(vrt, on_frame(window), indexes=[1])[0]
    return array
