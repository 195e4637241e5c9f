"""A Dask cluster inside a SLURM job: one scheduler here, the workers by one `srun` over all of the job's nodes.

1. A folder that every node sees and only the user can open takes the keys, the scheduler's address and the logs.
2. `srun` starts `node` once a node, which waits for the scheduler's address. A node that is lost takes its own
   workers and nobody else's.
3. The scheduler is a process of its own. It ends with the driver, however the driver ends (`leash`), its
   workers end with it, and `srun` with them.
4. The client waits for the first worker; the others join when they come.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client

from pipeline.cluster.liveness import wait_for_worker
from pipeline.cluster.slurm import parent_death as leash
from pipeline.cluster.slurm.allocation import Allocation
from pipeline.cluster.slurm.child_process import child, inherited
from pipeline.cluster.slurm.node import SCHEDULER_FILE, NodeWork
from pipeline.cluster.slurm.queue import in_queue
from pipeline.cluster.slurm.tls import write_keys
from pipeline.cluster.worker_resources import dask_settings
from pipeline.config import Campaign
from pipeline.errors import ClusterError

_SCHEDULER_S = 60
_WORKERS_END_S = 10
_POLL_S = 0.05
_PER_TASK = tuple(
    f"{who}_{what}"
    for who in ("SLURM", "SRUN")
    for what in (
        *("CPUS_PER_TASK", "CPUS_PER_GPU", "NTASKS", "NPROCS", "NTASKS_PER_NODE", "NTASKS_PER_GPU"),
        *("GPUS_PER_TASK", "GPU_BIND", "TRES_PER_TASK", "TRES_BIND", "CPU_BIND"),
    )
)
"""What a job script asks for its own tasks; `srun` would apply it to the one task a node that is meant to have all."""


@contextmanager
def slurm(campaign: Campaign, *, workers: int | None) -> Iterator[Client]:
    """Workers on every node of this job: one a GPU, or `workers` a node where there is none.

    Raises:
        ClusterError: there is no job around this process, the scheduler or `srun` does not start, no worker came
            in time, or all were lost; the message holds what they printed.
    """
    allocation = Allocation.current()
    parent = campaign.cluster.folder or campaign.output.domains.parent / ".clusters"
    with _job_folder(parent, allocation) as folder, dask.config.set(dask_settings(campaign) | write_keys(folder)):
        NodeWork(
            addresses=allocation.addresses,
            workers=workers,
            processes=campaign.cluster.workers,
            threads=campaign.cluster.threads,
            gpus=campaign.engine != "openvino",
        ).write(folder)
        log = folder / "workers.log"
        environment = inherited(
            _PER_TASK, DASK_INTERNAL_INHERIT_CONFIG=dask.config.serialize(dask.config.global_config)
        )
        srun = child(_srun_command(folder, allocation), log, environment=environment, patience_s=_WORKERS_END_S)
        # Left in reverse: client, scheduler, which closes the workers, and then `srun` goes by itself.
        with srun as workers_of_job, _scheduler(folder, allocation.here), _client(folder) as client:
            try:
                wait_for_worker(client, wait_s=campaign.cluster.wait_s, check=workers_of_job.check)
                yield client
            except ClusterError as error:
                raise ClusterError(f"{error}{workers_of_job.tail}") from error


@contextmanager
def _job_folder(parent: Path, allocation: Allocation) -> Iterator[Path]:
    """A folder that only its owner can open; those of jobs that were killed are removed on the way."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent, allocation)
        folder = Path(tempfile.mkdtemp(prefix=f"{allocation.job}-{allocation.restarts}-", dir=parent))
    except OSError as error:
        raise ClusterError(
            f"{parent} cannot be written: {error}; name a folder that every node sees as cluster.folder"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path, allocation: Allocation) -> None:
    """Removes what killed jobs left, and what this job left before it was started anew."""
    left = [p for p in parent.iterdir() if p.name.count("-") == 2]
    if not left:
        return
    alive = in_queue()
    for folder in left:
        job, restarts, _ = folder.name.split("-")
        if job not in alive or (job == allocation.job and int(restarts) < allocation.restarts):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _scheduler(folder: Path, address: str) -> Iterator[None]:
    """The scheduler in a process of its own, ready when it has written its address."""
    command = [
        *(sys.executable, "-m", "distributed.cli.dask_scheduler"),
        *("--scheduler-file", str(folder / SCHEDULER_FILE)),
        *("--host", f"tls://{address}", "--port", "0"),
        # Its pages ask nobody for a key, so they are for this node alone; `ssh -L` reaches them.
        *("--dashboard-address", "127.0.0.1:0"),
        *("--preload", leash.__name__),
    ]
    config = dask.config.serialize(dask.config.global_config)
    environment = inherited(DASK_INTERNAL_INHERIT_CONFIG=config) | {leash.DRIVER: str(os.getpid())}
    with child(command, folder / "scheduler.log", environment=environment) as scheduler:
        deadline = time.monotonic() + _SCHEDULER_S
        while not (folder / SCHEDULER_FILE).exists():
            scheduler.check()
            if time.monotonic() > deadline:
                raise ClusterError(f"the Dask scheduler is not ready after {_SCHEDULER_S} s{scheduler.tail}")
            time.sleep(_POLL_S)
        yield


@contextmanager
def _client(folder: Path) -> Iterator[Client]:
    try:
        client = Client(scheduler_file=str(folder / SCHEDULER_FILE))
    except OSError as error:
        raise ClusterError(f"the job's own scheduler cannot be reached: {error}") from error
    with client:
        yield client


def _srun_command(folder: Path, allocation: Allocation) -> list[str]:
    nodes = len(allocation.addresses)
    return [
        *("srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"),
        # All of the job's cores and GPUs on a node, beside whatever runs there: the driver is on one of them.
        *("--overlap", "--cpu-bind=none"),
        # A lost node or worker costs its own work only.
        *("--kill-on-bad-exit=0", "--no-kill"),
        *("--label", "--unbuffered", "--input=none"),
        *(sys.executable, "-m", "pipeline.cluster.slurm.node", str(folder)),
    ]
