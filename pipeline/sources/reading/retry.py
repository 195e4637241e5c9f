"""Reads that fail for a moment are tried again; files that are damaged, changed or gone are not."""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pipeline.errors import TransientReadError
from pipeline.sources.http_path import WebPath

WAITS_S = (1.0, 4.0, 15.0)
"""Seconds before the second, third and fourth try: a hiccup has passed by then, and a lost server is not waited for."""

_MOMENTARY = (
    errno.EIO,
    errno.ESTALE,
    errno.EREMOTEIO,
    errno.EAGAIN,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.ECONNABORTED,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
)
_SAID = (
    *(os.strerror(number).lower() for number in _MOMENTARY),
    # libcurl's words, and the statuses that a store gives while it is overloaded.
    "timed out",
    "timeout",
    "could not resolve host",
    "recv failure",
    "send failure",
    "empty reply from server",
    *(f"http error code : {status}" for status in (429, 500, 502, 503, 504)),
    *(f"response_code={status}" for status in (429, 500, 502, 503, 504)),
)
_PIECE_BYTES = 1 << 22

_log = logging.getLogger("landcover")
Given = TypeVar("Given")


def patiently(read: Callable[[], Given], *, waits_s: tuple[float, ...] = WAITS_S) -> Given:
    """What `read` gives; after each `TransientReadError` it is tried again, after a wait.

    Args:
        read: may be called several times.
        waits_s: seconds before each further try.

    Raises:
        TransientReadError: the last try failed for a moment too.
    """
    for wait in waits_s:
        try:
            return read()
        except TransientReadError as error:
            _log.warning("%s; trying again in %g s", error, wait)
            time.sleep(wait)
    return read()


def momentary(error: BaseException, path: Path) -> bool:
    """Whether reading a file failed for a reason that passes.

    GDAL hands on a system's error as text, or not at all; then the file's bytes are read once without GDAL. A file
    that gives all its bytes and no image is damaged.

    Args:
        error: with what reading failed.
        path: the file.
    """
    if any(isinstance(e, OSError) and e.errno in _MOMENTARY for e in _chain(error)):
        return True
    text = " ".join(str(e) for e in _chain(error)).lower()
    if any(said in text for said in _SAID):
        return True
    if isinstance(path, WebPath):
        return False
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(_PIECE_BYTES):
                pass
    except OSError as own:
        return own.errno in _MOMENTARY
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
