"""Members of an archive → files below one folder: each whole under its name, or not there."""

import os
import re
import shutil
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.domain import Domain
from pipeline.durable import sync
from pipeline.errors import DeliveryError, StorageError
from pipeline.lock import lock_folder
from pipeline.progress import Progress
from pipeline.sources.delivery.names import check_domain, parse
from pipeline.sources.staging.archives import Archive
from pipeline.sources.staging.sevenzip import Contents, Member, Stream, Tape

WORK = ".stage"
"""Folder inside the staging folder for what is being written: cleared at every start, but for the journal."""

JOURNAL = "journal.jsonl"
"""Headers and signatures of elevation files, so that they are read once."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")
_SPARE_BYTES = 2**20
"""Left free: folders and their entries take room too."""
_SHOWN = 10

Known = Mapping[str, tuple[int, int]]
"""Path below the staging folder → (size, CRC-32) of files that need not be there: see `small`."""


@dataclass(frozen=True)
class Unpacked:
    """What became of an archive's files."""

    written: int
    kept: int
    """Were there already, with the size and CRC that the archive has."""
    size_bytes: int
    """Bytes written."""


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Makes the staging folder, keeps a second `stage` out of it, and yields a folder inside for work.

    Raises:
        LockError: another `stage` is at work there.
        StorageError: it cannot be made or written.
    """
    work = folder / WORK
    with lock_folder(work, what=f"the staging folder {folder}"):
        _clear(work)
        yield work
        _clear(work)


def _clear(work: Path) -> None:
    try:
        for path in work.iterdir():
            # The lock is a folder.
            if path.name != JOURNAL and not path.is_dir():
                path.unlink()
    except OSError as error:
        raise StorageError(f"{work}: cannot be cleared: {error.strerror}; remove it by hand") from error


def check_members(contents: Sequence[tuple[Archive, Contents]], domain: Domain) -> None:
    """Refuses, before anything is written, what cannot or must not be placed.

    Raises:
        DeliveryError: a path that leaves the folder or is none, a link or device, two members at one path, a file
            of another domain; all of them are listed.
    """
    problems: list[str] = []
    seen: dict[str, tuple[Archive, Member]] = {}
    for archive, inside in contents:
        for member in inside.members:
            if wrong := _unsafe(member):
                problems.append(f"{archive.path.name}: {member.name!r} {wrong}")
                continue
            first = seen.setdefault(member_path(member), (archive, member))
            if first[1] != member:
                problems.append(
                    f"{archive.path.name}: {member.name!r} is also in {first[0].path.name}, with another content"
                )
            delivered = parse(Path(member.name)) if member.kind == "file" else None
            if delivered:
                problems += [f"{archive.path.name}: {p}" for p in check_domain([delivered], domain)]
    if problems:
        more = f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DeliveryError("nothing was unpacked:\n  " + "\n  ".join(problems[:_SHOWN]) + more)


def _unsafe(member: Member) -> str | None:
    if member.kind not in {"file", "folder"}:
        return f"is a {member.kind}; expected files and folders only"
    path = PurePosixPath(member.name)
    if path.is_absolute() or _DRIVE.match(member.name):
        return "is an absolute path; expected one below the archive's folder"
    if ".." in path.parts:
        return "leaves the archive's folder by `..`"
    if not path.parts or _UNSAFE.search(member.name):
        return "is no name of a file: it is empty or has control characters"
    if path.parts[0] == WORK:
        return "is the name of stage's own folder"
    return None


def member_path(member: Member) -> str:
    """Where a safe member belongs below the staging folder."""
    return str(PurePosixPath(member.name))


def pending(contents: Contents, folder: Path, *, gone: Known, progress: Progress) -> frozenset[str]:
    """Paths of the members that are not yet in the folder with the size and CRC that the archive has.

    Args:
        contents: of an archive whose members are safe.
        folder: where they belong.
        gone: files that may be absent.
        progress: counts the bytes of members that are there.

    Raises:
        StorageError: a file that is there cannot be read.
    """
    lacking = set()
    for member in (m for m in contents.members if m.kind == "file"):
        relative = member_path(member)
        if _there(member, folder / relative) or _given_up(member, folder / relative, gone.get(relative)):
            progress.advance(member.size)
        else:
            lacking.add(relative)
    return frozenset(lacking)


def _given_up(member: Member, path: Path, known: tuple[int, int] | None) -> bool:
    return known == (member.size, member.crc) and not path.exists()


def _there(member: Member, path: Path) -> bool:
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != member.size:
            return False
        return member.size == 0 or (member.crc is not None and crc_of(path) == member.crc)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unwritable(path, error) from error


def crc_of(path: Path) -> int:
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
    """Raises StorageError unless what the members declare fits on the disk of `folder`."""
    wanted, free = sum(m.size for m in members), shutil.disk_usage(folder).free
    if wanted + _SPARE_BYTES > free:
        raise StorageError(
            f"{folder}: the archives declare {wanted / 1e9:.3f} GB to unpack and {free / 1e9:.3f} GB are free; "
            "make room, choose another --out, or check the archives if this is more than they can hold"
        )


def unpack(
    archive: Archive,
    contents: Contents,
    folder: Path,
    *,
    wanted: frozenset[str],
    work: Path,
    progress: Progress,
) -> Unpacked:
    """Unpacks an archive's wanted members into the folder, stream by stream; memory does not grow with their number.

    A member is written in `work`, synced, and renamed when its size and CRC are right. Folders of members are synced
    once at the end.

    Args:
        archive: it, checked by `check_members`.
        contents: what is in it.
        folder: the staging folder.
        wanted: what `pending` gave.
        work: what `claimed` gave, on the same disk.
        progress: counts unpacked bytes.

    Raises:
        DeliveryError: the archive is damaged, or a folder on the way is a link out of the staging folder.
        StorageError: the folder cannot be written.
    """
    placer = _Placer(folder, work, wanted, progress)
    try:
        for member in contents.empty:
            placer.empty(member)
        with archive.open() as file:
            for stream in contents.streams:
                placer.stream(Tape(archive, stream, file), stream)
        placer.sync()
    except OSError as error:
        raise _unwritable(folder, error) from error
    files = [m for m in contents.members if m.kind == "file"]
    return Unpacked(placer.written, len(files) - placer.written, placer.size_bytes)


class _Placer:
    """Puts members where they belong."""

    def __init__(self, folder: Path, work: Path, wanted: frozenset[str], progress: Progress) -> None:
        self._folder, self._real, self._work = folder, folder.resolve(), work
        self._wanted, self._progress = wanted, progress
        self._parents: set[Path] = set()
        self.written = self.size_bytes = 0

    def empty(self, member: Member) -> None:
        """A folder, or a file without bytes."""
        path = self._folder / member_path(member)
        if member.kind == "folder":
            self._make(path)
        elif member_path(member) in self._wanted:
            self._place(path, member, iter(()))

    def stream(self, tape: Tape, stream: Stream) -> None:
        """The wanted members of a stream; what lies behind the last of them is not unpacked."""
        last = max((i for i, m in enumerate(stream.members) if member_path(m) in self._wanted), default=-1)
        for member in stream.members[: last + 1]:
            if member_path(member) not in self._wanted:
                # Members share one stream: what is there already still has to be decoded to get past it.
                for _ in tape.take(member.size):
                    pass
            elif not self._place(self._folder / member_path(member), member, tape.take(member.size)):
                raise tape.damaged(member)

    def _place(self, path: Path, member: Member, pieces: Iterator[memoryview]) -> bool:
        """Writes a file and renames it into place; False, and nothing there, when its CRC is wrong."""
        self._make(path.parent)
        temporary, crc = self._work / "member", 0
        with temporary.open("wb") as file:
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

    def _make(self, parent: Path) -> None:
        if parent in self._parents:
            return
        # A link that somebody laid in the staging folder would lead a member elsewhere.
        if not parent.resolve().is_relative_to(self._real):
            raise DeliveryError(f"{parent}: is a link out of {self._folder}; remove it, or choose another --out")
        parent.mkdir(parents=True, exist_ok=True)
        self._parents.add(parent)

    def sync(self) -> None:
        """Waits until the names of all that was placed are on the disk."""
        for parent in sorted(self._parents):
            sync(parent)


def _unwritable(path: Path, error: OSError) -> StorageError:
    where = error.filename or path
    return StorageError(
        f"{where}: cannot be written: {error.strerror or error}; is there room, and the right to write? "
        "Run the same command again: what is unpacked is kept"
    )
