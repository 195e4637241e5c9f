"""Deletes and loads only what this package wrote: real files and folders of this user, where they are expected.

Folders are named by users and shared by groups, so anything may lie in them. Whatever is not exactly as this package
leaves it is somebody else's: it is skipped by a cleanup, and refused by a load.
"""

import errno
import io
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pipeline.errors import StorageError

Kind = Literal["file", "folder", "link"]


def is_own(path: Path, *, kind: Kind, pattern: str = ".*") -> bool:
    """Whether an entry of a folder is what this package writes there.

    Args:
        path: the entry; its last part is not followed if it is a symbolic link.
        kind: what it must be. A `file` is a regular one; a symbolic link is only a `link`.
        pattern: regular expression for the whole name; by default the caller made the name itself.

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


def is_sealed_off(path: Path) -> bool:
    """Whether a file is this user's, and nobody else could have written it: no other may write, and no second name."""
    if not is_own(path, kind="file"):
        return False
    state = path.lstat()
    return state.st_nlink == 1 and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a file to read its bytes. Links are followed; a named pipe or a device, which may have no end, is refused.

    Raises:
        OSError: it cannot be opened, or is no regular file.

    Example:
        >>> open_regular(Path("/dev/zero"))
        Traceback (most recent call last):
        OSError: [Errno 22] is not a regular file: '/dev/zero'
    """
    # Without O_NONBLOCK, opening a named pipe waits for a writer for ever.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "is not a regular file", str(path))


def open_plain(path: Path, flags: int) -> int:
    """Opens a regular file with no second name in a real folder; symbolic links are not followed.

    Returns:
        its descriptor, which the caller closes.

    Raises:
        FileNotFoundError: there is none, or it was just removed.
        StorageError: it is something else.
        OSError: it cannot be opened.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Without O_NONBLOCK, opening a named pipe waits for ever.
        handle = os.open(path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _not_plain(path) from error
        raise
    finally:
        os.close(folder)
    state = os.fstat(handle)
    if stat.S_ISREG(state.st_mode) and state.st_nlink == 1:
        return handle
    os.close(handle)
    raise _not_plain(path) if state.st_nlink else FileNotFoundError(errno.ENOENT, "was just removed", str(path))


def _not_plain(path: Path) -> StorageError:
    return StorageError(f"{path}: expected a regular file, found a link or something else; delete it, then run again")


def private_folder(path: Path, *, remedy: str) -> Path:
    """Makes a folder that only this user can open, or closes an existing one of this user to others; returns it.

    Args:
        path: the folder; its last part may not be a symbolic link.
        remedy: what to do where this fails, for the error message: `set LANDCOVER_CACHE to …`.

    Raises:
        StorageError: it cannot be made, or is a link or another user's folder.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"{path}: is no folder that this user can open: {error.strerror}; {remedy}") from error
    try:
        state = os.fstat(handle)
        if state.st_uid != os.geteuid():
            raise StorageError(f"{path}: expected a folder of this user, found one of user {state.st_uid}; {remedy}")
        if state.st_mode & 0o077:
            os.fchmod(handle, 0o700)
    finally:
        os.close(handle)
    return path


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
