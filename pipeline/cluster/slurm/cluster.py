"""A Dask cluster inside a SLURM job: a scheduler on this node, and workers on all nodes of the job.

1. A folder that every node sees and only the user can open receives keys, the scheduler's address and the logs.
2. One `srun` starts `pipeline.cluster.slurm.node` once per node, which waits for the scheduler's address. A node that
   is lost takes only its own workers with it.
3. The scheduler is a process of its own. It ends with the driver, however the driver ends (`parent_death`); its workers
   end with it, and `srun` with them.
4. The client waits for the first worker. The others join when they are ready.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import dask
from distributed import Client

from pipeline.cluster import no_http
from pipeline.cluster.connection import connect
from pipeline.cluster.slurm import parent_death
from pipeline.cluster.slurm.allocation import Allocation
from pipeline.cluster.slurm.child_process import ChildProcess, child_process
from pipeline.cluster.slurm.node import SCHEDULER_FILE, NodeWork
from pipeline.cluster.slurm.queue import queued_job_ids, run_slurm, slurm_environment
from pipeline.cluster.tls import write_keys
from pipeline.cluster.worker_resources import dask_config, slurm_memory
from pipeline.config import Campaign
from pipeline.errors import ClusterError, MachineError
from pipeline.untrusted.documents import DocumentError, read_json
from pipeline.untrusted.own_files import is_sealed_off, own_entries

_SCHEDULER_S = 60
_WORKERS_END_S = 10
_POLL_S = 0.05
_FOLDER = r"landcover-[0-9]+-[0-9]+-[a-z0-9_]{8}"
_MARKER = "landcover-job.json"
"""File in a job's folder that names the job: only a folder with it is ever removed."""
_REFUSAL = re.compile(
    r"^srun: (fatal:|unrecognized option|error: (Invalid|Unable to create step.*("
    r"Memory required|More processors|Requested node configuration|Invalid (?!job id))))",
    re.MULTILINE,
)
"""Lines by which `srun` refuses a request. It would refuse the same request again."""


@contextmanager
def slurm_cluster(campaign: Campaign, *, workers: int | None) -> Iterator[Client]:
    """Workers on every node of this job: one per GPU, or `workers` per node without GPUs.

    Raises:
        ClusterError: there is no job around this process, the scheduler or `srun` does not start, no worker came
            in time, or all were lost. The message contains their output.
        MachineError: `srun` refuses the request; another start would not help.
    """
    allocation = Allocation.current()
    parent = campaign.cluster.folder or campaign.output.domains.parent / ".clusters"
    with _job_folder(parent, allocation) as folder, dask.config.set(dask_config(campaign) | write_keys(folder)):
        NodeWork(
            addresses=allocation.addresses,
            workers=workers,
            processes=campaign.cluster.workers,
            threads=campaign.cluster.threads,
            gpus=campaign.engine != "openvino",
            memory=slurm_memory(),
        ).write(folder)
        log = folder / "workers.log"
        # Without what the job script requests for its own tasks: `srun` would apply it to the one task per node.
        environment = slurm_environment(inside_job=True) | _dask_environment()
        srun = child_process(_srun_command(folder, allocation), log, environment=environment, grace_s=_WORKERS_END_S)
        # Left in reverse order: the client, the scheduler, which closes the workers, and then `srun` ends by itself.
        with srun as started, _scheduler(folder, allocation.here, dashboard=campaign.cluster.dashboard):
            file, wait_s = str(folder / SCHEDULER_FILE), campaign.cluster.wait_s
            try:
                with connect(file, wait_s=wait_s, check=partial(_check_srun, started)) as client:
                    yield client
            except ClusterError as error:
                raise ClusterError(f"{error}{started.tail}") from error


def _check_srun(srun: ChildProcess) -> None:
    """Makes sure that `srun`, which has started no worker yet, still runs."""
    try:
        srun.check()
    except ClusterError as error:
        refused = _REFUSAL.search(srun.log.read_text(encoding="utf-8", errors="replace"))
        raise MachineError(str(error)) if refused else error from None


@contextmanager
def _job_folder(parent: Path, allocation: Allocation) -> Iterator[Path]:
    """A folder that only its owner can open. Folders of killed jobs are removed first."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        marker = {"controller": _controller(), "job": allocation.job, "restarts": allocation.restarts}
        _remove_leftovers(parent, marker)
        folder = Path(tempfile.mkdtemp(prefix=f"landcover-{allocation.job}-{allocation.restarts}-", dir=parent))
        (folder / _MARKER).write_text(json.dumps(marker), encoding="utf-8")
    except OSError as error:
        raise ClusterError(
            f"{parent} cannot be written: {error}; set cluster.folder to a folder that every node sees"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(parent: Path, own: Mapping[str, object]) -> None:
    """Removes the folders of this user's killed jobs, and those of earlier starts of this job.

    A folder is removed only if its marker names a job of the same controller that is no longer in the queue. An answer
    without this job is not the whole queue, and nothing is removed.

    Args:
        parent: may contain anything.
        own: the marker of this start.
    """
    marked = {folder: _read_marker(folder) for folder in own_entries(parent, pattern=_FOLDER, kind="folder")}
    same = {folder: found for folder, found in marked.items() if found.get("controller") == own["controller"]}
    if not same or not own["controller"] or own["job"] not in (alive := queued_job_ids()):
        return
    for folder, found in same.items():
        earlier = found["job"] == own["job"] and int(str(found["restarts"])) < int(str(own["restarts"]))
        if found["job"] not in alive or earlier:
            shutil.rmtree(folder, ignore_errors=True)


def _read_marker(folder: Path) -> Mapping[str, object]:
    """What a folder's marker says; empty where it has none, or one that contradicts the folder's name."""
    marker = folder / _MARKER
    try:
        found = read_json(marker) if is_sealed_off(marker) else None
    except (FileNotFoundError, DocumentError):
        return {}
    _, job, restarts, _ = folder.name.split("-")
    if not isinstance(found, dict) or (found.get("job"), found.get("restarts")) != (job, int(restarts)):
        return {}
    return found


def _controller() -> str:
    """Name and host of the SLURM controller, because each counts jobs from 1."""
    shown = run_slurm("scontrol", "show", "config", error=ClusterError)
    return " ".join(re.findall(r"^(?:ClusterName|SlurmctldHost\[0\])\s*=\s*(\S+)", shown, re.MULTILINE))


@contextmanager
def _scheduler(folder: Path, address: str, *, dashboard: bool) -> Iterator[None]:
    """The scheduler in a process of its own. It is ready when it has written its address."""
    command = [
        *(sys.executable, "-m", "distributed.cli.dask_scheduler"),
        *("--scheduler-file", str(folder / SCHEDULER_FILE)),
        *("--host", f"tls://{address}", "--port", "0"),
        # The dashboard asks for no key, so it serves this node alone; `ssh -L` reaches it.
        *("--dashboard-address", "127.0.0.1:0"),
        *("--preload", parent_death.__name__),
        *(("--dashboard",) if dashboard else ("--no-dashboard", "--preload", no_http.__name__)),
    ]
    environment = os.environ | _dask_environment() | {parent_death.DRIVER: str(os.getpid())}
    with child_process(command, folder / "scheduler.log", environment=environment) as scheduler:
        deadline = time.monotonic() + _SCHEDULER_S
        while not (folder / SCHEDULER_FILE).exists():
            scheduler.check()
            if time.monotonic() > deadline:
                raise ClusterError(f"the Dask scheduler is not ready after {_SCHEDULER_S} s{scheduler.tail}")
            time.sleep(_POLL_S)
        yield


def _dask_environment() -> dict[str, str]:
    """Dask's present configuration as a variable for child processes."""
    return {"DASK_INTERNAL_INHERIT_CONFIG": dask.config.serialize(dask.config.global_config)}


def _srun_command(folder: Path, allocation: Allocation) -> list[str]:
    nodes = len(allocation.addresses)
    return [
        *("srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"),
        # All of the job's cores and GPUs on a node, beside other processes there: the driver runs on one of them.
        *("--overlap", "--cpu-bind=none", "--export=ALL"),
        # A lost node or worker costs only its own work.
        *("--kill-on-bad-exit=0", "--no-kill"),
        *("--label", "--unbuffered", "--input=none"),
        *(sys.executable, "-m", "pipeline.cluster.slurm.node", str(folder)),
    ]
