"""Files that are there whole or not at all: temporary name, sync, rename, sync of the folder."""

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from pipeline.errors import OutOfSpaceError, StorageError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_PROBE_BYTES = 1 << 20


def user_cache() -> Path:
    """Where what can be made again is kept between runs: `$LANDCOVER_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("LANDCOVER_CACHE") or platformdirs.user_cache_dir("landcover"))


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk.

    Raises:
        OSError: it cannot be opened or synced.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; what is written there becomes `path` when the block ends well.

    The folder is made where it is missing. The file is synced before the rename and the folder after it, so
    that a crash leaves the old file or the new one. When the block raises, the temporary file and what stands
    beside it under the same name (GDAL's `.ovr.tmp`) go.

    Raises:
        OutOfSpaceError: the disk is full, or a quota is used up.
        StorageError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            remove_temporaries(path.parent, temporary.name)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise out_of_space(path, error) from error
        raise StorageError(
            f"{path}: cannot be written: {error.strerror or error}; is there room, and the right to write?"
        ) from error


def out_of_space(path: Path, error: OSError) -> OutOfSpaceError:
    """What a full disk or a used-up quota is called."""
    return OutOfSpaceError(
        f"{path}: cannot be written: {error.strerror}; free space or inodes there (or raise the quota), then run again"
    )


def check_room(path: Path, size: int) -> None:
    """Finds out whether there is room beside `path`, by writing: a quota does not show otherwise.

    For libraries that fail on a full disk without saying why. Call it while what they wrote still stands.

    Args:
        path: what was to be written.
        size: bytes to try.

    Raises:
        OutOfSpaceError: there is no room.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            for start in range(0, size, _PROBE_BYTES):
                file.write(secrets.token_bytes(min(_PROBE_BYTES, size - start)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise out_of_space(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, prefix: str) -> tuple[Path, ...]:
    """Removes the files of `folder` whose names start with `prefix` and end in `.tmp`; returns them."""
    found = tuple(sorted(p for p in folder.glob(f"{prefix}*") if p.name.endswith(".tmp")))
    for path in found:
        path.unlink(missing_ok=True)
    return found


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    """Writes JSON as `replacing` does.

    Raises:
        StorageError: the folder cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


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
    with replacing(path) as temporary:
        temporary.write_bytes(content)
