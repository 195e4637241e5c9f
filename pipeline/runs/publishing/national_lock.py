"""The lock of the national product, and changes of its editions under this lock."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.cluster.slurm.queue import is_job_running
from pipeline.errors import LockError
from pipeline.lock import FolderLock, lock_folder
from pipeline.products.national import edition_history as history
from pipeline.products.national.edition_writer import remove_abandoned

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


def restore(national: Path, number: int) -> None:
    """Makes a former edition current.

    Raises:
        LockError: a publish is running.
        ProductError: there is no such edition, or it is not complete.
        StorageError: the folder cannot be written.
    """
    with lock_national(national):
        remove_abandoned(national)
        history.restore(national, number)


def drop(national: Path, numbers: Sequence[int]) -> None:
    """Deletes former editions.

    Raises:
        LockError: a publish is running.
        ProductError: one of them does not exist or is current. The ones before it are deleted.
        StorageError: the folder cannot be written.
    """
    with lock_national(national):
        remove_abandoned(national)
        for number in numbers:
            history.drop(national, number)
