"""Ends a job's scheduler when its driver ends, also when the driver is killed. Dask loads it (`--preload`)."""

import ctypes
import os
import signal

from distributed import Scheduler

DRIVER = "LANDCOVER_DRIVER_PID"
_PR_SET_PDEATHSIG = 1
"""Option of `prctl(2)`: the signal that the kernel sends this process when its parent has ended."""


def dask_setup(scheduler: Scheduler) -> None:  # noqa: ARG001  (Dask's signature)
    """Dask calls it when the scheduler starts. Workers close with the scheduler, and `srun` ends with them."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(os.environ[DRIVER]):
        os.kill(os.getpid(), signal.SIGTERM)
