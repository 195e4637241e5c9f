"""Loaded by a job's scheduler (`--preload`): it ends when the driver does, however the driver ends."""

import ctypes
import os
import signal

from distributed import Scheduler

DRIVER = "LANDCOVER_DRIVER_PID"
_PR_SET_PDEATHSIG = 1
"""`prctl(2)`: the signal that the kernel sends this process when its parent is gone."""


def dask_setup(scheduler: Scheduler) -> None:  # noqa: ARG001  (Dask's signature)
    """Called by Dask when the scheduler starts. Its workers close with it, and `srun` with them."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(os.environ[DRIVER]):
        os.kill(os.getpid(), signal.SIGTERM)
