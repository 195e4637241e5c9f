"""`open_product`: a nation, one of its editions, or a domain, as an xarray Dataset that knows its classes and colours.

A small product comes on Dask, one chunk a block of `BLOCK` pixels. A large one comes lazily without: the nation at
0.20 m has a million blocks a layer, and a graph of them takes longer to build than most questions to answer.
`.cover.clip` cuts what is asked about and puts that on Dask.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401 (registers .rio, which users write with)
import xarray as xr
from numpy.typing import NDArray
from odc.geo.xr import xr_coords

import pipeline.products.analysis.accessor  # noqa: F401 (registers .cover)
from pipeline.domain import Domain
from pipeline.errors import ProductError
from pipeline.grid import Tile, Window, union
from pipeline.legend import LAYERS
from pipeline.products.national.edition_record import Edition, read_edition
from pipeline.products.national.pyramid.store import check_pyramid
from pipeline.products.national.pyramid.tile_writer import SHARES, groups, pyramid_of
from pipeline.products.national.zarr_metadata import Frame
from pipeline.products.national.zarr_store import check_whole, find_edition, layer_attributes, refuse
from pipeline.products.tile.cog import read_cog
from pipeline.products.tile.seal import SealedTile, list_sealed

Level = int | Literal["shares"]

BLOCK = 5_000
"""Pixels a side of a Dask chunk: 1 km of level 0, 25 MB a layer."""
_MOST_CHUNKS = 10_000
"""Of a layer; above that a Dask graph takes seconds to build."""


def open_product(path: Path | str, edition: int | None = None, level: Level | None = None) -> xr.Dataset:
    """Opens a product for asking; nothing is read yet.

    Args:
        path: the national folder, an edition's folder, or a domain's folder of COGs.
        edition: number of an edition of the national folder; the current one by default.
        level: 0 (0.20 m, the default) or one of the pyramid's coarser levels, 1..4 (1, 2, 10, 50 m); `"shares"` is
            the pixel counts of each class in cells of 100 m.

    Returns:
        `landcover` and `confidence` uint8 (y, x), of a nation's level 0 also `domain` and `coverage`; of the shares
        `count` uint32 (class, y, x). `landcover` names its classes and colours as CF does (`flag_values`,
        `flag_meanings`, `flag_colors`); the CRS is in `spatial_ref`. On Dask where a layer has no more
        than 10 000 blocks.
        `ds.cover` plots, selects, clips, and answers in hectares.

    Raises:
        ProductError: no product there, no such edition or level, or something of it is lost.
    """
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise ProductError(f"{folder}: no folder; expected a national product, an edition, or a domain's folder")
    if (found := _edition(folder, edition)) is not None:
        return _open_edition(found, 0 if level is None else level)
    if edition is not None or level not in (None, 0):
        raise ProductError(
            f"{folder}: is no national product; editions and coarser levels come with `landcover publish`"
        )
    return _open_domain(folder)


def _edition(folder: Path, number: int | None) -> Edition | None:
    """The edition that is meant, or None where the folder is no nation's."""
    if (folder / "edition.json").is_file():
        found = read_edition(folder)
        if number not in (None, found.number):
            raise ProductError(f"{folder}: is edition {found.number}, and {number} was asked for; open the nation")
        return found
    return find_edition(folder, number) if (folder / "current").is_symlink() else None


def _open_edition(edition: Edition, level: Level) -> xr.Dataset:
    check_whole(edition)
    there = [str(name) for name in groups(edition.grid)] if pyramid_of(edition.path).is_dir() else []
    if there:
        refuse(edition, check_pyramid(edition))
    if level == 0:
        shares = pyramid_of(edition.path) / SHARES if SHARES in there else None
        return _named(_zarr(edition.store, None), edition.path.name, shares=shares)
    if str(level) not in there:
        raise ProductError(f"{edition.path}: has no level {level}; there are {', '.join(['0', *there])}")
    return _named(_zarr(pyramid_of(edition.path), str(level)), f"{edition.path.name}, level {level}", shares=None)


def _zarr(path: Path, group: str | None) -> xr.Dataset:
    opened: xr.Dataset = xr.open_zarr(path, group=group, chunks=None)
    layer = opened["count" if "count" in opened else "landcover"]
    if -(-layer.sizes["y"] // BLOCK) * -(-layer.sizes["x"] // BLOCK) <= _MOST_CHUNKS:
        opened = opened.chunk({"y": BLOCK, "x": BLOCK})
    return opened


def _named(product: xr.Dataset, title: str, *, shares: Path | None) -> xr.Dataset:
    named = product.assign_attrs(product.attrs | {"opened": title})
    if "landcover" in named:
        # A pyramid's level names its classes as level 0 does, whoever wrote it.
        named["landcover"].attrs = _flags("landcover") | named["landcover"].attrs
    named.cover.counted_in(shares)
    return named


def _flags(layer: str) -> dict[str, Any]:
    """A layer's attributes as the national store has them; where the CRS stands is for rioxarray to write."""
    given = layer_attributes(layer)
    return {k: v for k, v in given.items() if k not in ("grid_mapping", "coordinates")}


def _open_domain(folder: Path) -> xr.Dataset:
    """The sealed tiles of a domain as one mosaic; 0 where it has none."""
    domain, size = _sealed_as(folder)
    sealed = list_sealed(folder, Domain(domain), size)
    if len({s.crs for s in sealed}) != 1:
        raise ProductError(f"{folder}: its tiles have several CRS; expected the tiles of one domain")
    window = union([s.tile.window for s in sealed])
    block = next(b for b in range(min(BLOCK, size), 0, -1) if size % b == 0)
    chunks = tuple((block,) * (length // block) for length in window.shape)
    paths = {s.tile: s for s in sealed}
    read = partial(_read_block, window=window, block=block, size=size)
    layers = {
        layer: (
            ("y", "x"),
            da.map_blocks(
                partial(read, files=_files(paths, layer)),
                chunks=chunks,
                dtype=np.uint8,
                meta=np.empty((0, 0), np.uint8),
            ),
            _flags(layer),
        )
        for layer in LAYERS
    }
    frame = Frame(window, sealed[0].crs)
    coords = xr_coords(frame.geobox, always_yx=True) | frame.centres
    product = xr.Dataset(layers, coords=coords, attrs={"title": f"Land cover of {domain} at 0.20 m"})
    return _named(product, domain, shares=None)


def _sealed_as(folder: Path) -> tuple[str, int]:
    """Domain and tile size of the folder's items."""
    found: set[tuple[str, int]] = set()
    for path in folder.glob("*_*-*-*.json"):
        try:
            properties = json.loads(path.read_bytes())["properties"]
            found.add((str(properties["landcover:domain"]), int(properties["proj:shape"][0])))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ProductError(f"{path}: damaged item: {error}; remove it, and the tile is made again") from error
    if len(found) != 1:
        named = ", ".join(sorted(domain for domain, _ in found)) or "none"
        raise ProductError(
            f"{folder}: expected a national product (with `current`), an edition (with `edition.json`) or the sealed "
            f"tiles of one domain; domains found: {named}"
        )
    return found.pop()


def _files(sealed: Mapping[Tile, SealedTile], layer: str) -> dict[tuple[int, int], Path]:
    """(row, column) of a tile's corner on the lattice → its COG of a layer."""
    return {
        (tile.window.row, tile.window.col): next(f.path for f in one.files if f.path.stem.endswith(layer))
        for tile, one in sealed.items()
    }


def _read_block(
    *,
    window: Window,
    block: int,
    size: int,
    files: Mapping[tuple[int, int], Path],
    block_info: Mapping[Any, Any],
) -> NDArray[np.uint8]:
    """One Dask chunk of a domain, from its tile's COG."""
    down, right = (k * block for k in block_info[None]["chunk-location"])
    row, col = window.row + down, window.col + right
    corner = (window.row + down // size * size, window.col + right // size * size)
    path = files.get(corner)
    if path is None:
        return np.zeros((block, block), np.uint8)
    return read_cog(path, Window(row - corner[0], col - corner[1], block, block))
