"""Manifests: size and SHA-256 of the files below a folder, in two files of it.

::

    SHA256SUMS      for `sha256sum -c`, and to be signed: paths are relative to the folder
    MANIFEST.json   path → size in bytes and time of the last change in nanoseconds; `SHA256SUMS` lists it too

By size and time, a publish finds what was changed since without reading everything again.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISREG

from pipeline.durable import write_json, write_text
from pipeline.errors import ProductError
from pipeline.fingerprint import file_sha256
from pipeline.untrusted.documents import Document, read_bytes, read_model

SUMS, SIZES = "SHA256SUMS", "MANIFEST.json"
_LINE = re.compile(r"([0-9a-f]{64})  ((?!/)[^\x00-\x1f\\]+)")
_READERS = 16
"""Threads that wait for a shared file system."""


class _Size(Document):
    size: int
    mtime_ns: int


class _Sizes(Document):
    files: dict[str, _Size]


@dataclass(frozen=True)
class SealedFile:
    """A file when its manifest was written."""

    sha256: str
    size: int
    mtime_ns: int


Manifest = Mapping[str, SealedFile]
"""Path from the manifest's folder → file."""


def files_below(folder: Path) -> Iterator[str]:
    """Paths from a folder of the regular files below it but its manifest; symbolic links are not followed."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.parent == folder and path.name in (SUMS, SIZES):
                continue
            if S_ISREG(path.lstat().st_mode):
                yield path.relative_to(folder).as_posix()


def write_manifest(
    folder: Path, names: Iterable[str], *, known: Mapping[str, str] | None = None, former: Path | None = None
) -> None:
    """Writes the manifest of some files.

    Args:
        folder: to which their paths are relative.
        names: the paths.
        known: path → SHA-256 of files that need not be read again.
        former: a folder with a manifest: files that are hard links to its files are not read again.

    Raises:
        StorageError: it cannot be written.
        OSError: a file cannot be read.
    """
    before: Manifest = {}
    if former is not None and has_manifest(former):
        before = read_manifest(former)

    def seal(name: str) -> SealedFile:
        path = folder / name
        now = path.lstat()
        old, link = before.get(name), former and former / name
        if (given := (known or {}).get(name)) is None and old is not None and link is not None:
            same = (old.size, old.mtime_ns) == (now.st_size, now.st_mtime_ns) and link.is_file()
            given = old.sha256 if same and link.samefile(path) else None
        return SealedFile(given or file_sha256(path), now.st_size, now.st_mtime_ns)

    listed = sorted(names)
    with ThreadPoolExecutor(_READERS) as pool:
        sealed = dict(zip(listed, pool.map(seal, listed), strict=True))
    sizes = {name: {"size": file.size, "mtime_ns": file.mtime_ns} for name, file in sealed.items()}
    write_json(folder / SIZES, {"files": sizes}, indent=0)
    sums = {name: file.sha256 for name, file in sealed.items()} | {SIZES: file_sha256(folder / SIZES)}
    write_text(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def has_manifest(folder: Path) -> bool:
    """Whether any file of a manifest is there: folders of older versions have none."""
    return any((folder / name).exists() for name in (SUMS, SIZES))


def read_manifest(folder: Path) -> Manifest:
    """Reads a folder's manifest.

    Raises:
        ProductError: it is missing or damaged.
    """
    path = folder / SUMS
    try:
        found = [_LINE.fullmatch(line) for line in read_bytes(path).decode("utf-8").splitlines()]
        sums = {match[2]: match[1] for match in found if match and ".." not in Path(match[2]).parts}
        sizes_sum, sizes = file_sha256(folder / SIZES), read_model(_Sizes, folder / SIZES).files
    except (OSError, ValueError) as error:
        raise ProductError(f"{path}: cannot be used, or {SIZES} beside it: {error}") from error
    if len(sums) != len(found) or sums.pop(SIZES, None) != sizes_sum or sizes.keys() != sums.keys():
        raise ProductError(f"{path}: cannot be used: it is damaged, or differs from {SIZES} beside it")
    return {name: SealedFile(sums[name], own.size, own.mtime_ns) for name, own in sizes.items()}


def check_sealed_file(folder: Path, name: str) -> None:
    """Raises ProductError where a file differs from its folder's `SHA256SUMS`, if there is one."""
    if not (folder / SUMS).exists():
        return
    try:
        listed = f"{file_sha256(folder / name)}  {name}" in read_bytes(folder / SUMS).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ProductError(f"{folder / SUMS}: cannot be compared with {name}: {error}") from error
    if not listed:
        raise ProductError(f"{folder / name}: checksum mismatch: differs from {SUMS}; `landcover publish --recheck`")


def changed_if_sealed(folder: Path, *, read_all: bool) -> dict[str, str]:
    """Path → problem of the files that are not as in a folder's manifest; empty where an older version wrote none."""
    if not has_manifest(folder):
        return {}
    try:
        return changed_files(folder, read_manifest(folder), read_all=read_all)
    except ProductError as error:
        return {SUMS: str(error)}


def changed_files(folder: Path, manifest: Manifest, *, read_all: bool) -> dict[str, str]:
    """Path → problem of the files that are not as in the manifest.

    Args:
        folder: of the manifest.
        manifest: from `read_manifest`, or a part of it.
        read_all: reads every file. Otherwise only files whose time of the last change differs.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        problems = pool.map(partial(_changed, folder, read_all=read_all), manifest.items())
        return {name: problem for name, problem in zip(manifest, problems, strict=True) if problem}


def _changed(folder: Path, listed: tuple[str, SealedFile], *, read_all: bool) -> str | None:
    name, sealed = listed
    path = folder / name
    try:
        now = path.lstat()
        if not S_ISREG(now.st_mode):
            return "is not a regular file"
        if now.st_size != sealed.size:
            return f"has {now.st_size} bytes, expected {sealed.size}"
        unread = now.st_mtime_ns == sealed.mtime_ns and not read_all
        return None if unread or file_sha256(path) == sealed.sha256 else f"checksum mismatch: differs from {SUMS}"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
