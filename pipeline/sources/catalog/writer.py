"""Writes a domain's part of the input catalog: first its items, then their collection, then the catalog."""

import datetime as dt
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pystac
from pystac.layout import AsIsLayoutStrategy

from pipeline.durable import sync, write_json
from pipeline.errors import CatalogError
from pipeline.grid import RESOLUTION_M
from pipeline.sources.catalog.reader import ASSET_FIELDS
from pipeline.sources.delivery.acquisition_dates import Days
from pipeline.sources.delivery.attribution import DomainDescription
from pipeline.sources.domain_inputs import Asset, InputTile
from pipeline.sources.http_path import WebPath
from pipeline.sources.reading.openjpeg import Codestream
from pipeline.sources.staging.height_record import HeightHoles
from pipeline.stac_fields import extension_schemas, footprint, origin_fields, projection, time_span
from pipeline.untrusted.own_files import own_entries

_EXTENSIONS = extension_schemas("projection/v2.0.0", "file/v2.1.0", "scientific/v1.0.0")
_MEDIA = {
    ".jp2": "image/jp2",
    ".tif": "image/tiff; application=geotiff",
    ".tiff": "image/tiff; application=geotiff",
    ".asc": "text/plain",
}


@dataclass(frozen=True)
class TileDescription:
    """A tile, and what its item states beside its files."""

    tile: InputTile
    notes: tuple[str, ...]
    """What was found and handled, a sentence each."""
    holes: HeightHoles | None = None
    """Holes of its height, if `stage` wrote it."""


def write_domain(root: Path, domain: DomainDescription, tiles: Sequence[TileDescription]) -> None:
    """Writes a domain's part of the catalog, and removes items of tiles that it no longer has.

    Args:
        root: the catalog's folder.
        domain: what its items share.
        tiles: all of its tiles, at least one.

    Raises:
        StorageError: a file cannot be written; the former part remains until its collection is replaced.
        CatalogError: old items cannot be removed.
    """
    folder = root / domain.domain
    items = [_item_of(each, domain, folder=folder, near=root.parent) for each in tiles]
    catalog = _catalog_of(root, without=domain.domain)
    collection = _collection_of(domain, items)
    collection.set_self_href(str(folder / "collection.json"))
    catalog.add_child(collection)
    for item in items:
        collection.add_item(item)
        write_json(folder / f"{item.id}.json", item.to_dict(include_self_link=False), indent=None)
    write_json(folder / "collection.json", collection.to_dict(include_self_link=False), indent=None)
    _remove_stale_items(folder, keep={f"{item.id}.json" for item in items})
    write_json(root / "catalog.json", catalog.to_dict(include_self_link=False))


def _item_of(each: TileDescription, about: DomainDescription, *, folder: Path, near: Path) -> pystac.Item:
    """The STAC item of a tile that will lie in the domain's `folder` of the catalog.

    Files below `near` have relative hrefs, so that a catalog beside its delivery can move with it; others have absolute
    ones.
    """
    tile, holes = each.tile, each.holes
    start, middle, end = _span(tile.acquired, about.domain.year)
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
    fields: dict[str, Any] = {field: getattr(asset, name) for field, name in ASSET_FIELDS.items()}
    if asset.nodata is not None:
        fields["nodata"] = asset.nodata if asset.nodata in ("nan", "inf", "-inf") else float(asset.nodata)
    if asset.validity is not None:
        fields["landcover:validity"] = asset.validity.to_json()
    local_jp2 = asset.path.suffix.lower() == ".jp2" and not isinstance(asset.path, WebPath)
    if asset.kind == "irc" and local_jp2 and (codestream := Codestream.of(asset.path)):
        # Without one, the infrared is decoded alone.
        fields["landcover:colour_transform"] = codestream.colour_transform
    return pystac.Asset(href, media_type=_MEDIA.get(asset.path.suffix.lower()), roles=["data"], extra_fields=fields)


def _span(days: Days | None, year: int) -> tuple[dt.datetime, dt.datetime, dt.datetime]:
    """(start, middle, end) in UTC of days of acquisition, or of the vintage with 1 July where they are not known."""
    start, middle, end = time_span(days, year=year)
    return start, middle or dt.datetime(year, 7, 1, tzinfo=dt.UTC), end


def _catalog_of(root: Path, without: str) -> pystac.Catalog:
    """The catalog with all domains that have a folder, except one."""
    catalog = pystac.Catalog(
        "landcover-inputs",
        "Imagery and elevation of BD ORTHO deliveries, one item a tile",
        catalog_type=pystac.CatalogType.SELF_CONTAINED,
        strategy=AsIsLayoutStrategy(),
    )
    catalog.set_self_href(str(root / "catalog.json"))
    for path in sorted(root.glob("*/collection.json")):
        if path.parent.name == without:
            continue
        catalog.add_link(pystac.Link(pystac.RelType.CHILD, str(path), pystac.MediaType.JSON, title=path.parent.name))
    return catalog


def _collection_of(domain: DomainDescription, items: Sequence[pystac.Item]) -> pystac.Collection:
    fields = origin_fields(**asdict(domain.origin))
    providers = fields.pop("providers", [])
    collection = pystac.Collection(
        domain.domain,
        f"Tiles of {domain.domain} as delivered: imagery, and elevation where there is any",
        extent=pystac.Extent.from_items(items),
        license=fields.pop("license", "other"),
        providers=[pystac.Provider.from_dict(p) for p in providers],
        extra_fields=fields
        | {
            "landcover:domain": domain.domain,
            "landcover:crs": domain.crs,
            "landcover:accepted_limits": list(domain.limits),
        },
    )
    if domain.acquired:
        collection.extra_fields["landcover:acquired"] = [day.isoformat() for day in domain.acquired]
    return collection


def _remove_stale_items(folder: Path, keep: set[str]) -> None:
    """Removes items of tiles that the domain no longer has."""
    try:
        for path in own_entries(folder, pattern=rf"{re.escape(folder.name)}-[0-9]+-[0-9]+\.json", kind="file"):
            if path.name not in keep:
                path.unlink()
        sync(folder)
    except OSError as error:
        raise CatalogError(f"{folder}: old items cannot be removed: {error.strerror}; check its permissions") from error
