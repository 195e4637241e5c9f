"""The input catalogue's files: items first, the collection that names them after, then the catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pystac

from pipeline.durable import sync, write_json
from pipeline.errors import CatalogError
from pipeline.sources.catalog.stac_items import item_of, provenance, span
from pipeline.sources.delivery.attribution import About
from pipeline.sources.domain_inputs import InputTile
from pipeline.sources.staging.height_cog import Holes


@dataclass(frozen=True)
class Described:
    """A tile, and what its item says beside its files."""

    tile: InputTile
    notes: tuple[str, ...]
    """What was found and handled, a sentence each."""
    holes: Holes | None = None
    """Of its staged height."""


def write_domain(root: Path, about: About, described: Sequence[Described]) -> None:
    """Writes a domain's part of the catalogue at `root`; an item that it no longer names goes.

    Raises:
        StorageError: a file cannot be written; the former part stands until its collection is replaced.
        CatalogError: old items cannot be removed.
    """
    folder = root / about.domain
    items = [
        item_of(
            each.tile,
            about=about,
            path=folder / f"{about.domain}-{each.tile.tile.name}.json",
            near=root.parent,
            notes=each.notes,
            holes=each.holes,
        )
        for each in described
    ]
    catalog = _catalog_of(root, without=about.domain)
    collection = _collection_of(about, items, described)
    catalog.add_child(collection)
    # add_child and add_item lay files out their own way; ours is set again.
    collection.set_self_href(str(folder / "collection.json"))
    for item in items:
        href = item.get_self_href()
        collection.add_item(item)
        item.set_self_href(href)
        write_json(folder / f"{item.id}.json", item.to_dict(include_self_link=False), indent=None)
    write_json(folder / "collection.json", collection.to_dict(include_self_link=False), indent=None)
    _drop_stale(folder, keep={f"{item.id}.json" for item in items})
    write_json(root / "catalog.json", catalog.to_dict(include_self_link=False))


def _catalog_of(root: Path, without: str) -> pystac.Catalog:
    """The catalogue with its domains but one; made anew from the folders, which are what counts."""
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


def _collection_of(about: About, items: Sequence[pystac.Item], described: Sequence[Described]) -> pystac.Collection:
    boxes = [item.bbox for item in items if item.bbox]
    west, south, east, north = zip(*boxes, strict=True)
    spans = [span(each.tile.acquired, about.year) for each in described]
    fields = provenance(about.origin)
    providers = fields.pop("providers", [])
    collection = pystac.Collection(
        about.domain,
        f"Tiles of {about.domain} as delivered: imagery, and elevation where there is any",
        extent=pystac.Extent(
            pystac.SpatialExtent([[min(west), min(south), max(east), max(north)]]),
            pystac.TemporalExtent([[min(s[0] for s in spans), max(s[2] for s in spans)]]),
        ),
        license=fields.pop("license", "other"),
        providers=[pystac.Provider.from_dict(p) for p in providers],
        extra_fields=fields
        | {
            "landcover:domain": about.domain,
            "landcover:crs": about.crs,
            "landcover:accepted_limits": list(about.limits),
        },
    )
    if about.acquired:
        collection.extra_fields["landcover:acquired"] = [day.isoformat() for day in about.acquired]
    return collection


def _drop_stale(folder: Path, keep: set[str]) -> None:
    """Removes items of tiles that the domain no longer has."""
    try:
        for path in folder.glob(f"{folder.name}-*.json"):
            if path.name not in keep:
                path.unlink()
        sync(folder)
    except OSError as error:
        raise CatalogError(f"{folder}: old items cannot be removed: {error.strerror}") from error
