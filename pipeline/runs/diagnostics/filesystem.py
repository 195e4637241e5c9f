"""What a folder's file system does, tried out: all that sealing and publishing rely on."""

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.durable import sync

_QUOTA_S = 20


@dataclass(frozen=True)
class Storage:
    """A folder's file system."""

    folder: Path
    free_bytes: int
    free_inodes: int | None
    """None where the file system does not count them."""
    skew_s: float
    """Its clock ahead of this machine's."""
    problems: tuple[str, ...]
    """What it does not do, in sentences; empty where it does all."""


def try_out(folder: Path) -> Storage:
    """Writes, syncs, renames, links and removes small files in a folder, or where it is to be made.

    Raises:
        OSError: nothing can be written there.
    """
    there = next(p for p in (folder, *folder.parents) if p.is_dir())
    with _scratch(there) as scratch:
        first, second = scratch / "first", scratch / "second"
        before = time.time()
        first.write_bytes(b"landcover")
        skew = first.stat().st_mtime - before
        problems = [why for why, trial in _TRIALS if not trial(first, second)]
    told = os.statvfs(there)
    inodes = told.f_favail if told.f_files else None
    return Storage(folder, told.f_bavail * told.f_frsize, inodes, skew, tuple(problems))


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    scratch = folder / f".doctor.{secrets.token_hex(4)}.tmp"
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def _syncs(first: Path, _second: Path) -> bool:
    try:
        sync(first)
        sync(first.parent)
    except OSError:
        return False
    return True


def _renames(first: Path, second: Path) -> bool:
    second.write_bytes(b"old")
    first.replace(second)
    whole = second.read_bytes() == b"landcover" and not first.exists()
    second.replace(first)
    return whole


def _creates_alone(first: Path, second: Path) -> bool:
    second.touch(exist_ok=False)
    try:
        first.touch(exist_ok=False)
    except FileExistsError:
        return True
    finally:
        second.unlink()
    return False


def _links(first: Path, second: Path) -> bool:
    try:
        second.hardlink_to(first)
        same = second.samefile(first)
        second.unlink()
        second.symlink_to(first.name)
    except OSError:
        return False
    return same and second.read_bytes() == b"landcover"


_TRIALS = (
    ("files or folders cannot be synced (fsync): a crash may lose what was sealed", _syncs),
    ("a rename does not replace a file: nothing can be sealed", _renames),
    ("an exclusive create does not fail where a file stands: two runs would not see each other", _creates_alone),
    ("no hard or symbolic links: national editions cannot share what did not change", _links),
)


def quota(folder: Path) -> str:
    """What the site's quota tool says of the user or the folder; empty where there is none."""
    for command in (["idr_quota_user"], ["lfs", "quota", "-u", str(os.getuid()), str(folder)], ["quota", "-s"]):
        if shutil.which(command[0]) is None:
            continue
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_QUOTA_S)  # noqa: S603  (fixed commands of a site)
        except (OSError, subprocess.SubprocessError) as error:
            return f"{command[0]} fails: {error}"
        return done.stdout.strip()
    return ""
