"""The input catalogue read back: what a domain is about, and all of it as plain values. Opens no raster."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pystac

from pipeline.domain import Domain
from pipeline.errors import CatalogError
from pipeline.grid import CRS, union
from pipeline.sources.catalog.stac_items import read_items, tile_of
from pipeline.sources.delivery.attribution import About, Days, Origin
from pipeline.sources.domain_inputs import DomainInputs

_UNREADABLE = (OSError, ValueError, KeyError, pystac.STACError)


def read_about(catalog: Path, domain: Domain) -> About:
    """What all items of a domain share; reads the domain's collection alone.

    Args:
        catalog: the catalogue's folder.
        domain: `D064_2021`.

    Raises:
        CatalogError: no catalogue, or no such domain (those there are, are listed).
    """
    path = _collection_path(catalog, domain)
    try:
        return _about(pystac.Collection.from_file(str(path)), domain)
    except _UNREADABLE as error:
        raise CatalogError(f"{path}: cannot be read as STAC: {error}; index the domain again") from error


def open_domain(catalog: Path, domain: Domain, *, tile_size: int) -> DomainInputs:
    """What the catalogue says about a domain; opens no raster.

    Args:
        catalog: the catalogue's folder.
        domain: `D064_2021`.
        tile_size: pixels of a tile's side that the campaign wants.

    Raises:
        CatalogError: no catalogue, no such domain (those there are, are listed), tiles of another size.
    """
    path = _collection_path(catalog, domain)
    try:
        collection = pystac.Collection.from_file(str(path))
        tiles = [tile_of(item, tile_size=tile_size) for item in read_items(collection)]
        about = _about(collection, domain)
    except _UNREADABLE as error:
        raise CatalogError(f"{path}: cannot be read as STAC: {error}; index the domain again") from error
    if not tiles:
        raise CatalogError(f"{path}: the domain has no tiles; index it again")
    return DomainInputs(
        domain,
        union([t.tile.window for t in tiles]),
        tuple(sorted(tiles, key=lambda t: t.tile.name)),
        crs=about.crs,
        origin=about.origin,
        acquired=about.acquired,
        limits=about.limits,
    )


def _collection_path(catalog: Path, domain: Domain) -> Path:
    root = catalog.absolute()
    path = root / domain / "collection.json"
    if not path.is_file():
        known = sorted(p.parent.name for p in root.glob("*/collection.json"))
        if not known:
            raise CatalogError(f"{root} is no input catalogue: write one with `landcover index`")
        raise CatalogError(f"{root} has no domain {domain!r}; it has {', '.join(known)}")
    return path


def _about(collection: pystac.Collection, domain: Domain) -> About:
    fields = collection.extra_fields
    origin = Origin(
        fields.get("landcover:attribution", ""),
        collection.license,
        fields.get("sci:citation", ""),
        fields.get("sci:doi", ""),
    )
    return About(
        domain,
        domain.year,
        origin,
        fields.get("landcover:crs", CRS),
        tuple(fields.get("landcover:accepted_limits", ())),
        _days(fields.get("landcover:acquired")),
    )


def _days(given: Sequence[str] | None) -> Days | None:
    return (dt.date.fromisoformat(given[0]), dt.date.fromisoformat(given[1])) if given else None
