"""Connections of the HTTP client: pooled, through the proxy of the environment, with limits on time and retries."""

import io
import math
import time
from functools import cache
from http.client import HTTPResponse
from typing import Any
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import make_headers, parse_url

HEAD_SECONDS = 120
"""Time that the head of one answer may take."""

_TIMEOUT = urllib3.Timeout(connect=15.0, read=60.0)
RETRIES = urllib3.Retry(
    3,
    redirect=False,
    status_forcelist=(429, 502, 503, 504),
    # POST included: it searches a STAC API, and changes nothing there.
    allowed_methods=None,
    backoff_factor=0.5,
    raise_on_status=False,
    retry_after_max=120,
)


def pool_for(url: str) -> urllib3.PoolManager:
    """The pool of connections by which a URL is requested: through the proxy of the environment if it names one."""
    return _pool(_proxy(url))


def _proxy(url: str) -> str:
    """The proxy that the environment names for a URL; empty where there is none."""
    parts = parse_url(url)
    return "" if proxy_bypass(parts.host or "") else getproxies().get(parts.scheme or "", "")


@cache
def _pool(proxy: str) -> urllib3.PoolManager:
    # As many connections to a server are kept as an index has threads.
    options: dict[str, Any] = {"retries": RETRIES, "timeout": _TIMEOUT, "maxsize": 16}
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
