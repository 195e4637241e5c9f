"""Manifests: size and SHA-256 of the files below a folder, in two files of it.

::

    SHA256SUMS      for `sha256sum -c`, and to be signed: paths are relative to the folder
    MANIFEST.json   path → SHA-256, size in bytes, time of the last change in nanoseconds; `SHA256SUMS` lists it too

By size and time, a publish finds what was changed since without reading everything again. Each of the two has all
checksums, so that the loss of one hides no other damage.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from stat import S_ISREG

from pipeline.durable import write_json, write_text
from pipeline.errors import ProductError
from pipeline.fingerprint import file_sha256
from pipeline.progress import SILENT, Progress
from pipeline.untrusted.documents import Document, parse_model, read_bytes
from pipeline.untrusted.in_threads import map_in_threads

SUMS, SIZES = "SHA256SUMS", "MANIFEST.json"
BOTH = f"{SUMS} and {SIZES}"
"""Stands among the problems of a folder where neither can be used, so that no file of it can be checked."""
_MOST_BYTES = 1 << 30
"""Of each of the two: a nation has some 500 000 files."""
_LINE = re.compile(r"([0-9a-f]{64})  ((?!/)[^\x00-\x1f\\]+)")


@dataclass(frozen=True)
class SealedFile:
    """A file when its manifest was written."""

    sha256: str
    size: int | None
    """None where only `SHA256SUMS` is left."""
    mtime_ns: int | None


class _Sizes(Document):
    files: dict[str, SealedFile]


@dataclass(frozen=True)
class Manifest:
    """What the manifest of a folder says."""

    files: Mapping[str, SealedFile] = field(default_factory=dict)
    """Path from the manifest's folder → file; empty where there is no manifest, or none that can be used."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """`SUMS` or `SIZES` or `BOTH` → problem of the manifest itself."""


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
    before = read_manifest(former).files if former is not None else {}

    def seal(name: str) -> SealedFile:
        path = folder / name
        now = path.lstat()
        old, link = before.get(name), former and former / name
        if (given := (known or {}).get(name)) is None and old is not None and link is not None:
            same = (old.size, old.mtime_ns) == (now.st_size, now.st_mtime_ns) and link.is_file()
            given = old.sha256 if same and link.samefile(path) else None
        return SealedFile(given or file_sha256(path), now.st_size, now.st_mtime_ns)

    listed = sorted(names)
    sealed = dict(zip(listed, map_in_threads(seal, listed), strict=True))
    write_json(folder / SIZES, {"files": {name: asdict(file) for name, file in sealed.items()}}, indent=0)
    sums = {name: file.sha256 for name, file in sealed.items()} | {SIZES: file_sha256(folder / SIZES)}
    write_text(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def has_manifest(folder: Path) -> bool:
    """Whether any file of a manifest is there: folders of older versions have none."""
    return any((folder / name).exists() for name in (SUMS, SIZES))


def read_manifest(folder: Path) -> Manifest:
    """Reads a folder's manifest. Where one of its two files is lost or damaged, the other gives the checksums."""
    if not has_manifest(folder):
        return Manifest()
    sums, problems = _read_sums(folder)
    sizes, digest = {}, ""
    try:
        content = read_bytes(folder / SIZES, most=_MOST_BYTES)
        sizes, digest = parse_model(_Sizes, content).files, hashlib.sha256(content).hexdigest()
    except (OSError, ValueError) as error:
        problems[SIZES] = f"cannot be used: {error}"
    listed, whole = sums.pop(SIZES, None), SUMS not in problems
    if not problems and {name: file.sha256 for name, file in sizes.items()} != sums:
        # One of them was changed; what `SHA256SUMS` says about the other shows which.
        problems = {SUMS if listed == digest else SIZES: "was changed: the checksums in the two files differ"}
    elif not problems and listed != digest:
        problems = dict.fromkeys((SUMS, SIZES), "one of the two was changed: they do not fit each other")
    files = sizes
    if not sizes or (whole and SIZES in problems):
        files = {name: SealedFile(sha256, None, None) for name, sha256 in sums.items()}
    return Manifest(files, problems if files else {BOTH: f"cannot be used: {'; '.join(problems.values())}"})


def _read_sums(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Path → SHA-256 of the lines that can be used, and the problem of the file if any cannot."""
    try:
        lines = read_bytes(folder / SUMS, most=_MOST_BYTES).decode("utf-8", "replace").split("\n")
    except (OSError, ValueError) as error:
        return {}, {SUMS: f"cannot be used: {error}"}
    found = [_LINE.fullmatch(line) for line in lines]
    sums = {match[2]: match[1] for match in found if match and ".." not in match[2].split("/")}
    whole = SIZES in sums and len(sums) == len(lines) - 1 and not lines[-1]
    return sums, {} if whole else {SUMS: "cannot be used: it is damaged"}


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
    """Path → problem of the files that are not as in a folder's manifest; empty where there is none."""
    manifest = read_manifest(folder)
    return {**manifest.problems, **changed_files(folder, manifest.files, read_all=read_all)}


def changed_additions(folder: Path) -> dict[str, str]:
    """The same for what later commands add to a folder (reports): folders in it, each with its own manifest."""
    return {
        f"{part.name}/{name}": problem
        for part in sorted(folder.iterdir())
        if part.is_dir() and not part.is_symlink()
        for name, problem in changed_if_sealed(part, read_all=True).items()
    }


def changed_files(
    folder: Path, files: Mapping[str, SealedFile], *, read_all: bool, progress: Progress = SILENT
) -> dict[str, str]:
    """Path → problem of the files that are not as in the manifest.

    Args:
        folder: of the manifest.
        files: its files, or some of them.
        read_all: reads every file. Otherwise only files whose time of the last change differs.
        progress: counts the bytes of the files.
    """
    progress.start(sum(file.size or 0 for file in files.values()), "bytes")
    compare = partial(_changed, folder, read_all=read_all, progress=progress)
    problems = map_in_threads(compare, list(files.items()))
    return {name: problem for name, problem in zip(files, problems, strict=True) if problem}


def _changed(folder: Path, listed: tuple[str, SealedFile], *, read_all: bool, progress: Progress) -> str | None:
    name, sealed = listed
    with progress.part(sealed.size or 0):
        return _problem(folder / name, sealed, read_all=read_all)


def _problem(path: Path, sealed: SealedFile, *, read_all: bool) -> str | None:
    try:
        now = path.lstat()
        if not S_ISREG(now.st_mode):
            return "is not a regular file"
        if sealed.size not in (None, now.st_size):
            return f"has {now.st_size} bytes, expected {sealed.size}"
        unread = now.st_mtime_ns == sealed.mtime_ns and not read_all
        return None if unread or file_sha256(path) == sealed.sha256 else f"checksum mismatch: differs from {SUMS}"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
