"""STAC items of input tiles: made from examined files, and read back as plain values."""

import datetime as dt
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pystac

from pipeline.errors import CatalogError
from pipeline.grid import PIXELS_PER_M, RESOLUTION_M, Tile
from pipeline.sources.delivery.acquisition_dates import Days
from pipeline.sources.delivery.attribution import DomainDescription
from pipeline.sources.domain_inputs import Asset, Fill, InputTile
from pipeline.sources.http_path import WebPath
from pipeline.sources.staging.height_record import HeightHoles
from pipeline.stac_fields import extension_schemas, footprint, origin_fields, projection, time_span

_EXTENSIONS = extension_schemas("projection/v2.0.0", "file/v2.1.0", "scientific/v1.0.0")
_MEDIA = {".jp2": "image/jp2", ".tif": "image/tiff; application=geotiff", ".asc": "text/plain"}
_FIELDS = {
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


def span(days: Days | None, year: int) -> tuple[dt.datetime, dt.datetime, dt.datetime]:
    """(start, middle, end) in UTC of days of acquisition, or of the vintage with 1 July where they are not known."""
    start, middle, end = time_span(days, year=year)
    return start, middle or dt.datetime(year, 7, 1, tzinfo=dt.UTC), end


@dataclass(frozen=True)
class TileDescription:
    """A tile, and what its item states beside its files."""

    tile: InputTile
    notes: tuple[str, ...]
    """What was found and handled, a sentence each."""
    holes: HeightHoles | None = None
    """Holes of its height, if `stage` wrote it."""


def item_of(each: TileDescription, about: DomainDescription, *, folder: Path, near: Path) -> pystac.Item:
    """The STAC item of a tile that will lie in the domain's `folder` of the catalog.

    Files below `near` have relative hrefs, so that a catalog beside its delivery can move with it; others have absolute
    ones.
    """
    tile, holes = each.tile, each.holes
    start, middle, end = span(tile.acquired, about.domain.year)
    geometry, bbox = footprint(tile.tile.window, about.crs)
    item = pystac.Item(
        id=f"{about.domain}-{tile.tile.name}",
        geometry=geometry,
        bbox=bbox,
        datetime=middle,
        start_datetime=start,
        end_datetime=end,
        stac_extensions=list(_EXTENSIONS),
        properties=origin_fields(**asdict(about.origin))
        | projection(tile.tile.window, about.crs)
        | {
            "gsd": RESOLUTION_M,
            "landcover:domain": about.domain,
            "landcover:tile": tile.tile.name,
            "landcover:acquired": tile.acquired is not None,
            "landcover:notes": list(each.notes),
            **({"landcover:height_holes": asdict(holes)} if holes else {}),
            "landcover:fill": [{"value": f.value, "geometry": f.geometry} for f in tile.fill],
        },
    )
    item.set_self_href(str(folder / f"{item.id}.json"))
    for asset in tile.assets:
        item.add_asset(_key(asset), _stac_asset(asset, folder, near))
    return item


def _key(asset: Asset) -> str:
    return f"{asset.kind}-{asset.path.name}" if asset.kind in ("dsm", "dtm") else asset.kind


def _stac_asset(asset: Asset, folder: Path, near: Path) -> pystac.Asset:
    if isinstance(asset.path, WebPath):
        href = asset.path.url
    else:
        below = asset.path.is_relative_to(near)
        href = Path(os.path.relpath(asset.path, folder)).as_posix() if below else asset.path.as_posix()
    fields: dict[str, Any] = {field: getattr(asset, name) for field, name in _FIELDS.items()}
    if asset.nodata is not None:
        fields["nodata"] = asset.nodata if asset.nodata in ("nan", "inf", "-inf") else float(asset.nodata)
    return pystac.Asset(href, media_type=_MEDIA.get(asset.path.suffix.lower()), roles=["data"], extra_fields=fields)


def read_items(collection: pystac.Collection) -> list[pystac.Item]:
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pystac.STACError, pystac.STACTypeError) as error:
        raise CatalogError(f"{path}: cannot be read as a STAC item: {error}; index the domain again") from error


def tile_of(item: pystac.Item, *, tile_size: int) -> InputTile:
    """The tile that an item describes; opens no raster.

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
    fields: dict[str, Any] = {name: _tuples(asset.extra_fields[field]) for field, name in _FIELDS.items()}
    nodata = asset.extra_fields.get("nodata")
    return Asset(path=_path(asset), nodata=None if nodata is None else str(nodata), **fields)


def _path(asset: pystac.Asset) -> Path:
    href = asset.get_absolute_href() or asset.href
    return WebPath.at(href) if href.startswith(("http://", "https://")) else Path(os.path.normpath(href))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
