"""The nation held, and its editions changed while it is: one publish, restoration or removal at a time."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.cluster.slurm.queue import job_runs
from pipeline.errors import LockError
from pipeline.lock import Holding, holding
from pipeline.products.national import edition_history as history
from pipeline.products.national.edition_writer import abandoned

_AGAIN_S = 1.0

log = logging.getLogger("landcover")


@contextmanager
def held(national: Path, *, wait: bool = False) -> Iterator[Holding]:
    """Holds the nation until the block ends.

    Args:
        national: the product's folder.
        wait: until whoever holds it has ended, and log who that is once; else that is an error.

    Raises:
        LockError: somebody holds it.
        StorageError: the folder cannot be written.
    """
    told = False
    with ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(
                    holding(national, what=f"the national product {national}", job_runs=job_runs)
                )
                break
            except LockError as error:
                if not wait:
                    raise
                if not told:
                    log.info("waiting: %s", error)
                told = True
                time.sleep(_AGAIN_S)
        yield lock


def restore(national: Path, number: int) -> None:
    """Makes a former edition current.

    Raises:
        LockError: somebody publishes.
        ProductError: there is no such edition, or it is not whole.
        StorageError: the folder cannot be written.
    """
    with held(national):
        abandoned(national)
        history.restore(national, number)


def drop(national: Path, numbers: Sequence[int]) -> None:
    """Removes former editions.

    Raises:
        LockError: somebody publishes.
        ProductError: one of them does not exist or is current; the ones named before it are gone.
        StorageError: the folder cannot be written.
    """
    with held(national):
        abandoned(national)
        for number in numbers:
            history.drop(national, number)
