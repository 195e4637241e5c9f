"""A download service on loopback with the paths of the Géoplateforme, which may answer otherwise than it should.

`python -m tests.support.geoplateforme FOLDER [BYTES_A_SECOND]` makes a small delivery in FOLDER and serves it.
"""

import hashlib
import http.server
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, quoteattr

import geopandas as gpd
import shapely

from tests.support.archives import make_archives, noise_bytes, pack
from tests.support.dbase import write_table

RVB, IRC = (f"BDORTHO_2-0_{s}-0M20_JP2-E080_LAMB93_D034_2021-01-01" for s in ("RVB", "IRC"))
GRAPH = "BDORTHO_2-0_GRAPHE-MOSAIQUAGE__LAMB93_D034_2021-01-01"
SURFACE = "MNS-Correl_1-0__TIFF_LAMB93_D034_2021-01-01"
TERRAIN = "RGEALTI_2-0_1M_ASC_LAMB93-IGN69_D034_2020-06-17"
BORDERS = "ADMIN-EXPRESS_3-2__GPKG_LAMB93_FXX_2025-01-15"
PRODUCTS = {"BDORTHO": (RVB, IRC, GRAPH), "MNS-CORREL": (SURFACE,), "RGEALTI": (TERRAIN,), "ADMIN-EXPRESS": (BORDERS,)}
OTHERS = {
    "BDORTHO": [
        "BDORTHO_1-0_RVB-0M20_JP2-E080_LAMB93_D034_2021-01-01",
        "BDORTHO_1-0_IRC-0M20_JP2-E080_LAMB93_D034_2018-01-01",
        "BDORTHO_1-0_RVB-0M20_JP2-E080_LAMB93_D034_2018-01-01",
        "BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D034_2024-01-01",
        "BDORTHO_2-0_RVB-0M50_JP2-E080_LAMB93_D034_2024-01-01",
        "BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D030_2021-01-01",
    ],
    "MNS-CORREL": ["MNS-Correl_1-0__TIFF_LAMB93_D034_2018-01-01"],
    "RGEALTI": ["RGEALTI_2-0_5M_ASC_LAMB93-IGN69_D034_2021-06-17", "RGEALTI_2-0_1M_ASC_LAMB93-IGN69_D034_2011-02-01"],
    "ADMIN-EXPRESS": ["ADMIN-EXPRESS_3-2__SHP_LAMB93_FXX_2025-01-15", "ADMIN-EXPRESS_3-1__GPKG_LAMB93_FXX_2023-03-22"],
}
"""Editions that are not chosen: an older version, other vintages, one without IRC, other resolutions and formats."""

GPF = "https://data.geopf.fr/annexes/ressources/xsd/gpf_dl.xsd"
Answer = Callable[["Handler", bytes, int], None]
"""How a file is answered: from a handler, its content and the first byte that is wanted."""


def make_shelf(folder: Path, *, more_bytes: int = 0) -> Path:
    """The files of a small département: `folder/PRODUCT/EDITION/FILE`. The imagery has 13 volumes a spectrum."""
    make_archives(folder / "source", at=((0, 0),))
    below = folder / "source" / "unpacked"
    members = {p.relative_to(below).as_posix(): p for p in sorted(below.rglob("*")) if p.is_file()}
    graph = folder / "source" / "graph" / "graphe.dbf"
    graph.parent.mkdir()
    write_table(graph, {"DATE_VOL": 10}, [("2021-06-14",)])
    parts: dict[str, dict[str, Path]] = {
        name: {n: p for n, p in members.items() if start in n}
        for name, start in ((RVB, "_RVB-"), (IRC, "_IRC-"), (SURFACE, "LIDARHD"), (TERRAIN, "RGEALTI"))
    }
    parts[GRAPH] = {"GRAPHE/graphe.dbf": graph}
    inner = "ADE_3-2_GPKG_LAMB93_FXX-ED2025-01-15"
    parts[BORDERS] = {f"{BORDERS}/ADMIN-EXPRESS/{inner}/{inner}.gpkg": _write_borders(folder / "source")}
    for product, names in PRODUCTS.items():
        for name in names:
            content: dict[str, bytes | Path] = dict(parts[name])
            if more_bytes and name in (RVB, IRC):
                content["noise.bin"] = noise_bytes(more_bytes, 1)
            base = folder / "shelf" / product / name / f"{name}.7z"
            pack(base, content, md5=False)
            if name in (RVB, IRC):
                size = -(-base.stat().st_size // 13)
                base.unlink()
                pack(base, content, md5=False, volume=size)
        for name in OTHERS[product]:
            pack(folder / "shelf" / product / name / f"{name}.7z", {"a": b"of another edition"}, md5=False)
    return folder / "shelf"


def _write_borders(folder: Path) -> Path:
    """A GeoPackage with a layer of départements, one of which contains the tile."""
    path = folder / "borders.gpkg"
    boxes = [shapely.box(760_000, 6_270_000, 780_000, 6_290_000), shapely.box(0, 0, 1, 1)]
    table = gpd.GeoDataFrame({"INSEE_DEP": ["34", "30"]}, geometry=boxes, crs="EPSG:2154")
    table.to_file(path, layer="departement", driver="GPKG", engine="pyogrio")
    return path


@dataclass
class Geoplateforme:
    """The service, and how it answers. Tests change its fields while it runs."""

    shelf: Path
    url: str = ""
    as_xml: bool = False
    """Answers as XML whatever is accepted."""
    page_size: int = 4
    """Entries of a page at most."""
    with_md5: bool = True
    """Whether entries of files have their md5."""
    hidden: set[str] = field(default_factory=set)
    """Editions that are not listed."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """By a file's name."""
    feeds: dict[str, bytes] = field(default_factory=dict)
    """Bodies of feeds by their path, instead of the right ones."""
    extra: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Further entries of an edition's feed."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Lengths that the feed says of files, instead of the right ones."""
    sums: dict[str, str] = field(default_factory=dict)
    """The same of md5 sums."""
    requests: Counter[str] = field(default_factory=Counter)
    """How often each path was requested."""
    at_once: list[int] = field(default_factory=lambda: [0, 0])
    """Files that are being sent now, and the most that were."""
    headers: set[str] = field(default_factory=set)
    """Names of all headers that were received."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def downloads(self) -> Counter[str]:
        """How often each file was requested."""
        return Counter({Path(p).name: n for p, n in self.requests.items() if p.startswith("/download/")})

    def entries(self, path: list[str], zone: str) -> list[dict[str, Any]]:
        """Entries of a feed."""
        folder = self.shelf.joinpath(*path[1:])
        names = sorted(p.name for p in folder.iterdir() if p.name not in self.hidden)
        if len(path) < 3:
            entries = [{"title": n, "id": "/".join((self.url, "resource", *path[1:], n)), "link": []} for n in names]
            return [e for e in entries if not zone or f"_{zone}_" in e["title"]]
        return [self._file(folder / name, path) for name in names] + self.extra.get(path[2], [])

    def _file(self, file: Path, path: list[str]) -> dict[str, Any]:
        content = file.read_bytes()
        md5 = self.sums.get(file.name, hashlib.md5(content).hexdigest())  # noqa: S324  as IGN does
        url = "/".join((self.url, "download", path[1], path[2], file.name))
        length = self.lengths.get(file.name, len(content))
        return {
            "title": file.name,
            "id": url,
            "content": md5 if self.with_md5 and file.suffix != ".md5" else "",
            "link": [{"href": self.url, "rel": "section"}, {"href": url, "length": length}],
        }


def as_xml(entries: list[dict[str, Any]], paging: dict[str, int]) -> bytes:
    """A page of a feed as the Géoplateforme writes it."""
    parts = []
    for entry in entries:
        links = "".join(
            f"<link href={quoteattr(k['href'])}" + (f' gpf_dl:length="{k["length"]}"' if "length" in k else "") + "/>"
            for k in entry["link"]
        )
        texts = "".join(f"<{k}>{escape(entry[k])}</{k}>" for k in ("title", "id", "content") if k in entry)
        parts.append(f"<entry>{texts}{links}</entry>")
    attributes = " ".join(f'gpf_dl:{name}="{number}"' for name, number in paging.items())
    head = f'<feed xmlns="http://www.w3.org/2005/Atom" xmlns:gpf_dl="{GPF}" {attributes}>'
    return f"<?xml version='1.0' encoding='UTF-8'?>{head}{''.join(parts)}</feed>".encode()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers requests for feeds and files."""

    service: Geoplateforme
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the body follows the head at once

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = [unquote(p) for p in parts.path.strip("/").split("/")]
        with self.service.lock:
            self.service.requests[parts.path] += 1
            self.service.headers |= set(self.headers)
        if path[0] == "download":
            self._send_file(self.service.shelf.joinpath(*path[1:]))
        elif path[0] in ("capabilities", "resource"):
            self._send_feed(path, {k: v[0] for k, v in parse_qs(parts.query).items()})
        else:
            self.send(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send_feed(self, path: list[str], query: dict[str, str]) -> None:
        name = "/".join(path)
        if name in self.service.feeds:
            self.send(200, self.service.feeds[name])
            return
        if not self.service.shelf.joinpath(*path[1:]).is_dir():
            self.send(404)
            return
        entries = self.service.entries(path, query.get("zone", ""))
        number, size = int(query.get("page", 1)), min(int(query.get("limit", 10)), self.service.page_size)
        pages = max(1, -(-len(entries) // size))
        paging = {"page": number, "pagesize": size, "pagecount": pages, "totalentries": len(entries)}
        shown = entries[(number - 1) * size : number * size]
        plain = self.service.as_xml or "json" not in self.headers.get("Accept", "")
        self.send(200, as_xml(shown, paging) if plain else json.dumps({**paging, "entry": shown}).encode())

    def _send_file(self, file: Path) -> None:
        answer = self.service.answers.get(file.name, send_rest)
        if not file.is_file() and answer is send_rest:
            self.send(404)
            return
        span = self.headers.get("Range", "bytes=0-")
        with self.service.lock:
            self.service.at_once[0] += 1
            self.service.at_once[1] = max(self.service.at_once)
        try:
            answer(self, file.read_bytes() if file.is_file() else b"", int(span.removeprefix("bytes=").strip("-")))
        except ConnectionError:
            self.close_connection = True
        finally:
            with self.service.lock:
                self.service.at_once[0] -= 1

    def send(self, status: int, body: bytes = b"", **headers: object) -> None:
        """Sends a whole answer."""
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def send_rest(handler: Handler, content: bytes, start: int) -> None:
    """The right answer: the bytes from `start` on."""
    send_until(handler, content, start, len(content))


def send_until(handler: Handler, content: bytes, start: int, end: int, *, rate: float = 0) -> None:
    """As `send_rest`, with a connection that ends before byte `end`."""
    handler.send_response(206 if "Range" in handler.headers else 200)
    handler.send_header("Content-Length", str(len(content) - start))
    if "Range" in handler.headers:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.end_headers()
    if handler.command == "HEAD":
        return
    step = int(rate / 20) or 1 << 20
    for at in range(start, end, step):
        handler.wfile.write(content[at : min(at + step, end)])
        time.sleep(step / rate if rate else 0)
    handler.close_connection = end < len(content)


def cut_at_every_tenth(handler: Handler, content: bytes, start: int) -> None:
    """Each connection ends at the next tenth of the file."""
    tenths = [len(content) * n // 10 for n in range(1, 11)]
    send_until(handler, content, start, next(t for t in tenths if t > start))


def send_without_ranges(handler: Handler, content: bytes, start: int) -> None:  # noqa: ARG001
    """All bytes, whatever range is wanted; the first two connections end half-way."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    count = handler.service.requests[urlsplit(handler.path).path]
    handler.wfile.write(content if count > 2 else content[: len(content) // 2])
    handler.close_connection = True


def send_for_ever(handler: Handler, content: bytes, start: int) -> None:  # noqa: ARG001
    """A body without a length and without an end."""
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while True:
        handler.wfile.write(bytes(1 << 16))


def busy_first(count: int) -> Answer:
    """429 with `Retry-After` to the first requests, then the right answer."""
    left = [count]

    def answer(handler: Handler, content: bytes, start: int) -> None:
        if left[0]:
            left[0] -= 1
            handler.send(429, Retry_After=7)
        else:
            send_rest(handler, content, start)

    return answer


def redirect_to(url: str) -> Answer:
    """A redirect."""
    return lambda handler, _, __: handler.send(302, Location=url)


@contextmanager
def geoplateforme(shelf: Path) -> Iterator[Geoplateforme]:
    """Serves a shelf until the block ends."""
    service = Geoplateforme(shelf)
    kind = type("_Handler", (Handler,), {"service": service})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        service.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


def main(folder: str, rate: str = "0") -> None:
    """Serves a small département with 50 MB of imagery until the process is ended."""
    shelf = Path(folder, "shelf")
    if not shelf.is_dir():
        make_shelf(Path(folder), more_bytes=25_000_000)
    with geoplateforme(shelf) as service:
        service.page_size = 50
        for file in shelf.rglob("*.7z*"):
            service.answers[file.name] = lambda h, content, start: send_until(
                h, content, start, len(content), rate=float(rate)
            )
        sys.stdout.write(f"{service.url}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
