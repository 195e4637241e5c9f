"""Finds 7z archives, `NAME.7z` or volumes `NAME.7z.001`, `.002`, …, and checks the md5 sums beside them."""

import hashlib
import io
import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from pipeline.errors import DeliveryError
from pipeline.progress import SILENT, Progress
from pipeline.sources.download.record import downloaded_paths
from pipeline.sources.md5_lists import parse_sums
from pipeline.sources.range_reader import RangeReader
from pipeline.sources.short_lists import first_names

_ARCHIVE = re.compile(r"(?P<base>.+\.7z)(\.(?P<number>\d{3,}))?", re.IGNORECASE)
_SIGNATURE = b"7z\xbc\xaf\x27\x1c"
_START_HEADER = struct.Struct("<6s2x4xQQ4x")
"""Signature, and offset and size of the header at the archive's end (7zFormat.txt of the LZMA SDK)."""
_READ_BYTES = 2**20
_MAX_LIST_BYTES = 2**20
"""Of each `.md5` file: 10 000 lines of 100 bytes."""


@dataclass(frozen=True, order=True)
class Archive:
    """A 7z archive: one file, or several volumes."""

    path: Path
    """`NAME.7z`; a file has this name only if the archive has no volumes."""
    volumes: tuple[Path, ...]
    """In their order; the archive itself if it is one file."""
    sizes: tuple[int, ...]
    """Bytes of each volume."""

    @property
    def size(self) -> int:
        """Bytes of all volumes."""
        return sum(self.sizes)

    def open(self) -> io.BufferedReader:
        """All volumes as one seekable file; one volume is open at a time.

        Raises:
            OSError: a volume cannot be read.
        """
        return io.BufferedReader(RangeReader(self.size, self._read), _READ_BYTES)

    def volume_at(self, position: int) -> Path:
        """The volume that contains byte `position` of the whole archive; the last one for bytes beyond the end."""
        return self.volumes[self._number_at(position)]

    def _number_at(self, position: int) -> int:
        return min(bisect_right(list(accumulate(self.sizes)), position), len(self.sizes) - 1)

    def _read(self, position: int, count: int) -> bytes:
        """Reads up to `count` bytes from one volume."""
        number = self._number_at(position)
        end = sum(self.sizes[: number + 1])
        with self.volumes[number].open("rb", buffering=0) as file:
            file.seek(position - end + self.sizes[number])
            # Not beyond the volume's size in the archive, even if the file has grown since.
            return file.read(min(count, end - position))


def find_archives(paths: Iterable[Path]) -> tuple[tuple[Archive, ...], tuple[Path, ...]]:
    """Sorts paths into archives and folders; any volume means its whole archive, and `.md5` files are ignored.

    A folder of `landcover fetch` counts as the archives that were downloaded into it.

    Checks by its start header and the sizes of its volumes that each archive is complete.

    Raises:
        DeliveryError: a path that is neither an archive nor a folder, a missing volume, a truncated archive, an
            incomplete download.

    Example:
        >>> archives, folders = find_archives([Path("BDORTHO_D034.7z.001"), Path("LIDARHD_D034")])
    """
    bases: dict[Path, None] = {}
    folders: dict[Path, None] = {}
    for given in paths:
        path = given.absolute()
        match = _ARCHIVE.fullmatch(path.name)
        if path.is_dir():
            archives, rasters = downloaded_paths(path) or ([], [path])
            bases |= dict.fromkeys(a.with_name(m["base"]) for a in archives if (m := _ARCHIVE.fullmatch(a.name)))
            folders |= dict.fromkeys(rasters)
        elif match:
            bases[path.with_name(match["base"])] = None
        elif path.suffix.lower() != ".md5":
            raise DeliveryError(
                f"{path}: neither an archive nor a folder; expected NAME.7z, a volume NAME.7z.001, or a folder"
            )
    return tuple(_check_complete(_gather(base)) for base in bases), tuple(folders)


def _gather(base: Path) -> Archive:
    try:
        if base.is_file():
            return Archive(base, (base,), (base.stat().st_size,))
        numbered = re.compile(re.escape(base.name) + r"\.(\d{3,})", re.IGNORECASE)
        found = {int(m[1]): p for p in base.parent.iterdir() if (m := numbered.fullmatch(p.name))}
        sizes = {n: p.stat().st_size for n, p in found.items()}
    except OSError as error:
        raise DeliveryError(f"{base}: cannot be read: {error.strerror}") from error
    if not found:
        raise DeliveryError(f"{base}: no such file, and no volume {base.name}.001; check the path")
    listed = (int(m[1]) for name in _read_sums(base) if (m := numbered.fullmatch(name)))
    missing = sorted(set(range(1, max([*found, *listed]) + 1)) - found.keys())
    if missing:
        raise _missing(base, missing)
    order = sorted(found)
    return Archive(base, tuple(found[n] for n in order), tuple(sizes[n] for n in order))


def _missing(base: Path, numbers: Sequence[int]) -> DeliveryError:
    names = first_names([f"{base.name}.{n:03d}" for n in numbers], 20)
    return DeliveryError(f"{base.parent}: missing {names}; download all volumes of the archive")


def _check_complete(archive: Archive) -> Archive:
    """Returns the archive if its volumes have the bytes that its start header declares."""
    try:
        with archive.open() as file:
            head = file.read(_START_HEADER.size)
    except OSError as error:
        raise DeliveryError(f"{archive.path}: cannot be read: {error.strerror}") from error
    if not head.startswith(_SIGNATURE):
        raise DeliveryError(
            f"{archive.volumes[0]}: not a 7z archive: its first bytes are {head[:6]!r}; expected {_SIGNATURE!r}"
        )
    if len(head) < _START_HEADER.size:
        raise _truncated(archive.volumes[0], f"its {len(head)} bytes are fewer than those of a start header")
    _, offset, size = _START_HEADER.unpack(head)
    declared = _START_HEADER.size + offset + size
    if archive.size >= declared:
        return archive
    for volume, has in zip(archive.volumes[:-1], archive.sizes[:-1], strict=True):
        if has != archive.sizes[0]:
            raise _truncated(volume, f"it has {has} bytes, the volumes before it {archive.sizes[0]}")
    sizes = f"the archive declares {declared} bytes and has {archive.size}"
    if archive.path not in archive.volumes and len(set(archive.sizes)) == 1:
        raise DeliveryError(f"{sizes}: {_missing(archive.path, [len(archive.volumes) + 1])}")
    raise _truncated(archive.volumes[-1], sizes)


def _truncated(volume: Path, cause: str) -> DeliveryError:
    return DeliveryError(f"{volume}: is truncated: {cause}; download it again")


def check_md5(archives: Sequence[Archive], progress: Progress = SILENT) -> list[str]:
    """Compares every volume with the md5 sum beside it; returns a sentence for each archive with volumes without one.

    Any `.md5` file in the archive's folder may contain the sums: lines of sum and name, or the sum alone in
    `<volume>.md5`.

    Raises:
        DeliveryError: a checksum mismatch, or a volume that cannot be read.
    """
    notes = []
    progress.start(sum(a.size for a in archives), "bytes")
    for archive in archives:
        sums = _read_sums(archive.path)
        without = [v.name for v in archive.volumes if v.name not in sums]
        if without:
            some = first_names(without, 3)
            notes.append(f"{archive.path.name}: no md5 for {some}: only the checksums inside the archive are checked")
        for volume, size in zip(archive.volumes, archive.sizes, strict=True):
            if volume.name in sums:
                _check(volume, sums[volume.name])
            progress.advance(size)
    return notes


def _check(volume: Path, expected: str) -> None:
    try:
        with volume.open("rb") as file:
            # IGN's choice of checksum, against damage and not for security.
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DeliveryError(f"{volume}: cannot be read: {error.strerror}") from error
    if found != expected:
        raise DeliveryError(f"{volume}: checksum mismatch: md5 {found}, expected {expected}; download it again")


def _read_sums(base: Path) -> dict[str, str]:
    """File name → md5 in lower case, from all `.md5` files beside `base`."""
    sums: dict[str, str] = {}
    try:
        for path in sorted(p for p in base.parent.iterdir() if p.suffix.lower() == ".md5" and p.is_file()):
            with path.open("rb") as file:
                sums |= parse_sums(file.read(_MAX_LIST_BYTES), alone=path.stem)
    except OSError as error:
        raise DeliveryError(f"{base.parent}: its md5 files cannot be read: {error.strerror}") from error
    return sums
