"""Files that are complete or absent, also after a crash.

Guarantee: a reader sees the former file or the new one, never a part of it. A file that `replacing` has written is on
the disk when the block ends: temporary name, sync of the file, rename, sync of the folder.
"""

import errno
import fcntl
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from pipeline.errors import OutOfSpaceError, StorageError
from pipeline.untrusted.own_checksum import KEY, ZEROS, with_own_checksum
from pipeline.untrusted.own_files import own_entries

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_LINK = (errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_FICLONE = 0x40049409
"""The ioctl by which a file gets the blocks of another one: Linux, `linux/fs.h`."""
_SPARE_BYTES = 1 << 20
"""Left free for lists, folders and their entries."""
_PROBE_BYTES = 1 << 20


def user_cache() -> Path:
    """Folder of files that can be made again: `$LANDCOVER_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("LANDCOVER_CACHE") or platformdirs.user_cache_dir("landcover"))


def sync(path: Path) -> None:
    """Waits until the bytes of a file, or the names in a folder, are on the disk.

    Raises:
        OSError: the path cannot be opened or synced.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path; the file written there replaces `path` when the block ends without an error.

    The file is synced before the rename and the folder after it, so a crash leaves the old file or the new one. When
    the block raises, the temporary file is removed, and so are files that begin with its name (GDAL's `.ovr.tmp`).

    Args:
        path: the file to write. Its folder is made where it is missing.

    Raises:
        OutOfSpaceError: the disk is full, or a quota is used up.
        StorageError: the folder cannot be written.

    Example:
        >>> with replacing(path) as temporary:  # doctest: +SKIP
        ...     temporary.write_text("complete")
    """
    # Nobody can guess the name and put a symbolic link there.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if not stat.S_ISREG(temporary.lstat().st_mode):
                raise StorageError(f"{temporary}: is no regular file any more; another program changed the folder")
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            for left in path.parent.glob(f"{_literal(temporary.name)}*"):
                left.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise out_of_space(path, error) from error
        raise StorageError(
            f"{path}: cannot be written: {error.strerror or error}; check free space and permissions"
        ) from error


def _literal(name: str) -> str:
    """A name as a pattern of `Path.glob` that matches nothing else."""
    return re.sub(r"([*?[])", r"[\1]", name)


def link_or_copy(source: Path, target: Path) -> bool:
    """Gives an unchanging file a second name: a hard link, or a copy where the file system refuses a link.

    Some file systems have no hard links (BeeGFS between folders), and Linux refuses links to other users' files
    (`protected_hardlinks`). The copy shares the blocks of `source` where the file system can do that (reflink). It is
    not synced.

    Args:
        source: a regular file.
        target: a new name.

    Returns:
        True for a link, False for a copy.

    Raises:
        FileExistsError: `target` exists, be it as a broken symbolic link.
        OSError: `source` cannot be read, or `target` cannot be written.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
    else:
        return True
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new, _FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new, 1 << 24)
    return False


def out_of_space(path: Path, error: OSError) -> OutOfSpaceError:
    """The error for a file that a full disk or a used-up quota did not let us write."""
    return OutOfSpaceError(
        f"{path}: cannot be written: {error.strerror}; free space or inodes there, or raise the quota, then run again"
    )


def check_free(folder: Path, size: int, *, work: str, remedy: str) -> None:
    """Checks beforehand that files fit on the disk of a folder.

    Args:
        folder: where they will lie.
        size: their bytes.
        work: what needs the space, for messages: `the download`.
        remedy: what helps besides more free space.

    Raises:
        StorageError: they do not fit.
    """
    free = shutil.disk_usage(folder).free
    if size + _SPARE_BYTES > free:
        raise StorageError(
            f"{folder}: {work} needs {size / 1e9:.3f} GB and {free / 1e9:.3f} GB are free; free space, {remedy}"
        )


def check_room(path: Path, size: int) -> None:
    """Checks by writing whether there is space beside `path`: a quota shows in no other way.

    For libraries that fail on a full disk without saying why. Call it before their incomplete file is removed.

    Args:
        path: the file that could not be written.
        size: bytes to write.

    Raises:
        OutOfSpaceError: the disk is full, or a quota is used up.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            for start in range(0, size, _PROBE_BYTES):
                file.write(secrets.token_bytes(min(_PROBE_BYTES, size - start)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise out_of_space(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, *prefixes: str) -> tuple[Path, ...]:
    """Removes this user's files in `folder` whose names start with a prefix and end in `.tmp`; returns their paths."""
    starts = "|".join(map(re.escape, prefixes))
    found = tuple(own_entries(folder, pattern=rf"(?:{starts}).*\.tmp", kind="file"))
    for path in found:
        path.unlink(missing_ok=True)
    return found


def write_json(path: Path, content: Any, *, indent: int | None = 2, own_checksum: bool = False) -> None:
    """Writes a JSON file that replaces a former one as `replacing` does; NaN, a figure that does not exist, as null.

    Args:
        path: the file.
        content: plain values.
        indent: spaces for each level; None for one line.
        own_checksum: add the checksum that `own_checksum.read_checked` compares; the content is then an object.

    Raises:
        OutOfSpaceError: the disk is full, or a quota is used up.
        StorageError: the folder cannot be written.
        ValueError: an infinite number.
    """
    content = _without_nan(content)
    if own_checksum:
        content = content | {KEY: ZEROS}
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, with_own_checksum(text) if own_checksum else text)


def _without_nan(content: Any) -> Any:
    """The content with null for NaN, which JSON does not have."""
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text as `replacing` does.

    Raises:
        StorageError: the folder cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file as `replacing` does.

    Raises:
        StorageError: the folder cannot be written.
    """
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(content)
