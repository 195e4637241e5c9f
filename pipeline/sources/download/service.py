"""A download service's feeds: which products, editions and files it has. Nothing in an answer is trusted.

Paths and filters as documented for the Géoplateforme: `/capabilities`, `/resource/PRODUCT[/EDITION]` and
`/download/PRODUCT/EDITION/FILE`.
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal
from urllib.parse import unquote, urlencode, urlsplit

from urllib3.util import parse_url

from pipeline.errors import DownloadError
from pipeline.sources.delivery.names import parse_name
from pipeline.sources.download.editions import (
    GEOPLATEFORME,
    RemoteEdition,
    border_zones,
    is_used_product,
    parse_edition,
)
from pipeline.sources.download.feed import FeedEntry, FeedLink, parse_page
from pipeline.sources.http_client import ByteStream, MissingOnServerError, RequestError, fetch, open_stream, origin
from pipeline.sources.md5_lists import parse_sums
from pipeline.sources.short_lists import first_names
from pipeline.untrusted.limits import FEED_PAGES

_OWN_HOSTS = ".geopf.fr"
"""Hosts to which the Géoplateforme may redirect, over https only."""
_ENTRIES = 50
"""Of a page: the most that the Géoplateforme gives."""
_PAUSE_S = 0.12
"""Between two requests: the Géoplateforme tolerates ten a second."""
_MOST_ANSWER_BYTES = 8 << 20
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
_ARCHIVE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}\.7z(\.(?P<number>\d{3}))?", re.ASCII)
_MD5 = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)


class _Pace:
    """Spaces the requests of all threads."""

    def __init__(self) -> None:
        self._free_at, self._lock = 0.0, Lock()

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + _PAUSE_S
        time.sleep(begin - now)


_PACE = _Pace()

Kind = Literal["archive", "raster", "sums"]


@dataclass(frozen=True, order=True)
class RemoteFile:
    """A file of an edition. Its name was checked: it is no path."""

    name: str
    url: str
    length: int
    """Bytes."""
    md5: str | None
    kind: Kind
    """A 7z archive or a volume of one, an elevation raster, or a list of md5 sums."""


@dataclass(frozen=True)
class Service:
    """A download service by its URL."""

    url: str = GEOPLATEFORME

    def allows(self, url: str) -> bool:
        """Whether a URL is the service's: of its origin, or a host of the Géoplateforme while this is one too."""
        if origin(url) == origin(self.url):
            return True
        hosts = (parse_url(u).host or "" for u in (url, self.url))
        return url.lower().startswith("https://") and all(host.endswith(_OWN_HOSTS) for host in hosts)

    @contextmanager
    def open_file(self, file: RemoteFile, start: int) -> Iterator[ByteStream]:
        """Requests a file from byte `start` on, as `open_stream` does."""
        _PACE.wait()
        with open_stream(file.url, start=start, allow=self.allows) as stream:
            yield stream

    def products(self) -> tuple[str, ...]:
        """Names of the products that this package can use.

        Raises:
            DownloadError: no answer, or one that is no feed.
        """
        entries = self._entries("capabilities")
        names = {name for entry in entries if (name := _last(entry, "resource"))}
        used = tuple(sorted(filter(is_used_product, names)))
        if "BDORTHO" not in used:
            found = first_names(sorted(names), 10) or "none"
            raise DownloadError(f"{self.url}/capabilities: expected a product BDORTHO, found {found}; check --service")
        return used

    def editions(self, zone: str, products: Iterable[str]) -> tuple[RemoteEdition, ...]:
        """Editions of products for a département, and of borders that contain it.

        Args:
            zone: such as `D034`.
            products: from `products`.

        Raises:
            DownloadError: no answer, or one that is no feed of editions.
        """
        return tuple(sorted(e for product in products for e in self._editions_of(product, zone)))

    def _editions_of(self, product: str, zone: str) -> set[RemoteEdition]:
        zones = border_zones(zone) if product.startswith("ADMIN") else (zone,)
        found: set[RemoteEdition] = set()
        for wanted in zones:
            try:
                entries = self._entries("resource", product, zone=wanted)
            except DownloadError as error:
                if isinstance(error.__cause__, MissingOnServerError):
                    continue  # as the Géoplateforme answers for a product of which it has no edition any more
                raise
            names = [_last(entry, f"resource/{product}") or entry.title for entry in entries]
            editions = [edition for name in names if (edition := parse_edition(product, name))]
            if names and not editions and product == "BDORTHO":
                raise DownloadError(
                    f"{self.url}/resource/{product}: expected names such as "
                    f"BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D034_2021-01-01, found {first_names(names, 3)}"
                )
            # A service that ignores the filter gives all zones.
            found.update(e for e in editions if e.zone == wanted)
            if found:
                break
        return found

    def files(self, edition: RemoteEdition) -> tuple[RemoteFile, ...]:
        """The files of an edition that are downloaded, with md5 sums as far as the service gives them.

        Raises:
            DownloadError: no answer, a name that is no file name, a file on another path, or a missing volume.
        """
        where = f"{self.url}/resource/{edition.product}/{edition.name}"
        found: dict[str, RemoteFile] = {}
        for entry in self._entries("resource", edition.product, edition.name):
            for link in entry.links:
                if "/download/" in link.href and (file := self._file(edition, entry, link)):
                    found[file.name] = file
        kept = {name: file for name, file in found.items() if file.kind != "sums"}
        _check_volumes(kept, where, needed=edition.part is not None)
        if any(file.md5 is None for file in kept.values()):
            sums = self._read_sums([file for file in found.values() if file.kind == "sums"])
            kept = {n: f if f.md5 else RemoteFile(n, f.url, f.length, sums.get(n), f.kind) for n, f in kept.items()}
        return tuple(kept[name] for name in sorted(kept))

    def _file(self, edition: RemoteEdition, entry: FeedEntry, link: FeedLink) -> RemoteFile | None:
        """A file that a link names; None for a kind that is not downloaded, such as a PDF."""
        place = f"download/{edition.product}/{edition.name}"
        _, _, name = unquote(urlsplit(link.href).path).partition(f"/{place}/")
        if not re.fullmatch(_NAME, name, re.ASCII) or ".." in name:
            raise DownloadError(
                f"{self.url}/resource/{edition.product}/{edition.name}: expected links to {place}/FILE, found "
                f"{link.href[:200]!r}; nothing of this edition was downloaded"
            )
        kind = _kind(name)
        if kind is None:
            return None
        # Requested from the service that was named, whatever host the feed says.
        url = f"{self.url}/{place}/{name}"
        length = link.length if link.length is not None or kind == "sums" else self._length(url)
        md5 = entry.content.lower() if _MD5.fullmatch(entry.content) else None
        return RemoteFile(name, url, length or 0, md5, kind)

    def _length(self, url: str) -> int:
        text = self._request(url, method="HEAD")[1].get("Content-Length", "")
        if not (text.isascii() and text.isdigit()):
            raise DownloadError(f"{url}: neither the feed nor the server says how long it is")
        return int(text)

    def _read_sums(self, lists: list[RemoteFile]) -> dict[str, str]:
        """Sums from `.md5` files; one that is listed and yet missing, or is no list, gives none."""
        sums: dict[str, str] = {}
        for file in lists:
            try:
                content = self._request(file.url)[0]
            except DownloadError as error:
                if isinstance(error.__cause__, MissingOnServerError):
                    continue
                raise
            sums |= parse_sums(content, alone=Path(file.name).stem)
        return sums

    def _entries(self, *path: str, zone: str = "") -> tuple[FeedEntry, ...]:
        """All entries of a feed, page by page, as many as it says that there are."""
        base, found = "/".join((self.url, *path)), dict[FeedEntry, None]()
        page_number = 1
        while True:
            query = urlencode({"page": page_number, "limit": _ENTRIES} | ({"zone": zone} if zone else {}))
            page = parse_page(self._request(f"{base}?{query}")[0], base)
            before = len(found)
            found |= dict.fromkeys(page.entries)
            if len(found) == page.total or page_number == page.pages:
                break
            # Without a number of pages, the feed ends where a page brings nothing new.
            if len(found) == before:
                break
            page_number += 1
            FEED_PAGES.check(page_number, base, DownloadError)
        if page.total is not None and len(found) != page.total:
            raise DownloadError(f"{base}: says that it has {page.total} entries, and its pages have {len(found)}")
        return tuple(found)

    def _request(self, url: str, *, method: str = "GET") -> tuple[bytes, dict[str, str]]:
        sent = {"Accept": "application/json, application/atom+xml;q=0.9, application/xml;q=0.8"}
        _PACE.wait()
        try:
            answer = fetch(url, method=method, headers=sent, allow=self.allows, most=_MOST_ANSWER_BYTES)
        except RequestError as error:
            raise DownloadError(str(error)) from error
        return answer.body, dict(answer.headers)


def _last(entry: FeedEntry, below: str) -> str:
    """The name behind `/resource/` (or what is given) in an entry's id or links."""
    pattern = re.compile(rf"/{re.escape(below)}/([^/?#]+)/?$")
    return next((m[1] for url in (entry.id, *(k.href for k in entry.links)) if (m := pattern.search(url))), "")


def _kind(name: str) -> Kind | None:
    if _ARCHIVE.fullmatch(name):
        return "archive"
    if name.lower().endswith(".md5"):
        return "sums"
    delivered = parse_name(Path(name))
    return "raster" if delivered and delivered.kind in ("dsm", "dtm") else None


def _check_volumes(files: dict[str, RemoteFile], where: str, *, needed: bool) -> None:
    """Refuses a needed edition without files, and volumes that do not count from 001 without a gap."""
    if needed and not files:
        raise DownloadError(f"{where}: expected archives NAME.7z or NAME.7z.001, found none")
    volumes = sorted(int(m["number"]) for name in files if (m := _ARCHIVE.fullmatch(name)) and m["number"])
    missing = sorted(set(range(1, max(volumes, default=0) + 1)) - set(volumes))
    if missing:
        raise DownloadError(f"{where}: lists no volume {first_names([f'{n:03d}' for n in missing])}; try again later")
