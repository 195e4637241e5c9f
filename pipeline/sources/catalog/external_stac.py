"""Files of ready STAC catalogues, static or behind an API, as if they had been found in a folder.

An item only says where files are. What they are is read from their names and headers, with the checks
that files in folders pass; nothing else of an item is believed but its provider, licence, citation and days.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urljoin, urlsplit

import pystac
from pystac.utils import str_to_datetime
from pystac_client import Client, ItemSearch
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from pipeline.errors import CatalogError
from pipeline.sources.catalog.stac_items import acquired_of, interval
from pipeline.sources.catalog.stac_query import Query, is_web
from pipeline.sources.delivery.attribution import Days, Origin
from pipeline.sources.delivery.names import RASTER_SUFFIXES, Delivered, Kind, parse
from pipeline.sources.http_path import HEADERS_VARIABLE, WebPath, auth_headers, origin

_KINDS: tuple[Kind, ...] = ("rvb", "irc", "height", "dsm", "dtm")
_DEPTH = 16
"""Catalogues below catalogues; a chain that goes deeper is taken for one without end."""
_TIMEOUT_S = 60.0
_ITEM_SEARCH = "item-search"

_UNREADABLE = (APIError, pystac.STACError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""What pystac and pystac-client raise on what is no STAC, or where nothing answers."""


@dataclass
class Adopted:
    """What a catalogue's items name."""

    delivered: dict[Path, Delivered] = field(default_factory=dict)
    ignored: set[Path] = field(default_factory=set)
    origins: list[Origin] = field(default_factory=list)
    days: dict[str, Days] = field(default_factory=dict)
    """By the corner in a tile's name."""


def adopt(source: str, query: Query) -> Adopted:
    """The files that the items of a catalogue name; nothing of them is opened.

    Args:
        source: URL of a STAC API, or URL or path of a static catalogue's, collection's or item's JSON.
        query: which of its items.

    Raises:
        CatalogError: it cannot be read, loops, has no items that fit, or names files that may not be opened:
            out of its root, or under another scheme than its own.
    """
    given = source if is_web(source) else str(Path(source).absolute())
    found, seen = Adopted(), 0
    for item in _items(given, query):
        seen += 1
        _adopt_item(found, item, given)
    if not seen:
        raise CatalogError(f"{source}: no items that fit {query}; expected some of its collections, bbox or datetime")
    return found


class _Requests(StacApiIO):
    """pystac-client's reader; credentials of the environment go to no other host than the one that was given."""

    def __init__(self, source: str) -> None:
        super().__init__(headers=auth_headers(), timeout=_TIMEOUT_S, max_retries=2)
        self._origin = origin(source) if is_web(source) else None

    def request(self, href: str, *args: Any, **options: Any) -> str:
        if self._origin and auth_headers() and origin(href) != self._origin:
            raise CatalogError(
                f"{href}: a link that leaves {self._origin}; refused while {HEADERS_VARIABLE} is set, because its "
                "credentials would go there"
            )
        return super().request(href, *args, **options)


def _items(source: str, query: Query) -> Iterator[pystac.Item]:
    reader = _Requests(source)
    try:
        content = reader.read_json(source)
        conforms = content.get("conformsTo", ())
        if any(_ITEM_SEARCH in c for c in conforms):
            yield from _searched(source, query, reader)
            return
        wanted = _Wanted.of(query)
        yield from (item for item in _walked(source, content, reader, ()) if wanted.has(item))
    except _UNREADABLE as error:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise CatalogError(f"{source}: cannot be read as a STAC catalogue: {cause[0][:300]}") from error


def _searched(source: str, query: Query, reader: _Requests) -> Iterator[pystac.Item]:
    """Items of an API's search. Pages that come again would never end: an item that comes twice is an error."""
    client = Client.open(source, stac_io=reader)
    search = client.search(collections=list(query.collections) or None, bbox=query.bbox, datetime=query.datetime)
    seen: set[tuple[str, str]] = set()
    for page in search.pages_as_dicts():
        for feature in page["features"]:
            name = (str(feature.get("collection")), str(feature["id"]))
            if name in seen:
                raise CatalogError(f"{source}: loops: item {name[1]} of collection {name[0]} comes on two pages")
            seen.add(name)
            yield pystac.Item.from_dict(feature, preserve_dict=False)


def _walked(href: str, content: Mapping[str, Any], reader: _Requests, above: tuple[str, ...]) -> Iterator[pystac.Item]:
    """Items of a static catalogue and of those below it, read as they are reached."""
    if href in above or len(above) > _DEPTH:
        raise CatalogError(f"{above[0]}: loops: {href} is reached again, or catalogues lie over {_DEPTH} deep")
    kind = content.get("type")
    if kind == "Feature":
        item = pystac.Item.from_dict(dict(content), href=href)
        item.set_self_href(href)
        yield item
        return
    if kind not in ("Catalog", "Collection"):
        raise CatalogError(f"{href}: is of type {kind!r}; expected a STAC Catalog, Collection or Feature")
    links = [str(link["href"]) for link in content["links"] if link["rel"] in ("child", "item")]
    for link in dict.fromkeys(links):
        each = _joined(href, link)
        if is_web(each) != is_web(href) or (urlsplit(link).scheme and not is_web(link)):
            raise CatalogError(f"{href}: links to {link}; expected what lies where it does itself")
        yield from _walked(each, reader.read_json(each), reader, (*above, href))


def _joined(item: str, href: str) -> str:
    """A URL or an absolute path of an href that is meant from `item`."""
    if is_web(item) or is_web(href):
        return urljoin(item, href)
    return os.path.normpath(os.path.join(os.path.dirname(item), href))  # noqa: PTH118, PTH120  (as hrefs join)


@dataclass(frozen=True)
class _Wanted:
    """A query, for items that no API filters."""

    query: Query
    start: datetime | None
    end: datetime | None

    @classmethod
    def of(cls, query: Query) -> "_Wanted":
        if not query.datetime:
            return cls(query, None, None)
        # pystac-client writes `2021` and the like out as an interval; nothing is asked of the address.
        text = ItemSearch("http://localhost", datetime=query.datetime).get_parameters()["datetime"]
        parts = [None if p in ("", "..") else str_to_datetime(p) for p in str(text).split("/")]
        return cls(query, parts[0], parts[-1])

    def has(self, item: pystac.Item) -> bool:
        if self.query.collections and item.collection_id not in self.query.collections:
            return False
        if self.query.bbox and item.bbox:
            west, south, east, north = self.query.bbox
            own = item.bbox[:2] + item.bbox[-2:] if len(item.bbox) == 4 else item.bbox[:2] + item.bbox[3:5]
            if own[0] > east or own[2] < west or own[1] > north or own[3] < south:
                return False
        first, last = interval(item)
        return not ((self.start and last and last < self.start) or (self.end and first and first > self.end))


def _adopt_item(found: Adopted, item: pystac.Item, source: str) -> None:
    where = item.get_self_href() or source
    for key, asset in sorted(item.assets.items()):
        path = _place(asset.href, item=where, source=source)
        if path is None or path.suffix.lower() not in RASTER_SUFFIXES:
            continue
        if delivered := _delivered(path, key, asset, item):
            found.delivered.setdefault(path, delivered)
        else:
            found.ignored.add(path)
    found.origins.append(_origin(item))
    tile, days = str(item.properties.get("landcover:tile", "")), acquired_of(item)
    if tile and days:
        found.days[tile] = days


def _delivered(path: Path, key: str, asset: pystac.Asset, item: pystac.Item) -> Delivered | None:
    """By the file's name, else by what our own items say."""
    if by_name := parse(path):
        return by_name
    kind = asset.extra_fields.get("landcover:kind", key)
    if kind not in _KINDS:
        return None
    tile = item.properties.get("landcover:tile") if kind in ("rvb", "irc", "height") else None
    if kind in ("rvb", "irc", "height") and not tile:
        return None
    return Delivered(cast("Kind", kind), path, None, None, tile)


def _place(href: str, *, item: str, source: str) -> Path | None:
    """The file of an href that may be opened.

    Relative hrefs may lead out of the catalogue's folder as far as beside it, where our own catalogues have their
    deliveries, and no further.

    Raises:
        CatalogError: it leaves the root, or has another scheme than a file beside its catalogue may have.
    """
    scheme = urlsplit(href).scheme.lower()
    web = is_web(source)
    if scheme and scheme not in ({"http", "https"} if web else {"file"}):
        expected = "http, https or a relative path" if web else "a path"
        raise CatalogError(f"{item}: asset {href!r} has the scheme {scheme!r}; expected {expected}")
    if web:
        return _web_place(href, item=item, source=source)
    plain = unquote(urlsplit(href).path) if scheme else href
    absolute = plain.startswith("/")
    path = Path(_joined(item, plain))
    root = Path(source).parent.parent
    if not absolute and not path.is_relative_to(root):
        raise CatalogError(f"{item}: asset {href!r} leaves the catalogue's root {root}; expected a file below it")
    if path.parts[1:2] and path.parts[1].startswith("vsi"):
        raise CatalogError(f"{item}: asset {href!r} is one of GDAL's virtual files; expected a plain file")
    return path


def _web_place(href: str, *, item: str, source: str) -> Path:
    url = urljoin(item, href)
    if auth_headers() and origin(url) != origin(source):
        raise CatalogError(
            f"{item}: asset {href!r} is on another host than {origin(source)}; refused while {HEADERS_VARIABLE} is "
            "set, because its credentials would go there"
        )
    climbs = os.path.normpath(href).split("/").count("..")
    depth = len([p for p in urlsplit(item).path.split("/")[:-1] if p])
    if not urlsplit(href).scheme and climbs > depth:
        raise CatalogError(
            f"{item}: asset {href!r} leaves the catalogue's root {origin(source)}; expected a file below it"
        )
    return WebPath.at(url)


def _origin(item: pystac.Item) -> Origin:
    properties = item.properties
    names = [str(p["name"]) for p in properties.get("providers", ()) if "producer" in p.get("roles", ("producer",))]
    return Origin(
        str(properties.get("landcover:attribution") or ", ".join(names)),
        str(properties.get("license", "")),
        str(properties.get("sci:citation", "")),
        str(properties.get("sci:doi", "")),
    )
