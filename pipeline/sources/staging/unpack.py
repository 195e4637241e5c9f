"""Unpacks members of archives into one folder; a file appears under its name only when it is complete."""

import os
import re
import secrets
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.domain import Domain
from pipeline.durable import check_free, sync
from pipeline.errors import DeliveryError, StorageError
from pipeline.lock import lock_folder
from pipeline.progress import Progress
from pipeline.sources.delivery.names import check_domain, parse_name
from pipeline.sources.short_lists import first_lines
from pipeline.sources.staging.archives import Archive
from pipeline.sources.staging.sevenzip import ArchiveContents, Member, PackedStream, StreamReader
from pipeline.untrusted.own_files import own_entries

WORK = ".stage"
"""Folder inside the staging folder for temporary files, which are removed at every start, and the scan cache."""

SCAN_CACHE = "journal.jsonl"
"""Headers and signatures of elevation files, so that they are read only once."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")
_TEMPORARY = rf"(member|height|patch)(-[0-9a-f]+)?(\.[a-z.]+)?|\.{re.escape(SCAN_CACHE)}\..*\.tmp"
"""Names of temporary files in `WORK`, with GDAL's files beside them."""

RemovedFiles = Mapping[str, tuple[int, int]]
"""Path below the staging folder → (size, CRC-32) of files that were removed on purpose, see `cleanup`."""


@dataclass(frozen=True)
class UnpackReport:
    """Numbers of an archive's files."""

    written: int
    kept: int
    """Files that existed with the size and CRC of the archive."""
    size_bytes: int
    """Written bytes."""


@contextmanager
def locked_work_folder(folder: Path) -> Iterator[Path]:
    """Makes and locks the staging folder, and yields a folder inside it for temporary files.

    Raises:
        LockError: another `stage` uses the folder.
        StorageError: it cannot be made or written.
    """
    work = folder / WORK
    if work.is_symlink():
        raise StorageError(f"{work}: expected a folder or nothing, found a link; delete it, then run again")
    with lock_folder(work, what=f"the staging folder {folder}"):
        _clear(work)
        yield work
        _clear(work)


def _clear(work: Path) -> None:
    try:
        for path in own_entries(work, pattern=_TEMPORARY, kind="file"):
            path.unlink()
    except OSError as error:
        raise StorageError(f"{work}: cannot be cleared: {error.strerror}; remove it by hand") from error


def check_members(contents: Sequence[tuple[Archive, ArchiveContents]], domain: Domain) -> None:
    """Checks all members before anything is written.

    Raises:
        DeliveryError: lists all members with an invalid path or one that leaves the folder, links and devices,
            different members at one path, and files of another domain.
    """
    problems: list[str] = []
    first_at: dict[str, tuple[Archive, Member]] = {}
    for archive, inside in contents:
        for member in inside.members:
            if wrong := _invalid_path(member):
                problems.append(f"{archive.path.name}: {member.name!r} {wrong}")
                continue
            first = first_at.setdefault(member_path(member), (archive, member))
            if first[1] != member:
                problems.append(
                    f"{archive.path.name}: {member.name!r} is also in {first[0].path.name}, with different content"
                )
            if member.kind == "file" and (delivered := parse_name(Path(member.name))):
                problems += [f"{archive.path.name}: {p}" for p in check_domain([delivered], domain)]
    if problems:
        raise DeliveryError(f"nothing was unpacked:{first_lines(problems)}")


def _invalid_path(member: Member) -> str | None:
    if member.kind not in {"file", "folder"}:
        return f"is a {member.kind}; expected only files and folders"
    path = PurePosixPath(member.name)
    if path.is_absolute() or _DRIVE.match(member.name):
        return "is an absolute path; expected one below the archive's folder"
    if ".." in path.parts:
        return "leaves the archive's folder by `..`"
    if not path.parts or _UNSAFE.search(member.name):
        return "is not a file name: it is empty or has control characters"
    if path.parts[0] == WORK:
        return "has the name of stage's own folder"
    return None


def member_path(member: Member) -> str:
    """The path of a checked member below the staging folder."""
    return str(PurePosixPath(member.name))


def missing_members(
    contents: ArchiveContents, folder: Path, *, removed: RemovedFiles, progress: Progress
) -> frozenset[str]:
    """Paths of the members that are not in the folder with the size and CRC of the archive.

    Args:
        contents: of a checked archive.
        folder: the staging folder.
        removed: files that need not exist.
        progress: counts the bytes of existing members.

    Raises:
        StorageError: an existing file cannot be read.
    """
    missing = set()
    for member in (m for m in contents.members if m.kind == "file"):
        relative = member_path(member)
        path = folder / relative
        was_removed = removed.get(relative) == (member.size, member.crc) and not path.exists()
        if was_removed or _is_unpacked(member, path):
            progress.advance(member.size)
        else:
            missing.add(relative)
    return frozenset(missing)


def _is_unpacked(member: Member, path: Path) -> bool:
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != member.size:
            return False
        return member.size == 0 or (member.crc is not None and file_crc32(path) == member.crc)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _write_error(path, error) from error


def file_crc32(path: Path) -> int:
    """CRC-32 of a file.

    Raises:
        OSError: it cannot be read.
    """
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(2**20):
            crc = zlib.crc32(piece, crc)
    return crc


def check_room(members: Iterable[Member], folder: Path) -> None:
    """Checks that the members fit on the disk of `folder`.

    Raises:
        StorageError: they do not.
    """
    remedy = "choose another --out, or check the archives if this is more than they can contain"
    check_free(folder, sum(m.size for m in members), work="unpacking", remedy=remedy)


def unpack(
    archive: Archive,
    contents: ArchiveContents,
    folder: Path,
    *,
    wanted: frozenset[str],
    work: Path,
    progress: Progress,
) -> UnpackReport:
    """Unpacks an archive's wanted members, stream by stream; memory does not grow with their number.

    A member is written in `work`, synced, and renamed if its size and CRC are right. Folders are synced once at the
    end.

    Args:
        archive: the archive.
        contents: its contents, checked by `check_members`.
        folder: the staging folder.
        wanted: paths from `missing_members`.
        work: folder for temporary files, from `locked_work_folder`.
        progress: counts unpacked bytes.

    Raises:
        DeliveryError: the archive is damaged, or one of the folders is a link out of the staging folder.
        StorageError: the folder cannot be written.
    """
    writer = _MemberWriter(folder, work, wanted, progress)
    try:
        for member in contents.empty:
            writer.write_empty(member)
        with archive.open() as file:
            for stream in contents.streams:
                writer.write_stream(StreamReader(archive, stream, file), stream)
        writer.sync()
    except OSError as error:
        raise _write_error(folder, error) from error
    files = [m for m in contents.members if m.kind == "file"]
    return UnpackReport(writer.written, len(files) - writer.written, writer.size_bytes)


class _MemberWriter:
    """Writes members below the staging folder."""

    def __init__(self, folder: Path, work: Path, wanted: frozenset[str], progress: Progress) -> None:
        self._folder, self._real, self._work = folder, folder.resolve(), work
        self._wanted, self._progress = wanted, progress
        self._parents: set[Path] = set()
        self.written = self.size_bytes = 0

    def write_empty(self, member: Member) -> None:
        """Writes a folder, or an empty file."""
        path = self._folder / member_path(member)
        if member.kind == "folder":
            self._make_folder(path)
        elif member_path(member) in self._wanted:
            self._write(path, member, iter(()))

    def write_stream(self, reader: StreamReader, stream: PackedStream) -> None:
        """Writes the wanted members of a stream; the stream is not decoded beyond the last of them."""
        last = max((i for i, m in enumerate(stream.members) if member_path(m) in self._wanted), default=-1)
        for member in stream.members[: last + 1]:
            if member_path(member) not in self._wanted:
                # Members share one stream, so members that exist must be decoded to reach those behind them.
                for _ in reader.read(member.size):
                    pass
            elif not self._write(self._folder / member_path(member), member, reader.read(member.size)):
                raise reader.damaged(member)

    def _write(self, path: Path, member: Member, pieces: Iterator[memoryview]) -> bool:
        """Writes a file and renames it into place; False, without renaming, if its CRC is wrong."""
        self._make_folder(path.parent)
        temporary, crc = self._work / f"member-{secrets.token_hex(8)}", 0
        with temporary.open("xb") as file:
            for piece in pieces:
                file.write(piece)
                crc = zlib.crc32(piece, crc)
                self._progress.advance(len(piece))
            file.flush()
            os.fsync(file.fileno())
        if member.crc is not None and crc != member.crc:
            return False
        temporary.replace(path)
        self.written, self.size_bytes = self.written + 1, self.size_bytes + member.size
        return True

    def _make_folder(self, parent: Path) -> None:
        if parent in self._parents:
            return
        # A link in the staging folder could lead a member elsewhere.
        if not parent.resolve().is_relative_to(self._real):
            raise DeliveryError(f"{parent}: is a link to outside of {self._folder}; remove it, or choose another --out")
        parent.mkdir(parents=True, exist_ok=True)
        self._parents.add(parent)

    def sync(self) -> None:
        """Waits until the names of all written files are on the disk."""
        for parent in sorted(self._parents):
            sync(parent)


def _write_error(path: Path, error: OSError) -> StorageError:
    where = error.filename or path
    return StorageError(
        f"{where}: cannot be written: {error.strerror or error}; free space or check the permissions, then run the "
        "same command again: unpacked files are kept"
    )
