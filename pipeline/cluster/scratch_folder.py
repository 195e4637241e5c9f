"""Temporary folders of clusters: removed when they end, or by the next one of the same user where they were killed."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.untrusted.own_files import open_plain, own_entries, remove_own

_PREFIX = "landcover-dask-"
_OWNER = "owner.lock"
"""Locked by the process of the folder: the system removes the lock when the process ends, in whatever way."""


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Makes a folder that only this user can open, and removes it when the block ends.

    Folders that killed processes of this user left beside it are removed first.

    Args:
        parent: where it is made; by default the system's folder of temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as name:
        handle = os.open(Path(name, _OWNER), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(handle)


def _remove_abandoned(parent: Path) -> None:
    for folder in own_entries(parent, pattern=rf"{_PREFIX}\w+", kind="folder"):
        # Without the file it is of a former version, or was made just now.
        with suppress(OSError, StorageError):
            handle = open_plain(folder / _OWNER, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_own(folder, pattern=rf"{_PREFIX}\w+", kind="folder")
            finally:
                os.close(handle)
