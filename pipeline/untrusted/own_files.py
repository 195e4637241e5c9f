"""Deletes and loads only what this package wrote: real files and folders of this user, where they are expected.

Folders are named by users and shared by groups, so anything may lie in them. Whatever is not exactly as this package
leaves it is somebody else's: it is skipped by a cleanup, and refused by a load.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pipeline.errors import StorageError

Kind = Literal["file", "folder", "link"]


def is_own(path: Path, *, pattern: str, kind: Kind) -> bool:
    """Whether an entry of a folder is what this package writes there.

    Args:
        path: the entry; its last part is not followed if it is a symbolic link.
        pattern: regular expression for the whole name.
        kind: what it must be. A `file` is a regular one; a symbolic link is only a `link`.

    Returns:
        True for an existing entry with such a name, of this kind, that belongs to this user.

    Example:
        >>> is_own(Path("editions/000001"), pattern=r"[0-9]{6}", kind="folder")
        False
    """
    if not re.fullmatch(pattern, path.name):
        return False
    try:
        state = path.lstat()
    except OSError:
        return False
    test = {"file": stat.S_ISREG, "folder": stat.S_ISDIR, "link": stat.S_ISLNK}[kind]
    return test(state.st_mode) and state.st_uid == os.geteuid()


def own_entries(folder: Path, *, pattern: str, kind: Kind) -> Iterator[Path]:
    """The entries of a folder for which `is_own` holds, in order of their names; none where there is no such folder.

    The folder itself may be reached by a symbolic link: users name it.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from (path for path in (folder / name for name in names) if is_own(path, pattern=pattern, kind=kind))


def remove_own(path: Path, *, pattern: str, kind: Kind) -> None:
    """Removes an entry if `is_own` holds for it.

    Symbolic links inside a folder are removed and not followed (`shutil.rmtree` works on open folders).

    Raises:
        StorageError: it is something else, which stays.
        OSError: it cannot be removed.
    """
    if not is_own(path, pattern=pattern, kind=kind):
        raise StorageError(
            f"{path}: expected a {kind} of this user with a name like {pattern}; it is something else, so it stays"
        )
    if kind == "folder":
        shutil.rmtree(path)
    else:
        path.unlink()
