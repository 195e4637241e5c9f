"""Files on the web as paths: GDAL reads them by their name, and we their size, date and some of their bytes."""

import io
import os
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path, PosixPath
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

import urllib3

HEADERS_VARIABLE = "LANDCOVER_STAC_HEADERS"
"""Environment variable with `Name: value` lines: what a catalogue and its files want to see with each request."""

_VSICURL = "/vsicurl?url="
"""GDAL's form of a web file in which the URL is percent-encoded, and so survives as one part of a path."""
_TIMEOUT_S = 60.0
_POOL = urllib3.PoolManager(retries=urllib3.Retry(3, backoff_factor=0.3), timeout=urllib3.Timeout(_TIMEOUT_S))


def auth_headers() -> dict[str, str]:
    """The headers of the environment, by name; none where the variable is not set."""
    lines = (line for line in os.environ.get(HEADERS_VARIABLE, "").splitlines() if line.strip())
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def gdal_headers() -> dict[str, str]:
    """GDAL's option for the same headers; empty where there are none."""
    given = auth_headers()
    return {"GDAL_HTTP_HEADERS": ",".join(f'"{name}: {value}"' for name, value in given.items())} if given else {}


def origin(url: str) -> str:
    """Scheme, host and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class WebPath(PosixPath):
    """A file on the web. Its text is GDAL's name for it; it has no folder, and cannot be written."""

    @classmethod
    def at(cls, url: str) -> "WebPath":
        """The path of an http or https URL."""
        return cls(_VSICURL + quote(url, safe=""))

    @property
    def url(self) -> str:
        """The URL."""
        return unquote(str(self).removeprefix(_VSICURL))

    @property
    def name(self) -> str:
        """The URL's last part, without its query."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    @property
    def suffix(self) -> str:
        """The name's suffix, with its dot."""
        return Path(self.name).suffix

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:  # noqa: ARG002  (Path's signature)
        """Size and date as the server says them; 0 where it does not.

        Raises:
            OSError: the server does not answer, or not with the file.
        """
        answer = _request("HEAD", self.url, {})
        date = answer.get("Last-Modified")
        seconds = parsedate_to_datetime(date).timestamp() if date else 0.0
        size = int(answer.get("Content-Length", 0))
        times = {"st_atime_ns": int(seconds * 1e9), "st_mtime_ns": int(seconds * 1e9), "st_ctime_ns": 0}
        return os.stat_result((0o100444, 0, 0, 1, 0, 0, size, seconds, seconds, 0), times)

    def open(self, *_: Any, **__: Any) -> Any:
        """The file for reading bytes at any place."""
        return _Reader(self.url, self.stat().st_size)


class _Reader(io.RawIOBase):
    """A web file, read by ranges."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._at = url, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        answer = _POOL.request("GET", self._url, headers=auth_headers() | {"Range": f"bytes={self._at}-{end - 1}"})
        if answer.status != 206:
            raise OSError(f"{self._url}: the server answers {answer.status} to a range of bytes; expected 206")
        self._at += len(answer.data)
        return answer.data


def _request(method: str, url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    try:
        answer = _POOL.request(method, url, headers=auth_headers() | dict(headers))
    except urllib3.exceptions.HTTPError as error:
        raise OSError(0, f"{type(error).__name__}: no answer", url) from error
    if answer.status != 200:
        raise FileNotFoundError(answer.status, f"the server answers {answer.status}", url)
    return cast("Mapping[str, str]", answer.headers)
