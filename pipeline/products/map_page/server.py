"""A web server on loopback for one product: GET and HEAD of single files and ranges, for who has the token.

The token is the first part of every path, so that the relative addresses in the page carry it. A browser's requests for
another name of this host are refused, so that no page from elsewhere can reach the server by its own name.
"""

import hmac
import logging
import mimetypes
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import stat_result
from pathlib import Path
from typing import BinaryIO, ClassVar, TypeAlias
from urllib.parse import urlsplit

from pipeline.errors import LandcoverError
from pipeline.products.map_page.product_files import open_file

_PIECE = 1 << 20
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_TYPES = {".js": "text/javascript", ".json": "application/json", ".css": "text/css", ".html": "text/html"}
_IDLE_S = 60.0

log = logging.getLogger("landcover")


@dataclass(frozen=True)
class Reply:
    """What is computed for a request."""

    body: bytes
    kind: str = "application/json"


Answer: TypeAlias = Callable[[str], Reply | None]
"""Computes a reply from the rest of a request's path; None where there is nothing. It is called in several threads."""


class ProductServer(ThreadingHTTPServer):
    """Serves folders of a product until `shutdown`."""

    daemon_threads = True
    # The address is ours only while we listen, so a server that was just stopped does not block its port.
    allow_reuse_address = True

    def __init__(
        self,
        folders: Mapping[tuple[str, ...], Path],
        *,
        answers: Mapping[str, Answer] | None = None,
        port: int = 0,
    ) -> None:
        """Listens at once.

        Args:
            folders: (first parts of the path after the token) → folder.
            answers: path after the token, or first part of it that ends with a slash → what computes the reply. They
                come before files.
            port: 0 for any free one.

        Raises:
            OSError: the port is in use.
        """
        super().__init__(("127.0.0.1", port), _Requests)
        self.folders, self.token = dict(folders), secrets.token_urlsafe(24)
        self.answers = dict(answers or {})

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of this server in the header `Host`."""
        return (f"127.0.0.1:{self.server_port}", f"localhost:{self.server_port}")

    def address(self, path: str) -> str:
        """The URL of a path, with the token."""
        return f"http://{self.hosts[0]}/{self.token}/{path}"


class _Requests(BaseHTTPRequestHandler):
    server: ProductServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "landcover", ""
    timeout: ClassVar[float] = _IDLE_S

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        token, _, path = urlsplit(self.path).path.removeprefix("/").partition("/")
        if self.headers.get("Host") not in self.server.hosts or not hmac.compare_digest(
            token.encode(), self.server.token.encode()
        ):
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        try:
            for name, answer in self.server.answers.items():
                if path == name or (name.endswith("/") and path.startswith(name)):
                    self._send_reply(answer, path.removeprefix(name), body=body)
                    return
            self._send_found(path, body=body)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    def _send_reply(self, answer: Answer, rest: str, *, body: bool) -> None:
        status = HTTPStatus.OK
        try:
            reply = answer(rest)
        except LandcoverError as error:
            status, reply = HTTPStatus.INTERNAL_SERVER_ERROR, Reply(str(error).encode(), "text/plain; charset=utf-8")
        if reply is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        self.send_response(status)
        self._end_headers({"Content-Type": reply.kind, "Content-Length": str(len(reply.body))})
        if body:
            self.wfile.write(reply.body)

    def _send_found(self, path: str, *, body: bool) -> None:
        try:
            found = open_file(self.server.folders, path)
        except UnicodeDecodeError:
            found = None
        if found is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        file, state = found
        with file:
            self._send(file, state, Path(path).suffix, body=body)

    def _send(self, file: BinaryIO, state: stat_result, suffix: str, *, body: bool) -> None:
        size, wanted = state.st_size, self.headers.get("Range")
        span = _span(wanted, size) if wanted else None
        if wanted and span is not None and not span:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"})
            return
        start, stop = span or (0, size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if span else HTTPStatus.OK)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        kind = _TYPES.get(suffix) or mimetypes.guess_type(f"x{suffix}")[0] or "application/octet-stream"
        self._end_headers({"Content-Type": kind, "Content-Length": str(stop - start)})
        if body:
            file.seek(start)
            while start < stop and (piece := file.read(min(_PIECE, stop - start))):
                self.wfile.write(piece)
                start += len(piece)
            # A file that became shorter would leave the browser waiting.
            self.close_connection |= start < stop

    def _refuse(self, status: HTTPStatus, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self._end_headers({"Content-Length": "0", **(headers or {})})

    def _end_headers(self, headers: Mapping[str, str]) -> None:
        always = {
            "Accept-Ranges": "bytes",
            "Cache-Control": "no-cache",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in {**always, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name in the base class)
        """Shows no line a request: a view makes hundreds."""


def _span(wanted: str, size: int) -> tuple[int, int] | tuple[()] | None:
    """(start, stop) of a header `Range`; empty where no byte is in it; None where it is no single range.

    HTTP lets a server answer what it does not understand with the whole file.
    """
    match = _RANGE.fullmatch(wanted)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size) if int(last) and size else ()
    start, stop = int(first), min(int(last) + 1 if last else size, size)
    if last and int(last) < int(first):
        return None
    return (start, stop) if start < stop else ()
