"""Retries reads that fail for a temporary reason; reads of damaged, changed or missing files are not retried."""

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
"""Seconds before the second, third and fourth try: enough for a short failure, too short to wait for a lost server."""

_TRANSIENT_ERRNOS = (
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
_TRANSIENT_TEXTS = (
    *(os.strerror(number).lower() for number in _TRANSIENT_ERRNOS),
    # Messages of libcurl, and the statuses of an overloaded server.
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
Result = TypeVar("Result")


def with_retries(read: Callable[[], Result], *, waits_s: tuple[float, ...] = WAITS_S) -> Result:
    """Returns the result of `read`, which is called again, after a wait, for each `TransientReadError`.

    Args:
        read: may be called several times.
        waits_s: seconds before each retry.

    Raises:
        TransientReadError: the last try failed too.
    """
    for wait in waits_s:
        try:
            return read()
        except TransientReadError as error:
            _log.warning("%s; retrying in %g s", error, wait)
            time.sleep(wait)
    return read()


def is_transient(error: BaseException, path: Path) -> bool:
    """True if reading a file failed for a temporary reason, such as a stale file handle or an overloaded server.

    GDAL reports a system error as text, or not at all. In that case the file's bytes are read once without GDAL: if
    they can be read, the file is damaged.

    Args:
        error: the exception of the read.
        path: the file.
    """
    if any(isinstance(e, OSError) and e.errno in _TRANSIENT_ERRNOS for e in _chain(error)):
        return True
    text = " ".join(str(e) for e in _chain(error)).lower()
    if any(part in text for part in _TRANSIENT_TEXTS):
        return True
    if isinstance(path, WebPath):
        return False
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(_PIECE_BYTES):
                pass
    except OSError as own:
        return own.errno in _TRANSIENT_ERRNOS
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
