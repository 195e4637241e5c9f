"""Writes a domain's part of the input catalog: first its items, then their collection, then the catalog."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pystac

from pipeline.durable import sync, write_json
from pipeline.errors import CatalogError
from pipeline.sources.catalog.stac_items import TileDescription, item_of, span
from pipeline.sources.delivery.attribution import DomainDescription
from pipeline.stac_fields import origin_fields


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
    items = [item_of(each, domain, folder=folder, near=root.parent) for each in tiles]
    catalog = _catalog_of(root, without=domain.domain)
    collection = _collection_of(domain, items, tiles)
    catalog.add_child(collection)
    # add_child and add_item change the hrefs to pystac's own layout; these restore ours.
    collection.set_self_href(str(folder / "collection.json"))
    for item in items:
        href = item.get_self_href()
        collection.add_item(item)
        item.set_self_href(href)
        write_json(folder / f"{item.id}.json", item.to_dict(include_self_link=False), indent=None)
    write_json(folder / "collection.json", collection.to_dict(include_self_link=False), indent=None)
    _remove_stale_items(folder, keep={f"{item.id}.json" for item in items})
    write_json(root / "catalog.json", catalog.to_dict(include_self_link=False))


def _catalog_of(root: Path, without: str) -> pystac.Catalog:
    """The catalog with all domains that have a folder, except one."""
    catalog = pystac.Catalog(
        "landcover-inputs",
        "Imagery and elevation of BD ORTHO deliveries, one item a tile",
        catalog_type=pystac.CatalogType.SELF_CONTAINED,
    )
    catalog.set_self_href(str(root / "catalog.json"))
    for path in sorted(root.glob("*/collection.json")):
        if path.parent.name == without:
            continue
        catalog.add_link(pystac.Link(pystac.RelType.CHILD, str(path), pystac.MediaType.JSON, title=path.parent.name))
    return catalog


def _collection_of(
    domain: DomainDescription, items: Sequence[pystac.Item], tiles: Sequence[TileDescription]
) -> pystac.Collection:
    boxes = [item.bbox for item in items if item.bbox]
    west, south, east, north = zip(*boxes, strict=True)
    spans = [span(each.tile.acquired, domain.domain.year) for each in tiles]
    fields = origin_fields(**asdict(domain.origin))
    providers = fields.pop("providers", [])
    collection = pystac.Collection(
        domain.domain,
        f"Tiles of {domain.domain} as delivered: imagery, and elevation where there is any",
        extent=pystac.Extent(
            pystac.SpatialExtent([[min(west), min(south), max(east), max(north)]]),
            pystac.TemporalExtent([[min(s[0] for s in spans), max(s[2] for s in spans)]]),
        ),
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
        for path in folder.glob(f"{folder.name}-*.json"):
            if path.name not in keep:
                path.unlink()
        sync(folder)
    except OSError as error:
        raise CatalogError(f"{folder}: old items cannot be removed: {error.strerror}; check its permissions") from error
