"""The lock of the national product."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.cluster.slurm.queue import is_job_running
from pipeline.errors import LockError
from pipeline.lock import FolderLock, lock_folder

_RETRY_S = 1.0

log = logging.getLogger("landcover")


@contextmanager
def lock_national(national: Path, *, wait: bool = False) -> Iterator[FolderLock]:
    """Locks the national product until the block ends: one publish, restoration or removal at a time.

    Args:
        national: the product's folder.
        wait: wait until the present owner of the lock ends, and log its name once. Otherwise this is an error.

    Raises:
        LockError: another process owns the lock.
        StorageError: the folder cannot be written.
    """
    logged = False
    with ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(
                    lock_folder(national, what=f"the national product {national}", job_runs=is_job_running)
                )
                break
            except LockError as error:
                if not wait:
                    raise
                if not logged:
                    log.info("waiting: %s", error)
                logged = True
                time.sleep(_RETRY_S)
        yield lock
