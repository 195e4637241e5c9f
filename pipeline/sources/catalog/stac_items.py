"""STAC items of input tiles: made from examined files, and read back as plain values."""

import datetime as dt
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pystac

from pipeline.errors import CatalogError
from pipeline.grid import PIXELS_PER_M, RESOLUTION_M, Tile
from pipeline.sources.delivery.acquisition_dates import Days
from pipeline.sources.delivery.attribution import DomainDescription, Origin
from pipeline.sources.domain_inputs import Asset, Fill, InputTile
from pipeline.sources.http_path import WebPath
from pipeline.sources.staging.height_record import HeightHoles
from pipeline.stac_fields import extension_schemas, footprint, origin_fields, projection, time_span

_EXTENSIONS = extension_schemas("projection/v2.0.0", "file/v2.1.0", "scientific/v1.0.0")
_MEDIA = {".jp2": "image/jp2", ".tif": "image/tiff; application=geotiff", ".asc": "text/plain"}
_READERS = 16
"""Threads that wait for a shared file system."""


def span(days: Days | None, year: int) -> tuple[dt.datetime, dt.datetime, dt.datetime]:
    """(start, middle, end) in UTC of days of acquisition, or of the vintage with 1 July where they are not known."""
    start, middle, end = time_span(days, year=year)
    return start, middle or dt.datetime(year, 7, 1, tzinfo=dt.UTC), end


def provenance(origin: Origin) -> dict[str, Any]:
    """STAC properties of an origin: licence, providers, citation; unknown ones are left out."""
    return origin_fields(
        licence=origin.licence, attribution=origin.attribution, citation=origin.citation, doi=origin.doi
    )


def item_of(
    tile: InputTile,
    *,
    about: DomainDescription,
    path: Path,
    near: Path,
    notes: Sequence[str],
    holes: HeightHoles | None,
) -> pystac.Item:
    """The STAC item of a tile that will lie at `path`.

    Files below `near` have relative hrefs, so that a catalog beside its delivery can move with it; others have absolute
    ones.
    """
    start, middle, end = span(tile.acquired, about.year)
    geometry, bbox = footprint(tile.tile.window, about.crs)
    item = pystac.Item(
        id=f"{about.domain}-{tile.tile.name}",
        geometry=geometry,
        bbox=bbox,
        datetime=middle,
        start_datetime=start,
        end_datetime=end,
        stac_extensions=list(_EXTENSIONS),
        properties=provenance(about.origin)
        | projection(tile.tile.window, about.crs)
        | {
            "gsd": RESOLUTION_M,
            "landcover:domain": about.domain,
            "landcover:tile": tile.tile.name,
            "landcover:acquired": tile.acquired is not None,
            "landcover:notes": list(notes),
            **({"landcover:height_holes": asdict(holes)} if holes else {}),
            "landcover:fill": [{"value": f.value, "geometry": f.geometry} for f in tile.fill],
        },
    )
    item.set_self_href(str(path))
    for asset in tile.assets:
        item.add_asset(_key(asset), _stac_asset(asset, path.parent, near))
    return item


def _key(asset: Asset) -> str:
    return f"{asset.kind}-{asset.path.name}" if asset.kind in ("dsm", "dtm") else asset.kind


def _stac_asset(asset: Asset, folder: Path, near: Path) -> pystac.Asset:
    if isinstance(asset.path, WebPath):
        href = asset.path.url
    else:
        below = asset.path.is_relative_to(near)
        href = Path(os.path.relpath(asset.path, folder)).as_posix() if below else asset.path.as_posix()
    fields: dict[str, Any] = {
        "data_type": asset.dtype,
        "file:size": asset.size,
        "proj:shape": list(asset.shape),
        "proj:transform": list(asset.transform),
        "landcover:kind": asset.kind,
        "landcover:signature": asset.signature,
        "landcover:mtime_ns": asset.mtime_ns,
        "landcover:block": list(asset.block),
    }
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


def tile_of(item: pystac.Item, *, tile_size: int | None) -> InputTile:
    """The tile that an item describes; opens no raster.

    Args:
        item: read from the input catalog.
        tile_size: the expected side in pixels; None accepts the item's own.

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
    return InputTile(Tile.named(name, tile_size), assets, fill, acquired_of(item), hole_share)


def interval(item: pystac.Item) -> tuple[dt.datetime | None, dt.datetime | None]:
    """First and last moment of an item."""
    common = item.common_metadata
    return common.start_datetime or item.datetime, common.end_datetime or item.datetime


def acquired_of(item: pystac.Item) -> Days | None:
    """Days of acquisition from our own items; None where only the vintage is known."""
    start, end = interval(item) if item.properties.get("landcover:acquired") else (None, None)
    return (start.date(), end.date()) if start and end else None


def _asset(asset: pystac.Asset) -> Asset:
    fields = asset.extra_fields
    nodata = fields.get("nodata")
    return Asset(
        kind=fields["landcover:kind"],
        path=_path(asset),
        signature=fields["landcover:signature"],
        size=fields["file:size"],
        mtime_ns=fields["landcover:mtime_ns"],
        transform=_tuples(fields["proj:transform"]),
        shape=_tuples(fields["proj:shape"]),
        dtype=fields["data_type"],
        block=_tuples(fields["landcover:block"]),
        nodata=None if nodata is None else str(nodata),
    )


def _path(asset: pystac.Asset) -> Path:
    href = asset.get_absolute_href() or asset.href
    return WebPath.at(href) if href.startswith(("http://", "https://")) else Path(os.path.normpath(href))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
