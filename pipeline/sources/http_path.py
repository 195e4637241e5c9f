"""Files on the web as paths: GDAL opens them by their text, and we read their size, date and some of their bytes."""

import os
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import PosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pipeline.sources.http_client import HEADERS_VARIABLE, RequestError, auth_headers, fetch, origin
from pipeline.sources.range_reader import RangeReader

_VSICURL = "/vsicurl?url="
"""GDAL's form of a web file in which the URL is percent-encoded, and so survives as one part of a path."""


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

    def gdal_headers(self) -> str:
        """GDAL's option with the headers of the environment that it may send for this file; empty if there are none.

        GDAL follows redirects and sends its headers there too, so the file must be where it says.

        Raises:
            OSError: the server does not answer, or redirects to another origin while there are headers.
        """
        given = tuple(sorted(auth_headers(self.url).items()))
        if given:
            _check_stays(self.url, given)
        return ",".join(f'"{name}: {value}"' for name, value in given)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:  # noqa: ARG002  (Path's signature)
        """Size and date as the server states them; 0 where it does not.

        Raises:
            OSError: the server does not answer, or not with the file; or it redirects to another origin while there
                are credentials: GDAL, which reads the pixels, would send them there.
        """
        answer = fetch(self.url, method="HEAD")
        _refuse_move(self.url, answer.url)
        date, length = (answer.headers.get(name, "") for name in ("Last-Modified", "Content-Length"))
        try:
            seconds = parsedate_to_datetime(date).timestamp() if date else 0.0
            size = int(length or 0)
        except ValueError as error:
            raise RequestError(0, f"its date {date!r} or size {length!r} cannot be read", self.url) from error
        times = {"st_atime_ns": int(seconds * 1e9), "st_mtime_ns": int(seconds * 1e9), "st_ctime_ns": 0}
        return os.stat_result((0o100444, 0, 0, 1, 0, 0, size, seconds, seconds, 0), times)

    def open(self, *_: Any, **__: Any) -> Any:
        """The file for reading bytes at any place."""
        url = self.url
        return RangeReader(self.stat().st_size, lambda at, count: fetch(url, byte_range=(at, at + count - 1)).body)


@cache
def _check_stays(url: str, headers: tuple[tuple[str, str], ...]) -> None:  # noqa: ARG001  (asked again for others)
    """Raises RequestError if a server redirects a request for a file to another origin: HEAD, or GET of its bytes."""
    _refuse_move(url, fetch(url, method="HEAD").url)
    _refuse_move(url, fetch(url, byte_range=(0, 0)).url)


def _refuse_move(url: str, answered: str) -> None:
    if auth_headers(url) and origin(answered) != origin(url):
        raise RequestError(
            0,
            f"redirects to {origin(answered)}; refused while {HEADERS_VARIABLE} is set, because GDAL would send its "
            "headers there: use the file's last URL",
            url,
        )
