"""The HTTP client of the project: all requests except those of GDAL and huggingface-hub go through it.

Its rules: redirects are followed one at a time; the credentials of the environment are sent to one origin only; broken
connections and requests to overloaded servers are retried; a limited number of bytes is read into memory.
"""

import io
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urljoin
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.util import make_headers, parse_url

HEADERS_VARIABLE = "LANDCOVER_STAC_HEADERS"
"""Environment variable with `Name: value` lines: the request headers that a catalog and its files require. A line with
a URL, such as `https://example.org`, names the only origin to which they may be sent."""

MAX_REDIRECTS = 5
MAX_BODY_BYTES = 64 * 2**20
"""A page of ten thousand items is about as long."""
ANSWER_SECONDS = 600
"""Time that one answer may take."""
HEAD_SECONDS = 120
"""Time that the head of one answer may take."""
_PIECE_BYTES = 2**16

_PORTS = {"http": 80, "https": 443}
_TIMEOUT = urllib3.Timeout(connect=15.0, read=60.0)
_RETRIES = urllib3.Retry(
    3,
    redirect=False,
    status_forcelist=(429, 502, 503, 504),
    # POST included: it searches a STAC API, and changes nothing there.
    allowed_methods=None,
    backoff_factor=0.5,
    raise_on_status=False,
    retry_after_max=120,
)


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
) -> Response:
    """Sends a request and reads the answer into memory; retries if the connection breaks meanwhile.

    Args:
        url: http or https.
        method: of HTTP.
        headers: of the request.
        body: of the request.
        source: the URL to whose origin the credentials of the environment belong; `url` by default.
        byte_range: first and last byte, to read only a part of the file.

    Raises:
        RequestError: no answer, an answer other than success, or one longer than `MAX_BODY_BYTES` or the range.

    Example:
        >>> catalog = json.loads(fetch("https://example.org/stac/catalog.json").body)
    """
    sent, limit = dict(headers or {}), MAX_BODY_BYTES
    if byte_range:
        limit = byte_range[1] - byte_range[0] + 1
        sent["Range"] = f"bytes={byte_range[0]}-{byte_range[1]}"
    retries = _RETRIES
    with _explained(url):
        while True:
            try:
                with _follow(method, url, sent, body, source or url) as answer:
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
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, home: str
) -> Iterator[urllib3.BaseHTTPResponse]:
    """Yields the answer to a request, whose body is not read yet and whose `url` is the one after redirects.

    Redirects are followed here and not by urllib3, so that the credentials of the environment are sent only in requests
    to the origin of `home`.
    """
    target = url
    for _ in range(MAX_REDIRECTS + 1):
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


def _send(method: str, url: str, headers: Mapping[str, str], body: bytes | None, home: str) -> urllib3.BaseHTTPResponse:
    with _explained(url):
        scheme = parse_url(url).scheme
        if scheme not in _PORTS:
            raise RequestError(0, f"has the scheme {scheme!r}; expected http or https", url)
        own = auth_headers(url) if origin(url) == origin(home) else {}
        return _pool(_proxy(url)).request(
            method, url, headers={**headers, **own}, body=body, redirect=False, preload_content=False
        )


def _proxy(url: str) -> str:
    """The proxy that the environment names for a URL; empty where there is none."""
    parts = parse_url(url)
    return "" if proxy_bypass(parts.host or "") else getproxies().get(parts.scheme or "", "")


@cache
def _pool(proxy: str) -> urllib3.PoolManager:
    # As many connections to a server are kept as an index has threads.
    options: dict[str, Any] = {"retries": _RETRIES, "timeout": _TIMEOUT, "maxsize": 16}
    if not proxy:
        pool = urllib3.PoolManager(**options)
    else:
        named = parse_url(proxy if "://" in proxy else f"http://{proxy}")
        login = make_headers(proxy_basic_auth=named.auth) if named.auth else None
        pool = urllib3.ProxyManager(named._replace(auth=None).url, proxy_headers=login, **options)
    pool.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return pool


class _TimedSocket(io.RawIOBase):
    """The bytes of a socket, until a moment after which reading is an error."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw, self.end = raw, time.monotonic() + HEAD_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self.end:
            raise TimeoutError(f"the head of the answer takes more than {HEAD_SECONDS} s")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedAnswer(HTTPResponse):
    """An answer whose head must arrive in time: a server may send it byte by byte, or without an end."""

    def begin(self) -> None:
        timed = _TimedSocket(self.fp.detach())
        self.fp = io.BufferedReader(timed)
        super().begin()
        timed.end = math.inf


class _Connection(HTTPConnection):
    response_class = _TimedAnswer


class _SecureConnection(HTTPSConnection):
    response_class = _TimedAnswer


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def _check_status(answer: urllib3.BaseHTTPResponse, target: str, url: str, home: str) -> None:
    status = answer.status
    if 200 <= status < 300:
        return
    where = f" after a redirect to {target}" if target != url else ""
    busy = status == 429 or status >= 500
    advice = "try again later" if busy else "check the URL"
    if status in (401, 403):
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
