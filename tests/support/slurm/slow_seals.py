"""Loaded by Dask into a job's workers (`distributed.worker.preload`): seals that take long, so that a fault meets them.

The first one of a worker is as quick as ever: each start of a job makes progress, however slow the machine. The
others take SEAL_S seconds, or last until BEFORE_END_S seconds before their job's time is up.
"""

import datetime as dt
import itertools
import os
import subprocess
import time
from typing import Any

from distributed import Worker

from pipeline.runs.mapping import run as domain
from tests.support.waiting import LONGEST_S

QUICK = 1


def dask_setup(worker: Worker) -> None:  # noqa: ARG001  (Dask's signature)
    """Called by Dask in the worker's process."""
    seal, begun = domain.seal, itertools.count()

    def slow(*given: Any, **tile: Any) -> Any:
        if next(begun) >= QUICK:
            time.sleep(_seconds())
        return seal(*given, **tile)

    domain.seal = slow


def _seconds() -> float:
    before_end = os.environ.get("BEFORE_END_S")
    if before_end is None:
        return float(os.environ["SEAL_S"])
    asked = ["squeue", "--noheader", f"--jobs={os.environ['SLURM_JOB_ID']}", "--format=%e"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=LONGEST_S).stdout
    left = dt.datetime.fromisoformat(said.strip()) - dt.datetime.now()  # noqa: DTZ005  (SLURM's is this machine's time)
    return max(0.0, left.total_seconds() - float(before_end))
