"""Images as lazy xarray arrays: a domain of the input catalog, or one raster. One Dask task reads one block."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  registers the `rio` accessor
import xarray as xr
from dask.array.core import normalize_chunks
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.typing import Key
from numpy.typing import NDArray
from odc.geo.xr import wrap_xr

from pipeline.domain import Domain
from pipeline.grid import Window
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.reading.raster import GeoSource, Pixels, Raster

BLOCK = 5_000
"""Pixels a side of a chunk: 1 km, and 125 MB with five bands."""


def open_domain(
    catalog: Path | str,
    domain: str,
    *,
    bands: Sequence[str] = BANDS,
    height_step_m: float = 0.2,
    block: int = BLOCK,
) -> xr.DataArray:
    """Opens the imagery and elevation of a domain as one lazy mosaic; no raster is opened before it is computed.

    Args:
        catalog: folder of the input catalog, as `landcover index` writes it.
        domain: name such as `D064_2021`: département and vintage.
        bands: some of `red`, `green`, `blue`, `nir` and `elevation`, in the order of the network.
        height_step_m: metres of one unit of the elevation band.
        block: side of a chunk in pixels, counted from the mosaic's north-west corner.

    Returns:
        uint8 (band, y, x) on Dask at 0.20 m, with band names in `band`, pixel centres in `x` and `y`, and the CRS in
        `spatial_ref`. Pixels outside all tiles are 0 in every band, which is the array's nodata; the coordinate
        `valid`, bool (y, x), says which pixels are data. Parts of the array keep it.

    Raises:
        ConfigError: `domain` is not such a name.
        CatalogError: there is no such catalog or domain, a band is unknown, or a tile has no file for a band.

    Examples:
        >>> mosaic = open_domain("build/demo/catalog", "D034_2021")
        >>> mosaic.dims, mosaic.dtype.name
        (('band', 'y', 'x'), 'uint8')
    """
    inputs = read_domain(Path(catalog), Domain(domain))
    return to_xarray(Mosaic.of(inputs, bands=tuple(bands), height_step_m=height_step_m), name=domain, block=block)


def open_raster(
    path: Path | str, *, bands: Sequence[str] = BANDS, block: int = BLOCK, allow_vrt: bool = False
) -> xr.DataArray:
    """Opens a georeferenced raster as a lazy array.

    Args:
        path: of the file.
        bands: names of its bands, in their order. A band of transparency may follow them.
        block: side of a chunk in pixels, counted from the raster's north-west corner.
        allow_vrt: whether it may be a virtual raster, whose author decides what files and servers are read.

    Returns:
        uint8 (band, y, x) on Dask, with band names in `band`, pixel centres in `x` and `y`, the CRS in `spatial_ref`,
        and the file's nodata value. The coordinate `valid`, bool (y, x), is False where a mask, transparency, a band's
        nodata value or a block that was never written excludes the pixel.

    Raises:
        SourceError: the file cannot be opened, has other samples or bands, has no georeference in metres, is rotated,
            or its valid pixels cannot be told.

    Examples:
        >>> path, *_ = Path("build/demo/products/D034_2021").glob("*-landcover.tif")
        >>> image = open_raster(path, bands=["landcover"])
        >>> int(image.rio.nodata)
        0
    """
    raster = Raster.open(Path(path), bands=tuple(bands), allow_vrt=allow_vrt)
    return to_xarray(raster, name=Path(path).stem, nodata=raster.nodata, block=block)


def to_xarray(source: GeoSource, *, name: str, nodata: int | None = 0, block: int = BLOCK) -> xr.DataArray:
    """A source as a lazy uint8 array (band, y, x), with coordinates as rioxarray and odc-geo have them."""
    bands, valid = _blocks(source, block)
    array: xr.DataArray = wrap_xr(bands, source.geobox, dims=("band", "y", "x"), axis=1)
    array = array.assign_coords(band=list(source.bands), valid=(("y", "x"), valid)).rename(name)
    return array if nodata is None else array.rio.write_nodata(nodata)


def source_of(image: xr.DataArray) -> GeoSource | None:
    """The source that `image` is the unchanged view of; None for any other array.

    The tasks of the view contain the source. A slice or a changed view is an array of another name.
    """
    if image.chunks is None:
        return None
    name: str = image.data.name
    task = image.data.dask.get((f"read-{name}", 0, 0)) if name.startswith(_NAME) else None
    found = [part for part in task if isinstance(part, Mosaic | Raster)] if isinstance(task, tuple) else []
    return found[0] if found else None


_NAME = "image-"


def _blocks(source: GeoSource, block: int) -> tuple[da.Array, da.Array]:
    """The bands, and which pixels are valid: both from one read of each block."""
    window = source.window
    shape = (len(source.bands), *window.shape)
    chunks = normalize_chunks((shape[0], block, block), shape)
    name = f"{_NAME}{tokenize(source, block)}"
    # By hand, and not by `map_blocks`: `source_of` finds the source in the tasks.
    read, valid = f"read-{name}", f"valid-{name}"
    reads: dict[Key, Any] = {}
    bands: dict[Key, Any] = {}
    stated: dict[Key, Any] = {}
    for part in window.split(block):
        row, col = (part.row - window.row) // block, (part.col - window.col) // block
        reads[read, row, col] = (_read, source, part)
        bands[name, 0, row, col] = (_bands, (read, row, col))
        stated[valid, row, col] = (_valid, (read, row, col))
    bands_graph = HighLevelGraph({read: reads, name: bands}, {read: set(), name: {read}})
    valid_graph = HighLevelGraph({read: reads, valid: stated}, {read: set(), valid: {read}})
    return (
        da.Array(bands_graph, name, chunks, dtype=np.uint8),
        da.Array(valid_graph, valid, chunks[1:], dtype=np.bool_),
    )


def _read(source: GeoSource, window: Window) -> Pixels:
    return source.read(window)


def _bands(pixels: Pixels) -> NDArray[np.uint8]:
    return pixels.bands


def _valid(pixels: Pixels) -> NDArray[np.bool_]:
    return pixels.valid
