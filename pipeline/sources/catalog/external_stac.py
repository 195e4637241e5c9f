"""Files of external STAC catalogs, static or behind an API, as if they had been found in a folder.

An item only says where files are. What they are is read from their names and headers, with the same checks as for files
in folders. Of the item itself only provider, licence, citation and days of acquisition are used.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urljoin, urlsplit

import pystac

from pipeline.errors import CatalogError
from pipeline.sources.catalog.reader import INVALID_STAC, acquired_of, interval
from pipeline.sources.delivery.acquisition_dates import Days
from pipeline.sources.delivery.attribution import Origin
from pipeline.sources.delivery.names import RASTER_SUFFIXES, DeliveredFile, Kind, parse_name
from pipeline.sources.http_client import HEADERS_VARIABLE, auth_headers, fetch, origin
from pipeline.sources.http_path import WebPath
from pipeline.untrusted.limits import StacBudget

_KINDS: tuple[Kind, ...] = ("rvb", "irc", "height", "dsm", "dtm")
_IMAGERY_KINDS: tuple[Kind, ...] = ("rvb", "irc", "height")
_MAX_DEPTH = 16
"""Catalogs below catalogs. A longer chain counts as a loop."""
_ITEM_SEARCH = "item-search"


@dataclass(frozen=True)
class Query:
    """Which items of a catalog are wanted."""

    collections: tuple[str, ...] = ()
    """All collections where empty."""
    bbox: tuple[float, float, float, float] | None = None
    """(west, south, east, north) in degrees."""
    datetime: str | None = None
    """A day, or `start/end`, as STAC APIs take it."""


@dataclass
class CatalogFiles:
    """The files that the items of catalogs name."""

    delivered: dict[Path, DeliveredFile] = field(default_factory=dict)
    ignored: set[Path] = field(default_factory=set)
    """Rasters of unknown kind."""
    origins: list[Origin] = field(default_factory=list)
    days: dict[str, Days] = field(default_factory=dict)
    """Days of acquisition by the corner in a tile's name."""


def is_catalog(source: str) -> bool:
    """True for a URL or a JSON file; a folder is a delivery."""
    return is_web(source) or source.lower().endswith(".json")


def is_web(source: str) -> bool:
    """True for an http or https URL."""
    return source.lower().startswith(("http://", "https://"))


def add_catalog(files: CatalogFiles, source: str, query: Query) -> None:
    """Adds the files that the items of a catalog name; opens none of them.

    Args:
        files: of the catalogs before.
        source: URL of a STAC API, or URL or path of the JSON of a static catalog, collection or item.
        query: which of its items.

    Raises:
        CatalogError: it cannot be read, loops, has no matching items, or names files that may not be opened: outside
            its root, or with another URL scheme than its own.
    """
    given = source if is_web(source) else str(Path(source).absolute())
    count = 0
    for item in _items(given, query):
        count += 1
        _add_item(files, item, given)
    if not count:
        raise CatalogError(
            f"{source}: no items match {query}; check the collections, the bbox and the datetime, or leave them out"
        )


def _items(source: str, query: Query) -> Iterator[pystac.Item]:
    from pipeline.sources.catalog import stac_api

    budget = StacBudget(source)
    try:
        content = _read_json(source, budget)
        if any(_ITEM_SEARCH in uri for uri in content.get("conformsTo", ())):
            yield from stac_api.search(source, query, budget)
            return
        start, end = stac_api.parse_interval(query.datetime)
        yield from (i for i in _walk(source, content, budget, ()) if _matches(i, query, start, end))
    except INVALID_STAC as error:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise CatalogError(f"{source}: cannot be read as a STAC catalog: {cause[0][:300]}") from error


def _read_json(href: str, budget: StacBudget) -> dict[str, Any]:
    content = fetch(href, source=budget.source).body if is_web(href) else Path(href).read_bytes()
    budget.count_page(len(content))
    loaded: dict[str, Any] = json.loads(content)
    return loaded


def _walk(href: str, content: Mapping[str, Any], budget: StacBudget, above: tuple[str, ...]) -> Iterator[pystac.Item]:
    """Items of a static catalog and of those below it; each file is read when it is reached."""
    if href in above or len(above) > _MAX_DEPTH:
        raise CatalogError(f"{above[0]}: loops: {href} is reached again, or catalogs are nested over {_MAX_DEPTH} deep")
    kind = content.get("type")
    if kind == "Feature":
        budget.count_item()
        item = pystac.Item.from_dict(dict(content), href=href)
        item.set_self_href(href)
        yield item
        return
    if kind not in ("Catalog", "Collection"):
        raise CatalogError(f"{href}: is of type {kind!r}; expected a STAC Catalog, Collection or Feature")
    links = [str(link["href"]) for link in content["links"] if link["rel"] in ("child", "item")]
    for link in dict.fromkeys(links):
        below = _join(href, link)
        if is_web(below) != is_web(href) or (urlsplit(link).scheme and not is_web(link)):
            raise CatalogError(f"{href}: links to {link}; expected a link from file to file, or from URL to URL")
        yield from _walk(below, _read_json(below, budget), budget, (*above, href))


def _join(base: str, href: str) -> str:
    """The URL or absolute path of an href that is relative to the file `base`."""
    if is_web(base) or is_web(href):
        return urljoin(base, href)
    return os.path.normpath(os.path.join(os.path.dirname(base), href))  # noqa: PTH118, PTH120  (as hrefs join)


def _matches(item: pystac.Item, query: Query, start: datetime | None, end: datetime | None) -> bool:
    """True for an item of a static catalog that an API would return for the query."""
    if query.collections and item.collection_id not in query.collections:
        return False
    if query.bbox and item.bbox:
        west, south, east, north = query.bbox
        # A bbox with heights has them at positions 2 and 5.
        left, bottom, right, top = item.bbox if len(item.bbox) == 4 else (*item.bbox[:2], *item.bbox[3:5])
        if left > east or right < west or bottom > north or top < south:
            return False
    first, last = interval(item)
    return not ((start and last and last < start) or (end and first and first > end))


def _add_item(files: CatalogFiles, item: pystac.Item, source: str) -> None:
    where = item.get_self_href() or source
    for key, asset in sorted(item.assets.items()):
        path = _allowed_path(asset.href, item=where, source=source)
        if path.suffix.lower() not in RASTER_SUFFIXES:
            continue
        if delivered := parse_name(path) or _from_properties(path, key, asset, item):
            files.delivered.setdefault(path, delivered)
        else:
            files.ignored.add(path)
    files.origins.append(_origin_of(item))
    tile, days = str(item.properties.get("landcover:tile", "")), acquired_of(item)
    if tile and days:
        files.days[tile] = days


def _from_properties(path: Path, key: str, asset: pystac.Asset, item: pystac.Item) -> DeliveredFile | None:
    """What a file is by the properties of an item that `index` wrote."""
    kind = asset.extra_fields.get("landcover:kind", key)
    tile = item.properties.get("landcover:tile") if kind in _IMAGERY_KINDS else None
    if kind not in _KINDS or (kind in _IMAGERY_KINDS and not tile):
        return None
    return DeliveredFile(cast("Kind", kind), path, None, None, tile)


def _allowed_path(href: str, *, item: str, source: str) -> Path:
    """The file of an asset's href, if it may be opened.

    A relative href may lead out of the catalog's folder to a folder beside it, where our own catalogs have their
    deliveries, but no further.

    Raises:
        CatalogError: it leaves the root, or has a URL scheme that a file of this catalog may not have.
    """
    scheme = urlsplit(href).scheme.lower()
    web = is_web(source)
    if scheme and scheme not in ({"http", "https"} if web else {"file"}):
        expected = "http, https or a relative path" if web else "a path"
        raise CatalogError(f"{item}: asset {href!r} has the scheme {scheme!r}; expected {expected}")
    if web:
        return _allowed_web_path(href, item=item, source=source)
    plain = unquote(urlsplit(href).path) if scheme else href
    path, root = Path(_join(item, plain)), Path(source).parent.parent
    if not plain.startswith("/") and not path.is_relative_to(root):
        raise CatalogError(f"{item}: asset {href!r} leaves the catalog's root {root}; expected a file below it")
    if path.parts[1:2] and path.parts[1].startswith("vsi"):
        raise CatalogError(f"{item}: asset {href!r} is one of GDAL's virtual files; expected a plain file")
    return path


def _allowed_web_path(href: str, *, item: str, source: str) -> Path:
    url = urljoin(item, href)
    # GDAL reads assets, and sends the credentials to every host.
    if auth_headers() and origin(url) != origin(source):
        raise CatalogError(
            f"{item}: asset {href!r} is on another host than {origin(source)}; refused while {HEADERS_VARIABLE} is "
            "set, because its credentials would go there"
        )
    climbs = os.path.normpath(href).split("/").count("..")
    depth = len([p for p in urlsplit(item).path.split("/")[:-1] if p])
    if not urlsplit(href).scheme and climbs > depth:
        raise CatalogError(
            f"{item}: asset {href!r} leaves the catalog's root {origin(source)}; expected a file below it"
        )
    return WebPath.at(url)


def _origin_of(item: pystac.Item) -> Origin:
    properties = item.properties
    names = [str(p["name"]) for p in properties.get("providers", ()) if "producer" in p.get("roles", ("producer",))]
    return Origin(
        str(properties.get("landcover:attribution") or ", ".join(names)),
        str(properties.get("license", "")),
        str(properties.get("sci:citation", "")),
        str(properties.get("sci:doi", "")),
    )
