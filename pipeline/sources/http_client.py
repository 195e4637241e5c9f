"""The HTTP client of the project: all requests except those of GDAL and huggingface-hub go through it.

Its rules: redirects are followed one at a time; the credentials of the environment are sent to one origin only; broken
connections and requests to overloaded servers are retried; a limited number of bytes is read into memory. Larger files
are read piece by piece (`open_stream`).
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.util import parse_url

from pipeline.sources.http_connection import RETRIES, pool_for

HEADERS_VARIABLE = "LANDCOVER_STAC_HEADERS"
"""Environment variable with `Name: value` lines: the request headers that a catalog and its files require. A line with
a URL, such as `https://example.org`, names the only origin to which they may be sent."""

MAX_REDIRECTS = 5
MAX_BODY_BYTES = 64 * 2**20
"""A page of ten thousand items is about as long."""
ANSWER_SECONDS = 600
"""Time that one answer may take."""
STALL_SECONDS = 300
"""A stream that brings less than `_STALL_BYTES` in this time has stalled."""
_STALL_BYTES = 2**18
_PIECE_BYTES = 2**16

_AGENT = "landcover-pipeline"
"""The Géoplateforme refuses requests without any."""
_PORTS = {"http": 80, "https": 443}

AllowUrl = Callable[[str], bool]
"""Whether a URL may be requested."""


class RequestError(OSError):
    """A request that failed: `filename` is the URL, `strerror` the cause and what to do."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class UnavailableError(RequestError):
    """The server cannot be reached, is overloaded or answers too slowly: the same request may succeed later."""


class MissingOnServerError(RequestError, FileNotFoundError):
    """The server answers that there is no such file."""


@dataclass(frozen=True)
class Response:
    """The answer to a request, read into memory."""

    url: str
    """The URL that answered: after redirects not the requested one."""
    headers: Mapping[str, str]
    """By name, in any case."""
    body: bytes


@dataclass(frozen=True)
class ByteStream:
    """A file that is being received."""

    start: int
    """Position of the first byte: the requested one, or 0 where the server serves no ranges."""
    length: int | None
    """Bytes of the whole file; None where the server does not say."""
    pieces: Iterator[bytes]
    """The bytes from `start` on. Reading raises UnavailableError where the connection breaks or stalls."""


def auth_headers(url: str | None = None) -> dict[str, str]:
    """The headers of the environment, by name; none where the variable is not set.

    Args:
        url: only what may be sent there: nothing if the variable names another origin.
    """
    lines = [line.strip() for line in os.environ.get(HEADERS_VARIABLE, "").splitlines() if line.strip()]
    homes = [line for line in lines if line.lower().startswith(("http://", "https://"))]
    if url is not None and homes and origin(url) not in map(origin, homes):
        return {}
    pairs = (line.partition(":") for line in lines if line not in homes)
    return {name.strip(): value.strip() for name, _, value in pairs}


def origin(url: str) -> str:
    """Scheme, host and port of a URL, such as `https://example.org:443`.

    Raises:
        ValueError: not a URL.
    """
    parts = parse_url(url)
    return f"{parts.scheme}://{parts.host}:{parts.port or _PORTS.get(parts.scheme or '')}"


def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    source: str | None = None,
    byte_range: tuple[int, int] | None = None,
    allow: AllowUrl | None = None,
    most: int | None = None,
) -> Response:
    """Sends a request and reads the answer into memory; retries if the connection breaks meanwhile.

    Args:
        url: http or https.
        method: of HTTP.
        headers: of the request.
        body: of the request.
        source: the URL to whose origin the credentials of the environment belong; `url` by default.
        byte_range: first and last byte, to read only a part of the file.
        allow: which URLs may answer; a redirect to another one is refused, and no credentials are sent.
        most: bytes of the longest answer, instead of `MAX_BODY_BYTES`.

    Raises:
        RequestError: no answer, an answer other than success, or one longer than `most` or the range.

    Example:
        >>> catalog = json.loads(fetch("https://example.org/stac/catalog.json").body)
    """
    sent, limit = dict(headers or {}), most or MAX_BODY_BYTES
    if byte_range:
        limit = byte_range[1] - byte_range[0] + 1
        sent["Range"] = f"bytes={byte_range[0]}-{byte_range[1]}"
    home, retries = None if allow else source or url, RETRIES
    with _explained(url):
        while True:
            try:
                with _follow(method, url, sent, body=body, home=home, allow=allow) as answer:
                    if byte_range and answer.status != 206:
                        raise RequestError(0, "the server does not serve ranges of bytes; download the file", url)
                    content = _read_body(answer, limit + 1, url)
                    break
            except (ProtocolError, ReadTimeoutError) as error:
                retries = retries.increment(method, url, error=error)
                retries.sleep()
    if len(content) > limit:
        raise RequestError(0, f"the answer is longer than {limit} bytes; check that the URL is the one you mean", url)
    return Response(answer.url or url, answer.headers, content)


@contextmanager
def open_stream(url: str, *, start: int = 0, allow: AllowUrl) -> Iterator[ByteStream]:
    """Requests a file from one of its bytes on, to be read piece by piece. What breaks later is not retried.

    Args:
        url: http or https.
        start: position of the first byte.
        allow: which URLs may answer; a redirect to another one is refused, and no credentials are sent.

    Raises:
        RequestError: no answer, or an answer other than success.

    Example:
        >>> with open_stream("https://example.org/a.7z", start=1000, allow=is_ours) as stream:
        ...     for piece in stream.pieces:
        ...         file.write(piece)
    """
    # Compressed on its way, a file would have other lengths than its feed says.
    sent = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with _follow("GET", url, sent, allow=allow) as answer:
        yield ByteStream(*_range_of(answer, start, url), _pieces(answer, url))


def _range_of(answer: urllib3.BaseHTTPResponse, start: int, url: str) -> tuple[int, int | None]:
    """Position of the answer's first byte, and bytes of the whole file."""
    if answer.status != 206:
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isascii() and length.isdigit() else None
    found = answer.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", found, re.ASCII)
    if not match or int(match[1]) != start:
        raise RequestError(0, f"the server answers with range {found!r}; expected bytes {start}-", url)
    return start, int(match[2])


def _pieces(answer: urllib3.BaseHTTPResponse, url: str) -> Iterator[bytes]:
    since, received = time.monotonic(), 0
    with _explained(url):
        while piece := answer.read1(_PIECE_BYTES):
            yield piece
            received += len(piece)
            if received >= _STALL_BYTES:
                since, received = time.monotonic(), 0
            elif time.monotonic() - since > STALL_SECONDS:
                raise UnavailableError(0, f"the answer brings {received} bytes in {STALL_SECONDS} s; try later", url)


def _read_body(answer: urllib3.BaseHTTPResponse, most: int, url: str) -> bytes:
    """Up to `most` bytes of an answer; a server that sends a few bytes a minute is not waited for."""
    content, end = bytearray(), time.monotonic() + ANSWER_SECONDS
    while len(content) < most and (piece := answer.read1(min(_PIECE_BYTES, most - len(content)))):
        content += piece
        if time.monotonic() > end:
            raise UnavailableError(0, f"the answer takes more than {ANSWER_SECONDS} s; try again later", url)
    return bytes(content)


@contextmanager
def _follow(
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    body: bytes | None = None,
    home: str | None = None,
    allow: AllowUrl | None = None,
) -> Iterator[urllib3.BaseHTTPResponse]:
    """Yields the answer to a request, whose body is not read yet and whose `url` is the one after redirects.

    Redirects are followed here and not by urllib3, so that the credentials of the environment are sent only in requests
    to the origin of `home`, and only URLs that `allow` accepts are requested.
    """
    target = url
    for _ in range(MAX_REDIRECTS + 1):
        with _explained(url):
            if allow and not allow(target):
                what = f"redirects to {target}, which is" if target != url else "is"
                raise RequestError(0, f"{what} on no host of this service; refused", url)
        with _send(method, target, headers, body, home) as answer:
            location = answer.get_redirect_location()
            if not location:
                _check_status(answer, target, url, home)
                answer.url = target
                yield answer
                return
            with _explained(url):
                target = urljoin(target, location)
            if answer.status == 303 and method != "HEAD":
                method, body = "GET", None
    raise RequestError(0, f"redirects more than {MAX_REDIRECTS} times, at last to {target}; check the URL", url)


def _send(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, home: str | None
) -> urllib3.BaseHTTPResponse:
    with _explained(url):
        scheme = parse_url(url).scheme
        if scheme not in _PORTS:
            raise RequestError(0, f"has the scheme {scheme!r}; expected http or https", url)
        own = auth_headers(url) if home and origin(url) == origin(home) else {}
        sent = {"User-Agent": _AGENT, **headers, **own}
        return pool_for(url).request(method, url, headers=sent, body=body, redirect=False, preload_content=False)


def _check_status(answer: urllib3.BaseHTTPResponse, target: str, url: str, home: str | None) -> None:
    status = answer.status
    if 200 <= status < 300:
        return
    where = f" after a redirect to {target}" if target != url else ""
    busy = status == 429 or status >= 500
    advice = "try again later" if busy else "check the URL"
    if status in (401, 403) and home:
        advice = f"set {HEADERS_VARIABLE} to the headers that it requires"
        if auth_headers() and origin(target) != origin(home):
            advice = f"{HEADERS_VARIABLE} is only sent to {origin(home)}"
    kind = UnavailableError if busy else MissingOnServerError if status in (404, 410) else RequestError
    raise kind(0, f"the server answers {status} {answer.reason or ''}{where}; {advice}", url)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except (HTTPError, ValueError) as error:  # ValueError: a redirect to what is no URL
        cause = getattr(error, "reason", None) or error
        raise UnavailableError(0, f"no answer: {cause}; check the URL and the network, then try again", url) from error
