"""Downloads files: whole under their names or not at all, resumed where a connection or a process ended.

The bytes that have come lie in `.NAME.TAG.part`, where TAG is made of the length and md5 that the feed gives. When
all have come and their md5 is right, the file gets its name.
"""

import errno
import hashlib
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import BinaryIO

from pipeline.durable import check_free, out_of_space, sync
from pipeline.errors import DownloadError, StorageError
from pipeline.progress import Progress
from pipeline.sources.download.service import RemoteFile, Service
from pipeline.sources.http_client import RequestError, UnavailableError
from pipeline.sources.short_lists import first_lines
from pipeline.untrusted.own_files import open_plain, own_entries

log = logging.getLogger("landcover")

CONNECTIONS = 3
"""Files that are downloaded at a time: IGN asks for two to four at most."""
PAUSE_S = 1.0
"""Seconds before a broken download goes on; doubled each time that nothing came."""
_MOST_CUTS = 200
"""Of one file, after which its download has failed."""
_MOST_IDLE = 6
"""Broken connections in a row that brought nothing."""
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Download:
    """A file to download, and where to."""

    file: RemoteFile
    path: Path

    @property
    def part(self) -> Path:
        """Where the bytes lie that have come. A file that changes on the service gets another one."""
        tag = hashlib.sha256(f"{self.file.length} {self.file.md5}".encode()).hexdigest()[:16]
        return self.path.with_name(f".{self.path.name}.{tag}.part")

    @property
    def missing_bytes(self) -> int:
        """Bytes that have not come yet."""
        try:
            return max(self.file.length - self.part.lstat().st_size, 0)
        except FileNotFoundError:
            return self.file.length


def missing_downloads(downloads: Sequence[Download], progress: Progress) -> tuple[Download, ...]:
    """The downloads whose files are not there with the right length and md5.

    Args:
        downloads: all of a folder.
        progress: counts the bytes that are compared.

    Raises:
        StorageError: a file cannot be read.
    """
    try:
        there = {d.path for d in downloads if d.path.is_file() and d.path.stat().st_size == d.file.length}
        progress.start(sum(d.file.length for d in downloads if d.path in there), "bytes")
        return tuple(d for d in downloads if d.path not in there or not _has_md5(d, progress))
    except OSError as error:
        raise StorageError(f"{error.filename}: cannot be read: {error.strerror}; check its permissions") from error


def _has_md5(download: Download, progress: Progress) -> bool:
    found = _md5()
    with download.path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            found.update(piece)
            progress.advance(len(piece))
    return download.file.md5 in (None, found.hexdigest())


def check_space(downloads: Sequence[Download], folder: Path) -> None:
    """Checks that the files fit on the disk.

    Raises:
        StorageError: they do not.
    """
    size = sum(d.missing_bytes for d in downloads)
    check_free(folder, size, work="the download", remedy="choose another --out, or fetch less (--with)")


def download_all(downloads: Sequence[Download], service: Service, progress: Progress) -> None:
    """Downloads files, some at a time. One that fails does not stop the others.

    Args:
        downloads: what is missing.
        service: only its hosts are asked.
        progress: counts received bytes.

    Raises:
        DownloadError: some files could not be downloaded. The message lists them.
        StorageError: the folder cannot be written.
    """
    progress.start(sum(d.missing_bytes for d in downloads), "bytes")
    stop = Event()
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="landcover-fetch") as pool:
        transfers = [pool.submit(_Transfer(d, service, progress, stop).run) for d in downloads]
        try:
            failures = [failure for transfer in transfers if (failure := transfer.result())]
        finally:
            # After an error of the disk, or a signal: the other threads end at their next piece.
            stop.set()
            for transfer in transfers:
                transfer.cancel()
    if failures:
        raise DownloadError(
            f"{len(failures)} of {len(downloads)} files could not be downloaded:{first_lines(failures)}\n"
            "  Complete files were kept, and the others resume: run the same command again"
        )


class _Transfer:
    """The download of one file."""

    def __init__(self, download: Download, service: Service, progress: Progress, stop: Event) -> None:
        self._download, self._file, self._part = download, download.file, download.part
        self._service, self._progress, self._stop = service, progress, stop
        self._size, self._md5 = 0, _md5()

    def run(self) -> str | None:
        """Downloads the file; returns a sentence where that failed."""
        try:
            self._download.path.parent.mkdir(parents=True, exist_ok=True)
            return self._run()
        except RequestError as error:
            return str(error)
        except OSError as error:
            raise _write_error(self._download.path, error) from error

    def _run(self) -> str | None:
        for last_try in (False, True):
            self._receive_all()
            if self._stop.is_set():
                return None
            found = self._md5.hexdigest()
            if self._file.md5 in (None, found):
                self._finish()
                return None
            # Perhaps bytes of an earlier call are damaged: once more, from the first byte on.
            self._discard()
            if last_try:
                return f"{self._file.url}: checksum mismatch: md5 {found}, expected {self._file.md5}"
        return None

    def _receive_all(self) -> None:
        """Receives until the file has its length. Connections that break are opened again where they broke."""
        cuts = idle = 0
        with os.fdopen(open_plain(self._part, os.O_RDWR | os.O_CREAT), "r+b") as part:
            self._resume(part)
            while self._size < self._file.length and not self._stop.is_set():
                before = self._size
                try:
                    self._receive(part)
                except UnavailableError as error:
                    cuts, idle = cuts + 1, 0 if self._size > before else idle + 1
                    if cuts > _MOST_CUTS or idle > _MOST_IDLE:
                        raise
                    if idle:
                        log.warning("%s; trying again in %.0f s", error, PAUSE_S * 2**idle)
                    self._stop.wait(PAUSE_S * 2**idle)
            part.flush()
            os.fsync(part.fileno())

    def _resume(self, part: BinaryIO) -> None:
        """Reads the bytes that are there, as the sum over all bytes needs them."""
        self._size, self._md5 = 0, _md5()
        part.truncate(min(os.fstat(part.fileno()).st_size, self._file.length))
        while piece := part.read(_READ_BYTES):
            self._md5.update(piece)
            self._size += len(piece)

    def _receive(self, part: BinaryIO) -> None:
        """Receives from one connection.

        Raises:
            UnavailableError: it broke; more may come over another one.
            RequestError: the file has another length than its feed says, or is refused.
        """
        url, expected = self._file.url, self._file.length
        with self._service.open_file(self._file, self._size) as stream:
            if stream.length not in (None, expected):
                self._discard()
                raise RequestError(0, f"has {stream.length} bytes; expected {expected} as in its feed", url)
            if stream.start != self._size:
                self._progress.advance(-self._size)
                part.seek(0)
                part.truncate()
                self._size, self._md5 = 0, _md5()
            for piece in stream.pieces:
                if self._size + len(piece) > expected:
                    self._discard()
                    raise RequestError(0, f"sends more than the {expected} bytes of its feed", url)
                part.write(piece)
                self._md5.update(piece)
                self._size += len(piece)
                self._progress.advance(len(piece))
                if self._stop.is_set():
                    return
        if self._size < expected:
            raise UnavailableError(0, f"the answer ends after {self._size} of {expected} bytes; try again later", url)

    def _finish(self) -> None:
        self._part.replace(self._download.path)
        sync(self._download.path.parent)
        # Of a file that has changed on the service since.
        name = re.escape(self._download.path.name)
        for left in own_entries(self._download.path.parent, pattern=rf"\.{name}\.[0-9a-f]{{16}}\.part", kind="file"):
            left.unlink()

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._progress.advance(-self._size)
        self._size = 0


def _md5() -> "hashlib._Hash":
    # IGN's choice of checksum, against damage and not for security.
    return hashlib.md5(usedforsecurity=False)


def _write_error(path: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return out_of_space(path, error)
    return StorageError(
        f"{error.filename or path}: cannot be written: {error.strerror or error}; check its permissions"
    )
