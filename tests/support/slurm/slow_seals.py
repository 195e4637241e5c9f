"""Makes the seals of a job's workers slow, so that a fault meets them. Dask loads it (`distributed.worker.preload`).

The first seal of a worker takes no longer than usual, so that each start of a job makes progress on any machine. The
others take SEAL_S seconds, or last until BEFORE_END_S seconds before the job's time limit.
"""

import datetime as dt
import itertools
import os
import subprocess
import time
from typing import Any

from distributed import Worker

from pipeline.runs.mapping import run as run_module
from tests.support.waiting import LONGEST_S

QUICK = 1


def dask_setup(worker: Worker) -> None:  # noqa: ARG001  (Dask's signature)
    """Dask calls it in the worker's process."""
    seal, begun = run_module.seal, itertools.count()

    def slow(*given: Any, **tile: Any) -> Any:
        if next(begun) >= QUICK:
            time.sleep(_seconds())
        return seal(*given, **tile)

    run_module.seal = slow


def _seconds() -> float:
    before_end = os.environ.get("BEFORE_END_S")
    if before_end is None:
        return float(os.environ["SEAL_S"])
    command = ["squeue", "--noheader", f"--jobs={os.environ['SLURM_JOB_ID']}", "--format=%e"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST_S).stdout
    left = dt.datetime.fromisoformat(printed.strip()) - dt.datetime.now()  # noqa: DTZ005  (SLURM's is this machine's time)
    return max(0.0, left.total_seconds() - float(before_end))
