"""Keeps rasters open for each thread, up to a limit, and sets GDAL's options for all reads."""

import threading
import warnings
from collections import OrderedDict
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from pipeline.grid import Window
from pipeline.sources.http_path import gdal_headers
from pipeline.sources.reading.vrt import FRAME

# rasterio silences its own intermediate rasters, but not safely when several threads burn polygons at once.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.features")

OPTIONS: dict[str, Any] = {
    # One thread a reader: two decode 1.24 times faster for 1.42 times the CPU, and readers are many.
    "GDAL_NUM_THREADS": 1,
    # The catalog knows the files. Listing a folder of hundreds at every open takes time, and a sidecar that the index
    # did not see must not change the georeference.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Files that virtual rasters keep open in a process. Where four tiles and their elevation files meet, 16 reading
    # threads need more than the default of 100, and files would be opened again and again.
    "GDAL_MAX_DATASET_POOL_SIZE": 450,
    # For files on the web: a tile should not fail because a server is busy for a moment.
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}

DATASETS_PER_THREAD = 32
"""Virtual rasters or files that a thread keeps open: three for a mosaic's imagery, and two per tile for elevation."""


class _OpenDatasets(threading.local):
    """The open datasets of one thread, the least recently used first."""

    def __init__(self) -> None:
        self.by_name: OrderedDict[tuple[str, str], Any] = OrderedDict()


_OPEN = _OpenDatasets()


def gdal_options() -> rasterio.Env:
    """The GDAL environment for all reads."""
    return rasterio.Env(**OPTIONS, **gdal_headers())


def read(
    name: str, window: Window, *, indexes: list[int], out: NDArray[Any] | None = None, version: str = ""
) -> NDArray[Any]:
    """Reads bands of a dataset in a window of its own pixels, (band, y, x).

    Args:
        name: a path, or a VRT's XML.
        window: rows and columns of the dataset.
        indexes: bands, counted from 1.
        out: array for the result, with its shape and type.
        version: distinguishes a file from a later one at the same path; a VRT's XML contains it already.

    Raises:
        rasterio.errors.RasterioIOError: it cannot be opened or read.
    """
    try:
        array: NDArray[Any] = _dataset(name, version).read(indexes, window=window.slices, out=out)
    except RasterioIOError:
        # The next try opens the file again.
        if (dataset := _OPEN.by_name.pop((name, version), None)) is not None:
            dataset.close()
        raise
    return array


def _dataset(name: str, version: str) -> Any:
    """This thread's open dataset."""
    datasets = _OPEN.by_name
    dataset = datasets.get((name, version))
    if dataset is None:
        dataset = datasets[name, version] = rasterio.open(name)
    datasets.move_to_end((name, version))
    while len(datasets) > DATASETS_PER_THREAD:
        datasets.popitem(last=False)[1].close()
    return dataset


def read_band(vrt: str, window: Window) -> NDArray[np.float32]:
    """Reads the first band of a virtual raster in a lattice window, (y, x).

    Raises:
        rasterio.errors.RasterioIOError: a file behind the window cannot be read.
    """
    array: NDArray[np.float32] = read(vrt, window.within(FRAME), indexes=[1])[0]
    return array
