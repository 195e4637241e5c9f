"""Archives of a delivery on disk: `NAME.7z`, or its volumes `NAME.7z.001`, `.002`, …, and the md5 sums beside them."""

import hashlib
import io
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from pipeline.errors import DeliveryError
from pipeline.progress import SILENT, Progress

_ARCHIVE = re.compile(r"(?P<base>.+\.7z)(\.(?P<number>\d{3,}))?", re.IGNORECASE)
_SIGNATURE = b"7z\xbc\xaf\x27\x1c"
_START_HEADER = struct.Struct("<6s2x4xQQ4x")
"""Signature, offset and size of the header at the archive's end (7zFormat.txt of the LZMA SDK)."""
_READ_BYTES = 2**20
_SUM_LINE = re.compile(r"\\?(?P<sum>[0-9a-f]{32})(\s+\*?(?P<name>.+))?", re.IGNORECASE)
_SUM_LINE_BSD = re.compile(r"MD5 ?\((?P<name>.+)\) ?= ?(?P<sum>[0-9a-f]{32})", re.IGNORECASE)
_SUMS_BYTES = 2**20
"""No list of sums is longer: 10 000 lines of 100 bytes."""


@dataclass(frozen=True, order=True)
class Archive:
    """A 7z archive: one file, or consecutive volumes of it."""

    path: Path
    """`NAME.7z`: there is a file of this name only where the archive is one file."""
    volumes: tuple[Path, ...]
    """In their order."""
    sizes: tuple[int, ...]
    """Bytes of each volume."""

    @property
    def size(self) -> int:
        """Bytes of all volumes."""
        return sum(self.sizes)

    def open(self) -> io.BufferedReader:
        """All volumes as one seekable file; one volume is open at a time.

        Raises:
            OSError: when a volume cannot be read.
        """
        return io.BufferedReader(_Joined(self), _READ_BYTES)

    def volume_at(self, position: int) -> Path:
        """The volume in which byte `position` of the whole lies; the last one beyond the end."""
        ends = accumulate(self.sizes)
        return next((v for v, end in zip(self.volumes, ends, strict=True) if position < end), self.volumes[-1])


class _Joined(io.RawIOBase):
    """Volumes read as one file."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._starts = (0, *accumulate(archive.sizes))
        self._position = 0
        self._number = -1
        self._file: io.FileIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._archive.size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} is before the archive's start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self._archive.size:
            return 0
        number = next(i for i, start in enumerate(self._starts[1:]) if self._position < start)
        if number != self._number or self._file is None:
            self.close_volume()
            self._file, self._number = io.FileIO(self._archive.volumes[number]), number
        self._file.seek(self._position - self._starts[number])
        # Never into the next volume, even when this one has grown since its size was taken.
        count = self._file.readinto(memoryview(buffer)[: self._starts[number + 1] - self._position])
        self._position += count
        return count

    def close_volume(self) -> None:
        """Closes the open volume, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        self.close_volume()
        super().close()


def find(paths: Iterable[Path]) -> tuple[tuple[Archive, ...], tuple[Path, ...]]:
    """Archives and folders among what was given; any volume stands for its whole archive, `.md5` files for nothing.

    Every archive is whole as far as its start header and its volumes' sizes tell.

    Raises:
        DeliveryError: something that is neither, a volume that is missing, an archive that is cut off or is none.
    """
    bases: dict[Path, None] = {}
    folders: dict[Path, None] = {}
    for given in paths:
        path = given.absolute()
        match = _ARCHIVE.fullmatch(path.name)
        if path.is_dir():
            folders[path] = None
        elif match:
            bases[path.with_name(match["base"])] = None
        elif path.suffix.lower() != ".md5":
            raise DeliveryError(
                f"{path}: is no archive by its name: expected NAME.7z, a volume NAME.7z.001, or a folder"
            )
    return tuple(_whole(_gathered(base)) for base in bases), tuple(folders)


def _gathered(base: Path) -> Archive:
    try:
        if base.is_file():
            return Archive(base, (base,), (base.stat().st_size,))
        numbered = re.compile(re.escape(base.name) + r"\.(\d{3,})", re.IGNORECASE)
        found = {int(m[1]): p for p in base.parent.iterdir() if (m := numbered.fullmatch(p.name))}
        sizes = {n: p.stat().st_size for n, p in found.items()}
    except OSError as error:
        raise DeliveryError(f"{base}: cannot be read: {error.strerror}") from error
    if not found:
        raise DeliveryError(f"{base}: there is no such file, and no volume {base.name}.001")
    listed = (int(m[1]) for name in _sums(base) if (m := numbered.fullmatch(name)))
    missing = sorted(set(range(1, max([*found, *listed]) + 1)) - found.keys())
    if missing:
        raise _missing(base, missing)
    order = sorted(found)
    return Archive(base, tuple(found[n] for n in order), tuple(sizes[n] for n in order))


def _missing(base: Path, numbers: Sequence[int]) -> DeliveryError:
    names = ", ".join(f"{base.name}.{n:03d}" for n in numbers)
    return DeliveryError(f"{base.parent}: missing {names}; an archive needs all of its volumes: download it too")


def _whole(archive: Archive) -> Archive:
    """The archive, when its volumes hold what its start header says."""
    try:
        with archive.open() as file:
            head = file.read(_START_HEADER.size)
    except OSError as error:
        raise DeliveryError(f"{archive.path}: cannot be read: {error.strerror}") from error
    if not head.startswith(_SIGNATURE):
        raise DeliveryError(
            f"{archive.volumes[0]}: is no 7z archive: its first bytes are {head[:6]!r}; expected {_SIGNATURE!r}"
        )
    if len(head) < _START_HEADER.size:
        raise _cut(archive.volumes[0], f"{len(head)} bytes are less than its start header")
    _, offset, size = _START_HEADER.unpack(head)
    declared = _START_HEADER.size + offset + size
    if archive.size >= declared:
        return archive
    for volume, has in zip(archive.volumes[:-1], archive.sizes[:-1], strict=True):
        if has != archive.sizes[0]:
            raise _cut(volume, f"it has {has} bytes, the volumes before it {archive.sizes[0]}")
    lacking = f"the archive says that it has {declared} bytes; {archive.size} are there"
    if archive.path not in archive.volumes and len(set(archive.sizes)) == 1:
        raise DeliveryError(f"{lacking}: {_missing(archive.path, [len(archive.volumes) + 1])}")
    raise _cut(archive.volumes[-1], lacking)


def _cut(volume: Path, what: str) -> DeliveryError:
    return DeliveryError(f"{volume}: is truncated: {what}; download it again")


def check_sums(archives: Sequence[Archive], progress: Progress = SILENT) -> list[str]:
    """Reads every volume that has an md5 sum beside it; returns a sentence for each archive with volumes without one.

    Sums stand in any `.md5` file of the archive's folder: lines of sum and name, or the sum alone in
    `<volume>.md5`.

    Raises:
        DeliveryError: a volume whose md5 is another, or that cannot be read.
    """
    notes = []
    progress.start(sum(a.size for a in archives), "bytes")
    for archive in archives:
        sums = _sums(archive.path)
        without = [v.name for v in archive.volumes if v.name not in sums]
        if without:
            some = ", ".join(without[:3]) + (f" and {len(without) - 3} more" if len(without) > 3 else "")
            notes.append(f"{archive.path.name}: no md5 for {some}: not checked, but for the sums inside the archive")
        for volume, size in zip(archive.volumes, archive.sizes, strict=True):
            if volume.name in sums:
                _check(volume, sums[volume.name])
            progress.advance(size)
    return notes


def _check(volume: Path, expected: str) -> None:
    try:
        with volume.open("rb") as file:
            found = hashlib.file_digest(file, _md5).hexdigest()
    except OSError as error:
        raise DeliveryError(f"{volume}: cannot be read: {error.strerror}") from error
    if found != expected:
        raise DeliveryError(f"{volume}: its md5 is {found}; expected {expected}: download it again")


def _md5() -> "hashlib._Hash":
    # A checksum against damage, which IGN chose; not for security.
    return hashlib.md5(usedforsecurity=False)


def _sums(base: Path) -> dict[str, str]:
    """File name → md5 in lower case, from all `.md5` files beside `base`."""
    sums: dict[str, str] = {}
    try:
        for path in sorted(p for p in base.parent.iterdir() if p.suffix.lower() == ".md5" and p.is_file()):
            with path.open("rb") as file:
                # Names in other encodings than UTF-8 are none that we look for.
                text = file.read(_SUMS_BYTES).decode("utf-8-sig", errors="replace")
            for line in text.splitlines():
                if match := _SUM_LINE.fullmatch(line.strip()) or _SUM_LINE_BSD.fullmatch(line.strip()):
                    name = match["name"] or path.stem
                    sums[name.replace("\\", "/").rsplit("/", 1)[-1].strip()] = match["sum"].lower()
    except OSError as error:
        raise DeliveryError(f"{base.parent}: its md5 files cannot be read: {error.strerror}") from error
    return sums
