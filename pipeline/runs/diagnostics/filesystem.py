"""Tests the operations of a folder's file system on which sealing and publishing rely."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.durable import sync

_ANSWER_S = 30


@dataclass(frozen=True)
class Storage:
    """Free space, clock and problems of a folder's file system."""

    free_bytes: int
    free_inodes: int | None
    """None where the file system does not count them."""
    skew_s: float
    """Seconds by which its clock is ahead of this machine's."""
    problems: tuple[str, ...]
    """A sentence for each operation that does not work."""


def probe_folder(folder: Path) -> Storage:
    """Writes, syncs, renames, links and deletes small files in a folder, or in the first parent that exists.

    Raises:
        OSError: no file can be written there.
    """
    there = next(p for p in (folder, *folder.parents) if p.is_dir())
    with tempfile.TemporaryDirectory(prefix=".doctor.", suffix=".tmp", dir=there) as scratch:
        first, second = Path(scratch, "first"), Path(scratch, "second")
        before = time.time()
        first.write_bytes(b"landcover")
        skew = first.stat().st_mtime - before
        problems = [problem for problem, works in _OPERATIONS if not works(first, second)]
    disk = os.statvfs(there)
    inodes = disk.f_favail if disk.f_files else None
    return Storage(disk.f_bavail * disk.f_frsize, inodes, skew, tuple(problems))


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


def _creates_once(first: Path, second: Path) -> bool:
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
        second.symlink_to(first.name)
    except OSError:
        return False
    return second.read_bytes() == b"landcover"


_OPERATIONS = (
    ("files or folders cannot be synced (fsync): a crash may lose sealed tiles", _syncs),
    ("a rename does not replace a file: no tile can be sealed", _renames),
    ("an exclusive create does not fail where a file exists: two runs would not exclude each other", _creates_once),
    ("there are no symbolic links: no national edition can become current", _links),
)


def why_no_hard_links(folder: Path, existing: Path | None) -> str | None:
    """Why the file system refuses hard links between two folders inside `folder`; None where it makes them.

    Args:
        folder: the first parent that exists is tried.
        existing: a file to link besides a new one: it may be another user's, to which Linux may refuse links.

    Raises:
        OSError: no file can be written there.
    """
    there = next(p for p in (folder, *folder.parents) if p.is_dir())
    with tempfile.TemporaryDirectory(prefix=".doctor.", suffix=".tmp", dir=there) as scratch:
        first, second = Path(scratch, "first"), Path(scratch, "other")
        first.touch()
        second.mkdir()
        for number, file in enumerate([first, *([existing] if existing else [])]):
            try:
                os.link(file, second / str(number))
            except OSError as error:
                return f"{file}: {error.strerror or error}"
    return None


def quota(folder: Path) -> str:
    """The output of the site's quota command for the user or the folder; empty where there is none."""
    for command in (["idr_quota_user"], ["lfs", "quota", "-u", str(os.getuid()), str(folder)], ["quota", "-s"]):
        if shutil.which(command[0]):
            return command_output(command)
    return ""


def command_output(command: Sequence[str]) -> str:
    """The output of a command of this site or driver, or a sentence that says why it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_ANSWER_S)  # noqa: S603  (the callers' fixed commands)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{command[0]} fails: {error}"
    return done.stdout.strip()
