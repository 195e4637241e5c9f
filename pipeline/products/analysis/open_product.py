"""`open_product`: the national product, a former edition or a domain as an xarray Dataset; the only opener of products.

Zarr itself reads a lost file as no data, so every file that an edition's record promises is looked for first. A small
product is on Dask, in chunks of `BLOCK` pixels a side. A large one is lazy without Dask: the nation at 0.20 m has a
million blocks a layer, whose graph takes longer to build than most results take to compute. `.cover.clip` cuts a part
and puts it on Dask.
"""

import math
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401 (registers .rio, which users write with)
import xarray as xr
from numpy.typing import NDArray
from odc.geo.xr import xr_coords

from pipeline.domain import Domain
from pipeline.errors import MALFORMED, ProductError, product_error
from pipeline.grid import Window, union
from pipeline.legend import LAYERS
from pipeline.products.analysis.accessor import register_cover
from pipeline.products.analysis.lazy_zarr import open_group
from pipeline.products.analysis.remote_store import ADDRESS, EditionStore, open_store
from pipeline.products.national.edition_record import REPAIR, Edition, current_edition, edition_of, read_edition
from pipeline.products.national.generalised.layer import (
    GENERALISED_FOLDER,
    GENERALISED_LAYERS,
    LAYER_STORE,
    REMAKE,
    read_layer,
)
from pipeline.products.national.grid import NationalGrid, lost_files
from pipeline.products.national.pyramid.downsample import CLASSES
from pipeline.products.national.pyramid.levels import FACTORS, SHARES, groups, overview_groups, pyramid_of
from pipeline.products.national.pyramid.store import all_groups, check_pyramid, lost_parts
from pipeline.products.national.zarr_metadata import Frame
from pipeline.products.national.zarr_store import check_whole, flags_of, refuse
from pipeline.products.tile.cog import open_cog
from pipeline.products.tile.seal import list_sealed
from pipeline.products.tile.stac_item import reading_item
from pipeline.untrusted.documents import read_json

Level = int | str
"""1..7 (1, 2, 10, 50, 250 m, 1 and 5 km); `"shares"`, the classes in cells of 100 m; `"generalised"`, the generalised
map at 0.20 m, or `"generalised/1"` to `"generalised/7"`."""

BLOCK = 5_000
"""Pixels a side of a Dask chunk: 1 km of level 0, 25 MB a layer."""
_MOST_CHUNKS = 10_000
"""Blocks of a layer, at most, that are put on Dask; building a larger graph takes seconds."""
_TILES_A_CHUNK = 10
"""Tiles a side of one Dask chunk of shares: 20 MB, and some 500 chunks of the nation."""


def open_product(path: Path | str, edition: int | None = None, level: Level | None = None) -> xr.Dataset:
    """Opens a product lazily: the nation, one of its former editions or a domain, at full or at coarser resolution.

    Args:
        path: the national folder, an edition's folder, or a domain's folder of COGs; or the address of one of the
            first two on a web server or in a bucket, `https://…` (with the extra `remote`) or `s3://…` (with s3fs).
        edition: number of an edition of the national product; None for the current one.
        level: None for 0.20 m, or one of the coarser levels of a national product: 1..7 (1, 2, 10, 50, 250 m, 1 and
            5 km), `"shares"` for the classes in cells of 100 m, or `"generalised"` for the map that `landcover
            generalise` made: `landcover` alone, at 0.20 m, and with `"generalised/3"` at level 3.

    Returns:
        `landcover` and `confidence` uint8 (y, x); of a nation at 0.20 m also `domain` and `coverage`. `landcover` names
        its classes and colours as CF does (`flag_values`, `flag_meanings`, `flag_colors`); the CRS is in
        `spatial_ref`. On Dask where a layer has no more than 10 000 blocks. `ds.cover` plots, selects, clips, and
        answers in hectares.

        Of `"shares"`, on Dask: `count` uint32 (class, y, x), exact; `share` float32 (class, y, x), 0..1, derived from
        it: over the classes, no data (0) among them, a cell's shares sum to 1; where no tile was delivered all are 0.

    Raises:
        ProductError: there is no product, edition or level, or one of its files is lost.

    Examples:
        >>> level = open_product("build/demo/national", level=1)  # 1 m
        >>> float(level.x[1] - level.x[0])
        1.0
    """
    register_cover()
    if ADDRESS.match(str(path)):
        return _open_remote(open_store(str(path), edition), level)
    folder = Path(path).absolute()
    if folder.is_file():
        raise ProductError(f'{folder}: is a file; `pipeline.open_raster(FILE, bands=["landcover"])` opens a single map')
    if not folder.is_dir():
        raise ProductError(f"{folder}: no such folder; expected that of a national product, an edition or a domain")
    if (found := _edition(folder, edition)) is not None:
        return _open_edition(found, level)
    if edition is not None or level is not None:
        raise ProductError(f"{folder}: is not a national product, which alone has editions and levels")
    return _open_domain(folder)


def _edition(folder: Path, number: int | None) -> Edition | None:
    """The edition to open, or None where the folder is not of a nation."""
    if (folder / "edition.json").is_file():
        found = read_edition(folder)
        if number not in (None, found.number):
            raise ProductError(
                f"{folder}: is edition {found.number}, not {number}; open the national product's folder instead"
            )
        return found
    if not (folder / "current").is_symlink():
        return None
    return current_edition(folder) if number is None else edition_of(folder, number)


def _open_edition(edition: Edition, level: Level | None) -> xr.Dataset:
    if (part := _generalised(level)) is not None:
        return _open_generalised(edition, part)
    pyramid = pyramid_of(edition.path)
    levels = all_groups(pyramid, edition.grid)
    if level is not None and str(level) not in levels:
        raise _no_level(str(edition.path), level, levels, edition.grid)
    check_whole(edition)
    counted = level is not None or pyramid.is_dir()
    if counted:
        refuse(edition, check_pyramid(edition))
    store = edition.store if level is None else pyramid
    with product_error(f"{store / 'zarr.json'}: zarr cannot open the store; {REPAIR}", *MALFORMED):
        if level is None:
            shares = pyramid / SHARES if counted and SHARES in levels else None
            return _named(_on_dask(open_group(edition.store)), edition.path.name, shares=shares, edition=edition)
        if level == SHARES:
            opened = _with_shares(open_group(pyramid, SHARES), side=edition.grid.tile // FACTORS[SHARES])
        else:
            opened = _on_dask(open_group(pyramid, str(level)))
    return _named(opened, f"{edition.path.name}, level {level}", shares=None, edition=edition)


def _generalised(level: Level | None) -> str | None:
    """The level of a generalised map that is meant, empty for 0.20 m; None where the map itself is meant."""
    name, _, part = str(level).partition("/")
    return part if name == "generalised" else None


def _open_generalised(edition: Edition, part: str) -> xr.Dataset:
    layer, title = read_layer(edition.path), f"{edition.path.name}, generalised"
    if layer is None:
        raise ProductError(f"{edition.path}: has no generalised map; `landcover generalise` makes it")
    store, pyramid = layer.folder / LAYER_STORE, pyramid_of(layer.folder)
    refuse(edition, lost_files([store / "landcover" / "c"], edition.digests))
    if part:
        levels = all_groups(pyramid, edition.grid, GENERALISED_LAYERS) if pyramid.is_dir() else {}
        if part not in levels:
            raise _no_level(str(layer.folder), part, levels, edition.grid)
        tiles = edition.grid.tiles_of(edition.digests)
        refuse(edition, lost_parts(pyramid, edition.grid, tiles, GENERALISED_LAYERS))
        store, title = pyramid, f"{title}, level {part}"
    with product_error(f"{store / 'zarr.json'}: zarr cannot open the store; {REMAKE}", *MALFORMED):
        return _named(_on_dask(open_group(store, part)), title, shares=None)


def _open_remote(store: EditionStore, level: Level | None) -> xr.Dataset:
    """An edition elsewhere, whose files are looked for when they are read."""
    grid, title = store.edition.grid, f"{store.edition.number:06d}"
    if (part := _generalised(level)) is not None:
        levels = groups(grid, GENERALISED_LAYERS) | overview_groups(grid)
        if part and part not in levels:
            raise _no_level(f"{store}/{GENERALISED_FOLDER}", part, levels, grid)
        place = f"{GENERALISED_FOLDER}/{pyramid_of(Path()).name if part else LAYER_STORE}"
        with product_error(f"{store}/{place}: there is no such map, or zarr cannot open it; {REMAKE}", *MALFORMED):
            return _named(_on_dask(open_group(store.below(place), part)), f"{title}, {level}", shares=None)
    levels = groups(grid) | overview_groups(grid)
    if level is not None and str(level) not in levels:
        raise _no_level(str(store), level, levels, grid)
    with product_error(f"{store}/zarr.json: zarr cannot open the edition; `landcover publish` makes one", *MALFORMED):
        if level is None:
            return _named(_on_dask(open_group(store, store.edition.store.name)), title, shares=None)
        group = f"{pyramid_of(store.edition.path).name}/{level}"
        if level == SHARES:
            opened = _with_shares(open_group(store, group), side=grid.tile // FACTORS[SHARES])
        else:
            opened = _on_dask(open_group(store, group))
    return _named(opened, f"{title}, level {level}", shares=None)


def _no_level(where: str, level: Level, levels: Iterable[str], grid: NationalGrid) -> ProductError:
    return ProductError(
        f"{where}: has no level {level}; expected None (0.20 m) or one of {', '.join(levels)}, whose cells divide its "
        f"tiles of {grid.tile} px"
    )


def _on_dask(opened: xr.Dataset) -> xr.Dataset:
    """In chunks where a graph of them is small enough."""
    blocks = math.prod(-(-opened.sizes[axis] // BLOCK) for axis in "yx")
    return opened.chunk({"y": BLOCK, "x": BLOCK}) if blocks <= _MOST_CHUNKS else opened


def _with_shares(counts: xr.Dataset, *, side: int) -> xr.Dataset:
    """`count` and `share`; `side` is a tile's, in cells."""
    chunks = {"class": CLASSES, "y": side * _TILES_A_CHUNK, "x": side * _TILES_A_CHUNK}
    opened = counts.chunk(chunks)
    share = (opened["count"] / np.float32(FACTORS[SHARES] ** 2)).astype(np.float32)
    # xarray moves `grid_mapping` from the attributes to the encoding, which a derived array does not inherit.
    share.encoding["grid_mapping"] = "spatial_ref"
    share.attrs = {"long_name": "share of the cell's area", "units": "1"}
    return opened.assign(share=share)


def _named(product: xr.Dataset, title: str, *, shares: Path | None, edition: Edition | None = None) -> xr.Dataset:
    named = product.assign_attrs(opened=title)
    if "landcover" in named:
        # A level has the same class names and colours as level 0.
        named["landcover"].attrs = flags_of("landcover") | named["landcover"].attrs
    named.cover.counted_in(shares)
    if edition is not None:
        named.cover.opened_from(edition.path)
    return named


def _open_domain(folder: Path) -> xr.Dataset:
    """The sealed tiles of a domain as one mosaic; 0 where there is no tile."""
    domain, size = _sealed_as(folder)
    sealed = list_sealed(folder, Domain(domain), size)
    if len({s.crs for s in sealed}) != 1:
        raise ProductError(f"{folder}: its tiles have several CRS; expected the tiles of one domain")
    window = union([s.tile.window for s in sealed])
    block = next(b for b in range(min(BLOCK, size), 0, -1) if size % b == 0)
    chunks = tuple((block,) * (length // block) for length in window.shape)
    files = {layer: {(s.tile.window.row, s.tile.window.col): s.file(layer).path for s in sealed} for layer in LAYERS}
    layers = {
        layer: (
            ("y", "x"),
            da.map_blocks(
                partial(_read_block, window=window, block=block, size=size, crs=sealed[0].crs, files=files[layer]),
                chunks=chunks,
                dtype=np.uint8,
                meta=np.empty((0, 0), np.uint8),
            ),
            flags_of(layer),
        )
        for layer in LAYERS
    }
    frame = Frame(window, sealed[0].crs)
    coords = xr_coords(frame.geobox, always_yx=True) | frame.centres
    product = xr.Dataset(layers, coords=coords, attrs={"title": f"Land cover of {domain} at 0.20 m"})
    return _named(product, domain, shares=None)


def _sealed_as(folder: Path) -> tuple[str, int]:
    """Domain and tile size from the folder's items."""
    items = sorted(folder.glob("*_*-*-*.json"))
    domains = sorted({path.name.partition("-")[0] for path in items})
    if len(domains) != 1:
        raise ProductError(
            f"{folder}: expected a national product (with `current`, from `landcover publish`), an edition (with "
            f"`edition.json`) or the sealed tiles of one domain; domains found: {', '.join(domains) or 'none'}"
        )
    with reading_item(items[0]):
        return domains[0], int(read_json(items[0])["properties"]["proj:shape"][0])


def _read_block(
    *,
    window: Window,
    block: int,
    size: int,
    crs: str,
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
    with open_cog(path) as cog:
        cog.check_place(Window(*corner, size, size), crs)
        return cog.read(Window(row - corner[0], col - corner[1], block, block))
