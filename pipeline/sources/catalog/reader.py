"""Reads a domain back from the input catalog, from its STAC items to plain values. Opens no raster."""

import datetime as dt
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pystac

from pipeline.domain import Domain
from pipeline.errors import CatalogError
from pipeline.grid import CRS, PIXELS_PER_M, Tile, union
from pipeline.sources.delivery.acquisition_dates import Days
from pipeline.sources.delivery.attribution import DomainDescription, Origin
from pipeline.sources.domain_inputs import Asset, DomainInputs, Fill, InputTile
from pipeline.sources.http_path import WebPath

INVALID_STAC = (pystac.STACError, pystac.STACTypeError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""What the json module, pystac and our HTTP client raise on a file that is not STAC, or that cannot be read."""

ASSET_FIELDS = {
    "data_type": "dtype",
    "file:size": "size",
    "proj:shape": "shape",
    "proj:transform": "transform",
    "landcover:kind": "kind",
    "landcover:signature": "signature",
    "landcover:mtime_ns": "mtime_ns",
    "landcover:block": "block",
}
"""Field of an item's asset → attribute of `Asset`."""
_READERS = 16
"""Threads that wait for a shared file system."""


def read_description(catalog: Path, domain: Domain) -> DomainDescription:
    """What all items of a domain share; reads only the domain's collection.

    Args:
        catalog: the catalog's folder.
        domain: such as `D064_2021`.

    Raises:
        CatalogError: no catalog, or no such domain in it.
    """
    return _read_collection(catalog, domain)[1]


def read_domain(catalog: Path, domain: Domain, *, tile_size: int | None = None) -> DomainInputs:
    """Reads a domain's tiles and files from the input catalog; opens no raster.

    Args:
        catalog: the catalog's folder.
        domain: such as `D064_2021`.
        tile_size: side of the campaign's tiles in pixels; by default that of the domain's first tile.

    Raises:
        CatalogError: no catalog, no such domain in it, or tiles of another size.

    Example:
        >>> inputs = read_domain(Path("catalog"), Domain("D064_2021"), tile_size=25_000)
    """
    collection, description = _read_collection(catalog, domain)
    tiles: list[InputTile] = []
    for item in _read_items(collection):
        tiles.append(_tile_of(item, tile_size=tile_size))
        tile_size = tiles[-1].tile.window.height
    if not tiles:
        raise CatalogError(f"{collection.self_href}: the domain has no tiles; index it again")
    return DomainInputs(
        domain,
        union([t.tile.window for t in tiles]),
        tuple(sorted(tiles, key=lambda t: t.tile.name)),
        crs=description.crs,
        origin=description.origin,
        acquired=description.acquired,
        limits=description.limits,
    )


def _read_collection(catalog: Path, domain: Domain) -> tuple[pystac.Collection, DomainDescription]:
    root = catalog.absolute()
    path = root / domain / "collection.json"
    if not path.is_file():
        known = sorted(p.parent.name for p in root.glob("*/collection.json"))
        if not known:
            raise CatalogError(f"{root}: not an input catalog; write one with `landcover index`")
        raise CatalogError(f"{root}: has no domain {domain!r}; it has {', '.join(known)}")
    try:
        collection = pystac.Collection.from_file(str(path))
        fields = collection.extra_fields
        origin = Origin(
            fields.get("landcover:attribution", ""),
            collection.license,
            fields.get("sci:citation", ""),
            fields.get("sci:doi", ""),
        )
        limits = tuple(fields.get("landcover:accepted_limits", ()))
        days = fields.get("landcover:acquired")
        acquired = (dt.date.fromisoformat(days[0]), dt.date.fromisoformat(days[1])) if days else None
        return collection, DomainDescription(domain, origin, fields.get("landcover:crs", CRS), limits, acquired)
    except INVALID_STAC as error:
        raise CatalogError(f"{path}: cannot be read as STAC: {error}; index the domain again") from error


def _read_items(collection: pystac.Collection) -> list[pystac.Item]:
    """The items that a domain's collection names, as `index` wrote them.

    pystac's own walk, which migrates old versions, is ten times slower: minutes for a nation.

    Raises:
        CatalogError: an item is missing or damaged.
    """
    paths = [Path(link.get_absolute_href() or link.href) for link in collection.get_item_links()]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(_read_item, paths))


def _read_item(path: Path) -> pystac.Item:
    try:
        return pystac.Item.from_dict(json.loads(path.read_bytes()), href=str(path), preserve_dict=False)
    except INVALID_STAC as error:
        raise CatalogError(f"{path}: cannot be read as a STAC item: {error}; index the domain again") from error


def _tile_of(item: pystac.Item, *, tile_size: int | None) -> InputTile:
    """The tile that an item describes; opens no raster. A `tile_size` of None accepts the item's own.

    Raises:
        CatalogError: the item has another tile size, or was not written by `index`.
    """
    where = item.get_self_href() or item.id
    try:
        name, shape = item.properties["landcover:tile"], tuple(item.properties["proj:shape"])
        fill = tuple(Fill(f["value"], _tuples(f["geometry"]["coordinates"])) for f in item.properties["landcover:fill"])
        assets = tuple(sorted((_asset(a) for a in item.assets.values()), key=lambda a: (a.kind, a.path)))
        holes = item.properties.get("landcover:height_holes")
        hole_share = None if holes is None else float(holes["share"])
        acquired = acquired_of(item)
    except (KeyError, TypeError, ValueError) as error:
        raise CatalogError(
            f"{where}: is not an item of an input tile: {type(error).__name__} {error}; index the domain again"
        ) from error
    tile_size = tile_size or shape[0]
    if shape != (tile_size, tile_size):
        raise CatalogError(
            f"{where}: tile {name} has {shape[0]} × {shape[1]} px; expected grid.tile = {tile_size}: "
            f"set the campaign's tile to {shape[0]} (a command without a campaign takes `--tile-m "
            f"{shape[0] / PIXELS_PER_M:g}`), or index a delivery of tiles of {tile_size} px"
        )
    return InputTile(Tile.named(name, tile_size), assets, fill, acquired, hole_share)


def interval(item: pystac.Item) -> tuple[dt.datetime | None, dt.datetime | None]:
    """First and last moment of an item."""
    common = item.common_metadata
    return common.start_datetime or item.datetime, common.end_datetime or item.datetime


def acquired_of(item: pystac.Item) -> Days | None:
    """Days of acquisition from our own items; None where only the vintage is known."""
    start, end = interval(item) if item.properties.get("landcover:acquired") else (None, None)
    return (start.date(), end.date()) if start and end else None


def _asset(asset: pystac.Asset) -> Asset:
    fields: dict[str, Any] = {name: _tuples(asset.extra_fields[field]) for field, name in ASSET_FIELDS.items()}
    nodata = asset.extra_fields.get("nodata")
    return Asset(path=_path(asset), nodata=None if nodata is None else str(nodata), **fields)


def _path(asset: pystac.Asset) -> Path:
    href = asset.get_absolute_href() or asset.href
    return WebPath.at(href) if href.startswith(("http://", "https://")) else Path(os.path.normpath(href))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
