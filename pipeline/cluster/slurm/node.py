"""What `srun` starts once on each node of a job: the node's workers, in this process's care.

    python -m pipeline.cluster.slurm.node FOLDER

FOLDER holds `scheduler.json`, which Dask writes, and `node.json`, a `NodeWork`.
"""

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from distributed.cli.dask_worker import main as dask_worker

from pipeline.cluster.worker_resources import memory_share, visible_gpus
from pipeline.errors import ClusterError

WORK_FILE = "node.json"
SCHEDULER_FILE = "scheduler.json"
_DEATH_TIMEOUT_S = 60
_POLL_S = 0.1


@dataclass(frozen=True)
class NodeWork:
    """What the driver tells the nodes."""

    addresses: dict[str, str]
    """Node name → the address under which the other nodes reach it."""
    workers: int | None
    """Worker processes; None: one a GPU."""
    processes: int
    """Worker processes of a node without a GPU."""
    threads: int
    """Tasks at once in a worker."""
    gpus: bool
    """Whether a node with GPUs gets one worker for each."""

    def write(self, folder: Path) -> None:
        """Into the folder that all nodes see."""
        (folder / WORK_FILE).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> "NodeWork":
        """What the driver wrote."""
        return cls(**json.loads((folder / WORK_FILE).read_text()))


def scratch() -> Path:
    """A folder of this node or this job for spilled data, as sites name it; the first one that is there."""
    for variable in ("SLURM_TMPDIR", "JOBSCRATCH", "TMPDIR"):
        folder = os.environ.get(variable)
        if folder and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    return Path(tempfile.gettempdir())


def main(folder: Path) -> None:
    """Runs this node's workers until the scheduler closes them.

    They are named `NODE-RANK`, with `-0`, `-1`, … where a node has several, so that a log names a place.
    """
    work = NodeWork.read(folder)
    _await(folder / SCHEDULER_FILE)
    node, rank = os.environ["SLURMD_NODENAME"], os.environ["SLURM_PROCID"]
    devices = visible_gpus()
    arguments = [
        *("--scheduler-file", str(folder / SCHEDULER_FILE)),
        *("--name", f"{node}-{rank}"),
        *("--host", work.addresses[node]),
        *("--nthreads", str(work.threads)),
        *("--death-timeout", str(_DEATH_TIMEOUT_S)),
        "--no-dashboard",
    ]
    with tempfile.TemporaryDirectory(prefix="landcover-dask-", dir=scratch()) as local:
        arguments += ["--local-directory", local]
        if work.gpus and devices:
            from dask_cuda.cli import worker as dask_cuda_worker

            devices = devices[: work.workers]
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
            dask_cuda_worker([*arguments, "--memory-limit", str(memory_share(len(devices)))])
        else:
            count = work.workers or work.processes
            dask_worker([*arguments, "--nworkers", str(count), "--memory-limit", str(memory_share(count))])


def _await(file: Path) -> None:
    """Dask would wait for a scheduler's file for ever, and a driver may be killed before it has one."""
    deadline = time.monotonic() + _DEATH_TIMEOUT_S
    while not file.exists():
        if time.monotonic() > deadline:
            raise ClusterError(f"{file} did not come within {_DEATH_TIMEOUT_S} s; does this node see the folder?")
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
