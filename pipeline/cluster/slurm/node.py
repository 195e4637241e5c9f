"""Starts the Dask workers of one node of a SLURM job; `srun` runs it once per node.

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

from pipeline.cluster import no_http
from pipeline.cluster.scratch_folder import scratch_folder
from pipeline.cluster.worker_resources import memory_per_worker, visible_gpus
from pipeline.errors import ClusterError
from pipeline.untrusted.documents import DocumentError, read_model

WORK_FILE = "node.json"
SCHEDULER_FILE = "scheduler.json"
_DEATH_TIMEOUT_S = 60
_POLL_S = 0.1


@dataclass(frozen=True)
class NodeWork:
    """The workers that a driver wants on each node."""

    addresses: dict[str, str]
    """Node name → IP address under which the other nodes reach it."""
    workers: int | None
    """Worker processes per node; None: one per GPU."""
    processes: int
    """Worker processes of a node without GPUs."""
    threads: int
    """Tasks that a worker runs at once."""
    gpus: bool
    """Whether a node with GPUs gets one worker per GPU."""
    memory: int | None = None
    """Bytes that the job may take on each node; None where SLURM does not limit it."""

    def write(self, folder: Path) -> None:
        """Writes the file that `read` reads.

        Args:
            folder: a folder that all nodes see.
        """
        (folder / WORK_FILE).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> "NodeWork":
        """Reads the driver's file.

        Raises:
            ClusterError: it is missing or damaged.
        """
        try:
            return read_model(cls, folder / WORK_FILE)
        except (FileNotFoundError, DocumentError) as error:
            raise ClusterError(f"{folder / WORK_FILE}: {error}; submit the job again") from error


def scratch() -> Path:
    """Folder on this node for spilled data: the first of the variables of sites that names a writable folder."""
    for variable in ("SLURM_TMPDIR", "JOBSCRATCH", "TMPDIR"):
        folder = os.environ.get(variable)
        if folder and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    return Path(tempfile.gettempdir())


def main(folder: Path) -> None:
    """Runs this node's workers until the scheduler closes them.

    Their names are `NODE-RANK`, followed by `-0`, `-1`, … where a node has several, so that logs name the place.

    Args:
        folder: of the job; contains `node.json`, and `scheduler.json` once the scheduler is ready.

    Raises:
        ClusterError: the scheduler is not ready in time.
    """
    work = NodeWork.read(folder)
    _wait_for(folder / SCHEDULER_FILE)
    node, rank = os.environ["SLURMD_NODENAME"], os.environ["SLURM_PROCID"]
    devices = visible_gpus()
    arguments = [
        *("--scheduler-file", str(folder / SCHEDULER_FILE)),
        *("--name", f"{node}-{rank}"),
        *("--host", work.addresses[node]),
        *("--nthreads", str(work.threads)),
        *("--death-timeout", str(_DEATH_TIMEOUT_S)),
        *("--no-dashboard", "--preload", no_http.__name__),
    ]
    with scratch_folder(scratch()) as local:
        arguments += ["--local-directory", str(local)]
        if work.gpus and devices:
            from dask_cuda.cli import worker as dask_cuda_worker

            devices = devices[: work.workers]
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
            dask_cuda_worker([*arguments, "--memory-limit", str(memory_per_worker(len(devices), job=work.memory))])
        else:
            count = work.workers or work.processes
            memory = memory_per_worker(count, job=work.memory)
            dask_worker([*arguments, "--nworkers", str(count), "--memory-limit", str(memory)])


def _wait_for(file: Path) -> None:
    """Waits for a file. Dask would wait for ever, and a driver may be killed before its scheduler is ready."""
    deadline = time.monotonic() + _DEATH_TIMEOUT_S
    while not file.exists():
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{file} is missing after {_DEATH_TIMEOUT_S} s; check that this node sees the folder (cluster.folder)"
            )
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
