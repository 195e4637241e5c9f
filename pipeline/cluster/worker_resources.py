"""Resources of one worker, on any cluster: threads, GDAL's cache and memory."""

import os
import re
from typing import Any

from pipeline.config import Campaign


def engine_threads(campaign: Campaign) -> int:
    """Threads of the engine in each worker: the campaign's number, or this machine's cores over its workers.

    `--workers` does not change it: the last bit of a logit may depend on the engine's threads, and must not depend on
    the number of workers.
    """
    return campaign.engine_threads or max(1, len(os.sched_getaffinity(0)) // campaign.cluster.workers)


def dask_config(campaign: Campaign) -> dict[str, Any]:
    """Dask's configuration for scheduler and workers. Nannies set the variables before a worker's Python starts."""
    threads = str(engine_threads(campaign))
    environment = {
        # The engine's threads; a worker's readers decode with one thread each beside them.
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": "1",
        # GDAL reads this variable as MiB. A JPEG 2000 block of 1 024 px in three bands takes 3 MiB, and a block that
        # falls out of the cache is decoded again: below about 256 MiB a reader slows down to a third.
        "GDAL_CACHEMAX": str(campaign.cluster.gdal_cache_mb),
        # This dictionary replaces Dask's own, which trims memory. Few arenas: in each thread's
        # own glibc would keep freed windows and blocks of rasters, which come in all sizes.
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "MALLOC_ARENA_MAX": "2",
        # glibc would give each decoded part of an image back to the system alone and pay a twentieth of a reader's time
        # for fresh pages. `map_and_count` gives back what is free after each block, so memory stays level.
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    }
    # Dask looks at the stacks of all threads a hundred times a second for its dashboard, and measures the delay of each
    # event loop fifty times: together 3 % of a core with one worker, as long as the run lasts.
    quiet = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "500ms"}
    return {"distributed.nanny.pre-spawn-environ": environment} | ({} if campaign.cluster.dashboard else quiet)


def slurm_memory() -> int | None:
    """Bytes that the SLURM job around this process may take on each node; None where there is no limit."""
    per_node, per_cpu = _slurm_bytes("SLURM_MEM_PER_NODE"), _slurm_bytes("SLURM_MEM_PER_CPU")
    cpus = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return per_node or (per_cpu * int(cpus) if cpus.isdecimal() else 0) or None


def _slurm_bytes(variable: str) -> int:
    """A variable in SLURM's units: MiB without a letter. 0 means all memory."""
    found = re.fullmatch(r"([0-9]+)([KMGT]?)", os.environ.get(variable, ""), re.IGNORECASE)
    return int(found[1]) << {"K": 10, "": 20, "M": 20, "G": 30, "T": 40}[found[2].upper()] if found else 0


def memory_per_worker(workers: int, *, job: int | None = None) -> int:
    """Bytes of this machine's memory (or of the job's part of it) for each of its workers.

    Dask's own rule shares memory by a worker's threads over the cores. Two reading threads on a node of forty cores
    would be stopped at a twentieth of the memory, because Dask does not count the engine's threads.

    Args:
        workers: on this machine.
        job: bytes that the job may take here; by default `slurm_memory`.
    """
    from distributed.system import MEMORY_LIMIT

    limits = (int(MEMORY_LIMIT), job or slurm_memory())
    return min(limit for limit in limits if limit) // max(1, workers)


def share_of_memory(campaign: Campaign, workers: int | None) -> int:
    """Bytes of memory for each worker on this machine, or on each node of the job around this process.

    Args:
        campaign: its `cluster` section and engine are used.
        workers: the user's number.
    """
    kind = campaign.cluster.kind
    devices = visible_gpus() if kind == "cuda" or (kind == "slurm" and campaign.engine != "openvino") else ()
    return memory_per_worker(len(devices[:workers]) or workers or campaign.cluster.workers)


def visible_gpus() -> tuple[str, ...]:
    """Indices or UUIDs of the GPUs that this process may use, in order.

    `CUDA_VISIBLE_DEVICES` where it is set (SLURM sets it), or all GPUs of the driver.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(d.strip() for d in named.split(",") if d.strip())
    from distributed.diagnostics.nvml import device_get_count

    return tuple(str(i) for i in range(device_get_count()))
