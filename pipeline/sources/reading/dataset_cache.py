"""Keeps rasters open for each thread, up to a limit, and sets GDAL's options for all reads."""

import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from pipeline.grid import Window
from pipeline.sources.gdal_open import environment, open_dataset, open_own_vrt
from pipeline.sources.reading.vrt import FRAME

# rasterio silences its own intermediate rasters, but not safely when several threads burn polygons at once.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.features")

_POOL_SIZE = 450
"""Files that virtual rasters keep open in a process. Where four tiles and their elevation files meet, 16 reading
threads need more than GDAL's default of 100, and files would be opened again and again."""

DATASETS_PER_THREAD = 32
"""Virtual rasters or files that a thread keeps open: three for a mosaic's imagery, and two per tile for elevation."""


class _OpenDatasets(threading.local):
    """The open datasets of one thread, the least recently used first."""

    def __init__(self) -> None:
        self.by_name: OrderedDict[tuple[str | Path, str], Any] = OrderedDict()


_OPEN = _OpenDatasets()


def gdal_options(files: Iterable[Path] = (), *, network: bool = False) -> Any:
    """The GDAL environment for all reads of pixels.

    Args:
        files: those that will be read; may be left out where none is on the web.
        network: see `gdal_open.environment`.

    Raises:
        SourceError: see `gdal_open.environment`.
    """
    return environment(files, network=network, GDAL_MAX_DATASET_POOL_SIZE=_POOL_SIZE)


def read(
    name: str | Path,
    window: Window,
    *,
    indexes: list[int],
    out: NDArray[Any] | None = None,
    version: str = "",
    allow_vrt: bool = False,
) -> NDArray[Any]:
    """Reads bands of a dataset in a window of its own pixels, (band, y, x).

    Args:
        name: a path, or the XML of one of our own virtual rasters.
        window: rows and columns of the dataset.
        indexes: bands, counted from 1.
        out: array for the result, with its shape and type.
        version: distinguishes a file from a later one at the same path; a VRT's XML contains it already.
        allow_vrt: see `gdal_open.open_dataset`.

    Raises:
        rasterio.errors.RasterioIOError: it cannot be opened or read.
    """
    with open_here(name, version=version, allow_vrt=allow_vrt) as dataset:
        array: NDArray[Any] = dataset.read(indexes, window=window.slices, out=out)
    return array


@contextmanager
def open_here(name: str | Path, *, version: str = "", allow_vrt: bool = False) -> Iterator[Any]:
    """This thread's open dataset, for several reads; see `read`."""
    try:
        yield _dataset(name, version, allow_vrt=allow_vrt)
    except RasterioIOError:
        # The next try opens the file again.
        if (dataset := _OPEN.by_name.pop((name, version), None)) is not None:
            dataset.close()
        raise


def _dataset(name: str | Path, version: str, *, allow_vrt: bool) -> Any:
    """This thread's open dataset."""
    datasets = _OPEN.by_name
    dataset = datasets.get((name, version))
    if dataset is None:
        dataset = open_own_vrt(name) if isinstance(name, str) else open_dataset(name, allow_vrt=allow_vrt)
        datasets[name, version] = dataset
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
