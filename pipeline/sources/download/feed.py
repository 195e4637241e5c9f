"""Pages of a download service's feeds: Atom XML, or the same as JSON."""

from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from pydantic import Field

from pipeline.errors import DownloadError
from pipeline.untrusted.documents import Document, DocumentError, parse_model, parse_xml

_ATOM = "{http://www.w3.org/2005/Atom}"
_GPF = "{https://data.geopf.fr/annexes/ressources/xsd/gpf_dl.xsd}"


@dataclass(frozen=True)
class FeedLink:
    """A link of an entry."""

    href: str
    length: int | None
    """Bytes of the linked file; None where the feed does not say."""


@dataclass(frozen=True)
class FeedEntry:
    """A product, an edition of one, or a file."""

    title: str
    id: str
    content: str
    """Of a file: its md5 sum."""
    links: tuple[FeedLink, ...]


@dataclass(frozen=True)
class FeedPage:
    """One page of a feed."""

    entries: tuple[FeedEntry, ...]
    pages: int | None
    """Number of pages of the feed; None where it does not say."""
    total: int | None
    """Number of entries on all pages."""


class _Link(Document):
    href: str = ""
    length: int | str | None = None


class _Entry(Document):
    title: str = ""
    id: str = ""
    content: Any = None
    link: list[_Link] = Field(default_factory=list)


class _Page(Document):
    entry: list[_Entry]
    pagecount: int | str | None = None
    totalentries: int | str | None = None


def parse_page(body: bytes, url: str) -> FeedPage:
    """Parses one page, in whichever of the two formats it came.

    Raises:
        DownloadError: it is no such page.
    """
    try:
        return _from_json(body) if body.lstrip()[:1] == b"{" else _from_xml(body)
    except DocumentError as error:
        raise DownloadError(
            f"{url}: the answer {error}; expected a feed as Atom XML or JSON; check --service"
        ) from error


def _from_json(body: bytes) -> FeedPage:
    page = parse_model(_Page, body)
    entries = tuple(
        FeedEntry(
            entry.title,
            entry.id,
            entry.content if isinstance(entry.content, str) else "",
            tuple(FeedLink(link.href, _number(link.length)) for link in entry.link),
        )
        for entry in page.entry
    )
    return FeedPage(entries, _number(page.pagecount), _number(page.totalentries))


def _from_xml(body: bytes) -> FeedPage:
    root = parse_xml(body)
    if root.tag != f"{_ATOM}feed":
        raise DocumentError(f"begins with the element {root.tag!r}")
    entries = tuple(
        FeedEntry(
            _text(entry, "title"),
            _text(entry, "id"),
            _text(entry, "content"),
            tuple(
                FeedLink(link.get("href", ""), _number(link.get(f"{_GPF}length") or link.get("length")))
                for link in entry.iterfind(f"{_ATOM}link")
            ),
        )
        for entry in root.iterfind(f"{_ATOM}entry")
    )
    return FeedPage(entries, _number(root.get(f"{_GPF}pagecount")), _number(root.get(f"{_GPF}totalentries")))


def _text(entry: Element, name: str) -> str:
    return (entry.findtext(f"{_ATOM}{name}") or "").strip()


def _number(value: int | str | None) -> int | None:
    """A count or a length, which JSON may have as text."""
    if value is None or value == "":
        return None
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise DocumentError(f"has {text[:40]!r} where a number is expected")
    return int(text)
