"""Forked processes: they have what this one has imported, so that many can be started and killed."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path


def fork(work: Callable[[], object], log: Path | None = None) -> int:
    """Runs something in a forked process, which ends with exit code 0, or with 1 after an error; returns its pid.

    Args:
        work: what it runs.
        log: gets what it prints, at the end of what is there.
    """
    with warnings.catch_warnings():
        # The parent has imported libraries, and started none of their threads that matter here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    try:
        if log is not None:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
        work()
        os._exit(0)
    finally:
        traceback.print_exception(sys.exception())
        sys.stderr.flush()
        os._exit(1)
