"""Opens files of a product by the paths of requests: regular files below a few folders, and no links on the way."""

import os
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO
from urllib.parse import unquote

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe would wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_file(folders: Mapping[tuple[str, ...], Path], address: str) -> tuple[BinaryIO, os.stat_result] | None:
    """Opens the file that the path of an address names, or returns None where there is no such file.

    Args:
        folders: (first parts of the path) → the folder that they stand for. That folder may be reached by links.
        address: path of a URL without the leading slash, still quoted, without query.
    """
    parts = tuple(unquote(part, errors="strict") for part in address.split("/"))
    if any(part in ("", ".", "..") or part.startswith(".") or "/" in part or "\0" in part for part in parts):
        return None
    for prefix, folder in folders.items():
        below = parts[len(prefix) :]
        if parts[: len(prefix)] == prefix and below:
            return _open_below(folder, below)
    return None


def _open_below(folder: Path, parts: tuple[str, ...]) -> tuple[BinaryIO, os.stat_result] | None:
    """Walks down from one open folder to the next, so that nothing can be exchanged for a link meanwhile."""
    try:
        here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                inner = os.open(part, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = inner
            handle = os.open(parts[-1], _FILE, dir_fd=here)
        finally:
            os.close(here)
    except OSError:
        return None
    state = os.fstat(handle)
    if not S_ISREG(state.st_mode):
        os.close(handle)
        return None
    return os.fdopen(handle, "rb"), state
