"""Reads a domain back from the input catalog, as plain values. Opens no raster."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pystac

from pipeline.domain import Domain
from pipeline.errors import CatalogError
from pipeline.grid import CRS, union
from pipeline.sources.catalog.stac_items import read_items, tile_of
from pipeline.sources.delivery.acquisition_dates import Days
from pipeline.sources.delivery.attribution import DomainDescription, Origin
from pipeline.sources.domain_inputs import DomainInputs

_UNREADABLE = (OSError, ValueError, KeyError, pystac.STACError, pystac.STACTypeError)


def read_description(catalog: Path, domain: Domain) -> DomainDescription:
    """What all items of a domain share; reads only the domain's collection.

    Args:
        catalog: the catalog's folder.
        domain: such as `D064_2021`.

    Raises:
        CatalogError: no catalog, or no such domain in it.
    """
    return _read_collection(catalog, domain)[1]


def read_domain(catalog: Path, domain: Domain, *, tile_size: int) -> DomainInputs:
    """Reads a domain's tiles and files from the input catalog; opens no raster.

    Args:
        catalog: the catalog's folder.
        domain: such as `D064_2021`.
        tile_size: side of the campaign's tiles in pixels.

    Raises:
        CatalogError: no catalog, no such domain in it, or tiles of another size.

    Example:
        >>> inputs = read_domain(Path("catalog"), Domain("D064_2021"), tile_size=25_000)
    """
    collection, description = _read_collection(catalog, domain)
    tiles = [tile_of(item, tile_size=tile_size) for item in read_items(collection)]
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
        acquired = _days(fields.get("landcover:acquired"))
        return collection, DomainDescription(domain, origin, fields.get("landcover:crs", CRS), limits, acquired)
    except _UNREADABLE as error:
        raise CatalogError(f"{path}: cannot be read as STAC: {error}; index the domain again") from error


def _days(given: Sequence[str] | None) -> Days | None:
    return (dt.date.fromisoformat(given[0]), dt.date.fromisoformat(given[1])) if given else None
