"""The national store: plain Zarr v3 that xarray, rioxarray and odc-geo open, and our reader that trusts no gap.

Arrays `landcover`, `confidence` (uint8) and `domain` (uint16) of dimensions (y, x), sharded; `x` and `y`
are pixel centres in metres; `spatial_ref` carries the CRS; `coverage` (tile_y, tile_x) says what should be
there.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from pipeline import legend
from pipeline.errors import ProductError
from pipeline.fingerprint import PRODUCT_VERSION
from pipeline.grid import PIXELS_PER_M
from pipeline.products.record import (
    LAYERS,
    OUTSIDE,
    Edition,
    Index,
    NationalGrid,
    current_edition,
    edition_of,
    present_shards,
)

_ZSTD_LEVEL = 5
"""Of real class maps and smooth confidence, 9 saves 4..8 % more for 2.4 × the time; 1 is no faster by half."""
_COORDINATE_CHUNK = 100_000
_DTYPES = {"landcover": "uint8", "confidence": "uint8", "domain": "uint16"}


def create_store(
    path: Path,
    grid: NationalGrid,
    *,
    domains: Sequence[Mapping[str, Any]],
    coverage: NDArray[np.uint8],
    coordinates_from: Path | None,
) -> None:
    """Makes a store with all but its shards.

    Args:
        path: the Zarr to be; must not exist.
        grid: extent, tile, shard and chunk.
        domains: the table that the `domain` layer's numbers refer to.
        coverage: uint8 (tile_y, tile_x).
        coordinates_from: a store of the same grid whose coordinates are linked; None to write them.
    """
    root = zarr.create_group(path, zarr_format=3, attributes=_group_attributes(domains))
    for layer in LAYERS:
        root.create_array(
            layer,
            shape=grid.extent.shape,
            shards=(grid.shard, grid.shard),
            chunks=(grid.chunk, grid.chunk),
            dtype=_DTYPES[layer],
            fill_value=0,
            compressors=[ZstdCodec(level=_ZSTD_LEVEL)],
            dimension_names=("y", "x"),
            attributes=_layer_attributes(layer, domains),
        )
    _create_coordinates(root, path, grid, coordinates_from)
    _create_scalar(root, grid)
    tiles = root.create_array(
        "coverage",
        shape=grid.tiles_shape,
        chunks=grid.tiles_shape,
        dtype="uint8",
        fill_value=OUTSIDE,
        dimension_names=("tile_y", "tile_x"),
        attributes={
            "long_name": "what the tiles of the national grid hold",
            "flag_values": [0, 1, 2, 3],
            "flag_meanings": "outside mapped failed missing",
        },
        config={"write_empty_chunks": True},
    )
    tiles[:] = coverage
    with warnings.catch_warnings():
        # Zarr warns that v3's specification has no consolidated metadata yet; xarray warns where it is absent.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(path, zarr_format=3)


def _group_attributes(domains: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """CF's own names for what the table of domains says: whose data, how to cite them, under which licence."""

    def said(key: str) -> str:
        return "; ".join(dict.fromkeys(str(d[key]) for d in domains if d.get(key)))

    given = {"source": said("attribution"), "references": said("citation"), "license": said("licence")}
    return {
        "Conventions": "CF-1.11",
        "title": "Land cover at 0.20 m",
        **{key: value for key, value in given.items() if value},
        "product_version": PRODUCT_VERSION,
        "domains": [dict(d) for d in domains],
    }


def _layer_attributes(layer: str, domains: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    # `coordinates` makes plain xarray attach the CRS to each layer, where rioxarray looks for it.
    place = {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref"}
    if layer == "landcover":
        flags = {
            "long_name": "land cover",
            "flag_values": [legend.NODATA, *(c.value for c in legend.FLAIR)],
            "flag_meanings": " ".join(["no_data", *(c.slug for c in legend.FLAIR)]),
            "flag_colors": " ".join(["#000000", *(c.colour for c in legend.FLAIR)]),
            "nodata": legend.NODATA,
        }
    elif layer == "confidence":
        flags = {"long_name": "255 × probability of the class; 0 is no data", "nodata": 0}
    else:
        flags = {
            "long_name": "domain that owns the pixel; see the group's table `domains`",
            "flag_values": [0, *(int(d["code"]) for d in domains)],
            "flag_meanings": " ".join(["nobody", *(str(d["name"]) for d in domains)]),
            "nodata": 0,
        }
    return place | flags


def _create_coordinates(root: Any, path: Path, grid: NationalGrid, linked_from: Path | None) -> None:
    """Pixel centres, float64 metres. Byte planes of an even ramp compress to a fortieth of what ZSTD alone gives."""
    centres = {
        "y": -(np.arange(grid.extent.row, grid.extent.bottom) + 0.5) / PIXELS_PER_M,
        "x": (np.arange(grid.extent.col, grid.extent.right) + 0.5) / PIXELS_PER_M,
    }
    for name, values in centres.items():
        array = root.create_array(
            name,
            shape=values.shape,
            chunks=(min(len(values), _COORDINATE_CHUNK),),
            dtype="float64",
            fill_value=float("nan"),
            compressors=[BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=8)],
            dimension_names=(name,),
            attributes={"standard_name": f"projection_{name}_coordinate", "units": "metre", "axis": name.upper()},
        )
        if linked_from is None:
            array[:] = values
            continue
        (path / name / "c").mkdir()
        for chunk in (linked_from / name / "c").iterdir():
            os.link(chunk, path / name / "c" / chunk.name)


def _create_scalar(root: Any, grid: NationalGrid) -> None:
    crs = pyproj.CRS.from_user_input(grid.crs)
    a, b, c, d, e, f = grid.extent.transform
    attributes = dict(crs.to_cf()) | {
        "spatial_ref": crs.to_wkt(),
        "GeoTransform": " ".join(repr(v) for v in (c, a, b, f, d, e)),
    }
    scalar = root.create_array(
        "spatial_ref",
        shape=(),
        dtype="int64",
        fill_value=0,
        dimension_names=(),
        attributes=attributes,
        config={"write_empty_chunks": True},
    )
    scalar[...] = crs.to_epsg()


def write_layer(path: Path, layer: str, index: Index, *, shard: int, pixels: NDArray[Any] | int) -> Path:
    """Writes one whole shard, also where all of it is 0; returns its file.

    Args:
        path: the Zarr.
        layer: one of `LAYERS`.
        index: (row, column) of the shard.
        shard: pixels a side.
        pixels: (y, x) of the layer's dtype, or one value for all.
    """
    array: Any = zarr.open_array(path / layer, mode="r+", zarr_format=3)
    rows, cols = (slice(i * shard, (i + 1) * shard) for i in index)
    array.with_config({"write_empty_chunks": True})[rows, cols] = pixels
    return path / layer / "c" / str(index[0]) / str(index[1])


def check_shards(edition: Edition, *, crs: str | None = None) -> list[str]:
    """What of an edition's store is lost: files that coverage or the record promise. Empty where none is.

    Zarr itself reads a lost file as fill values, that is, as no data.

    Args:
        edition: finished.
        crs: `EPSG:…` of the lattice that the store must have, where one is expected.
    """
    if crs is not None and edition.grid.crs != crs:
        return [f"{edition.store}: lies on a lattice in {edition.grid.crs}, expected {crs}; publish again"]
    problems = [
        f"{edition.store / name}: {there} of {chunks} chunks are there"
        for name, chunks in (("coverage", 1), ("x", _chunks(edition, 1)), ("y", _chunks(edition, 0)))
        if (there := sum(p.is_file() for p in (edition.store / name / "c").rglob("*"))) != chunks
    ]
    if problems:
        return problems
    coverage: Any = zarr.open_array(edition.store / "coverage", mode="r", zarr_format=3)
    tiles = [(int(i), int(j)) for i, j in np.argwhere(coverage[:] != OUTSIDE)]
    promised = {shard for tile in tiles for shard in edition.grid.shards_of(tile)} | edition.digests.keys()
    return [
        f"{edition.store / layer / 'c' / str(row) / str(col)}: shard is lost; publish again to write it"
        for layer in LAYERS
        for row, col in sorted(promised - present_shards(edition.store, layer))
    ]


def _chunks(edition: Edition, axis: int) -> int:
    return -(-edition.grid.extent.shape[axis] // _COORDINATE_CHUNK)


def open_national(national: Path, edition: int | None = None) -> xr.Dataset:
    """An edition, lazily and without Dask (its chunks are too many for one graph).

    The pointer to the current one is followed once, so that a later publish does not mix two editions.

    Args:
        national: the product's folder.
        edition: the number of a former one; None for the current one.

    Returns:
        `landcover`, `confidence`, `domain` (y, x), `coverage` (tile_y, tile_x); CRS in `spatial_ref`.

    Raises:
        ProductError: nothing was published there, there is no such edition, or a shard is lost.
    """
    found = current_edition(national) if edition is None else edition_of(national, edition)
    if found is None:
        raise ProductError(f"{national}: nothing was published there; run `landcover publish`")
    check_whole(found)
    opened: xr.Dataset = xr.open_zarr(found.store, chunks=None)
    return opened


def check_whole(edition: Edition) -> None:
    """Raises ProductError where `check_shards` finds something."""
    if problems := check_shards(edition):
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ProductError(f"{edition.path} is not whole: {shown}")
