"""Files of external STAC catalogs, static or behind an API, as if they had been found in a folder.

An item only says where files are. What they are is read from their names and headers, with the same checks as for files
in folders. Of the item itself only provider, licence, citation and days of acquisition are used.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urljoin, urlsplit

from pydantic import AfterValidator, Field

from pipeline.errors import MALFORMED, CatalogError
from pipeline.sources.delivery.acquisition_dates import Days
from pipeline.sources.delivery.attribution import Origin
from pipeline.sources.delivery.names import RASTER_SUFFIXES, DeliveredFile, Kind, parse_name
from pipeline.sources.http_client import HEADERS_VARIABLE, auth_headers, fetch, origin
from pipeline.sources.http_path import WebPath
from pipeline.untrusted.documents import Document, DocumentError, parse_model, read_bytes
from pipeline.untrusted.limits import StacBudget

_KINDS: tuple[Kind, ...] = ("rvb", "irc", "height", "dsm", "dtm")
_IMAGERY_KINDS: tuple[Kind, ...] = ("rvb", "irc", "height")
_MAX_DEPTH = 16
"""Catalogs below catalogs. A longer chain counts as a loop."""
_ITEM_SEARCH = "item-search"


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_Moment = Annotated[datetime, AfterValidator(_aware)]


class _Link(Document):
    rel: str
    href: str


class _Catalog(Document):
    """What is read of a catalog, a collection, or an API's first page."""

    type: str = ""
    links: tuple[_Link, ...] = ()
    conforms_to: tuple[str, ...] = Field(default=(), alias="conformsTo")


class _Asset(Document):
    href: Annotated[str, Field(pattern=r"^[^\x00]+$")]
    kind: str | None = Field(default=None, alias="landcover:kind")


class _Provider(Document):
    name: str
    roles: tuple[str, ...] = ("producer",)


class _Properties(Document):
    moment: _Moment | None = Field(default=None, alias="datetime")
    start: _Moment | None = Field(default=None, alias="start_datetime")
    end: _Moment | None = Field(default=None, alias="end_datetime")
    providers: tuple[_Provider, ...] = ()
    licence: str = Field(default="", alias="license")
    citation: str = Field(default="", alias="sci:citation")
    doi: str = Field(default="", alias="sci:doi")
    attribution: str = Field(default="", alias="landcover:attribution")
    tile: str = Field(default="", alias="landcover:tile")
    acquired: bool = Field(default=False, alias="landcover:acquired")


class ExternalItem(Document):
    """What is read of an item."""

    id: str
    collection: str | None = None
    bbox: tuple[float, float, float, float] | tuple[float, float, float, float, float, float] | None = None
    assets: dict[str, _Asset]
    properties: _Properties

    @property
    def interval(self) -> tuple[datetime | None, datetime | None]:
        """First and last moment."""
        about = self.properties
        return about.start or about.moment, about.end or about.moment

    @property
    def days(self) -> Days | None:
        """Days of acquisition, which only our own items state; None where only the vintage is known."""
        start, end = self.interval if self.properties.acquired else (None, None)
        return (start.date(), end.date()) if start and end else None


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
    try:
        for where, item in _items(given, query):
            count += 1
            _add_item(files, item, where=where, source=given)
    except (OSError, *MALFORMED) as error:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise CatalogError(f"{source}: cannot be read as a STAC catalog: {cause[0][:300]}") from error
    if not count:
        raise CatalogError(
            f"{source}: no items match {query}; check the collections, the bbox and the datetime, or leave them out"
        )


def _items(source: str, query: Query) -> Iterator[tuple[str, ExternalItem]]:
    """(URL or path, item)."""
    from pipeline.sources.catalog import stac_api

    budget = StacBudget(source)
    content = _read(source, budget)
    if any(_ITEM_SEARCH in uri for uri in parse_model(_Catalog, content).conforms_to):
        yield from stac_api.search(source, query, budget)
        return
    start, end = stac_api.parse_interval(query.datetime)
    yield from ((h, i) for h, i in _walk(source, content, budget, ()) if _matches(i, query, start, end))


def _read(href: str, budget: StacBudget) -> bytes:
    content = fetch(href, source=budget.source).body if is_web(href) else read_bytes(Path(href))
    budget.count_page(len(content))
    return content


def _walk(href: str, content: bytes, budget: StacBudget, above: tuple[str, ...]) -> Iterator[tuple[str, ExternalItem]]:
    """Items of a static catalog and of those below it; each file is read when it is reached."""
    if href in above or len(above) > _MAX_DEPTH:
        raise CatalogError(f"{above[0]}: loops: {href} is reached again, or catalogs are nested over {_MAX_DEPTH} deep")
    try:
        catalog = parse_model(_Catalog, content)
        item = parse_model(ExternalItem, content) if catalog.type == "Feature" else None
    except DocumentError as error:
        raise CatalogError(f"{href}: cannot be read as a STAC catalog or item: it {error}") from error
    if item is not None:
        budget.count_item()
        yield href, item
        return
    if catalog.type not in ("Catalog", "Collection"):
        raise CatalogError(f"{href}: is of type {catalog.type!r}; expected a STAC Catalog, Collection or Feature")
    for link in dict.fromkeys(link.href for link in catalog.links if link.rel in ("child", "item")):
        below = _join(href, link)
        if is_web(below) != is_web(href) or (urlsplit(link).scheme and not is_web(link)):
            raise CatalogError(f"{href}: links to {link}; expected a link from file to file, or from URL to URL")
        yield from _walk(below, _read(below, budget), budget, (*above, href))


def _join(base: str, href: str) -> str:
    """The URL or absolute path of an href that is relative to the file `base`."""
    if is_web(base) or is_web(href):
        return urljoin(base, href)
    return os.path.normpath(os.path.join(os.path.dirname(base), href))  # noqa: PTH118, PTH120  (as hrefs join)


def _matches(item: ExternalItem, query: Query, start: datetime | None, end: datetime | None) -> bool:
    """True for an item of a static catalog that an API would return for the query."""
    if query.collections and item.collection not in query.collections:
        return False
    if query.bbox and item.bbox:
        west, south, east, north = query.bbox
        # A bbox with heights has them at positions 2 and 5.
        left, bottom, right, top = item.bbox if len(item.bbox) == 4 else (*item.bbox[:2], *item.bbox[3:5])
        if left > east or right < west or bottom > north or top < south:
            return False
    first, last = item.interval
    return not ((start and last and last < start) or (end and first and first > end))


def _add_item(files: CatalogFiles, item: ExternalItem, *, where: str, source: str) -> None:
    for key, asset in sorted(item.assets.items()):
        path = _allowed_path(asset.href, item=where, source=source)
        if path.suffix.lower() not in RASTER_SUFFIXES:
            continue
        if delivered := parse_name(path) or _from_properties(path, key, asset, item):
            files.delivered.setdefault(path, delivered)
        else:
            files.ignored.add(path)
    files.origins.append(_origin_of(item))
    if item.properties.tile and item.days:
        files.days[item.properties.tile] = item.days


def _from_properties(path: Path, key: str, asset: _Asset, item: ExternalItem) -> DeliveredFile | None:
    """What a file is by the properties of an item that `index` wrote."""
    kind = asset.kind or key
    tile = item.properties.tile or None if kind in _IMAGERY_KINDS else None
    if kind not in _KINDS or (kind in _IMAGERY_KINDS and not tile):
        return None
    return DeliveredFile(kind, path, None, None, tile)


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


def _origin_of(item: ExternalItem) -> Origin:
    about = item.properties
    names = [provider.name for provider in about.providers if "producer" in provider.roles]
    return Origin(about.attribution or ", ".join(names), about.licence, about.citation, about.doi)
