"""What one worker gets, wherever it runs: threads, GDAL's cache, memory."""

import os
from typing import Any

from distributed.diagnostics.nvml import device_get_count
from distributed.system import MEMORY_LIMIT

from pipeline.config import Campaign


def engine_threads(campaign: Campaign) -> int:
    """Threads of the engine in each worker: as the campaign says, else this machine's cores over its workers.

    Another number of workers on the command line does not change it: the last bit of a logit may depend on
    the engine's threads, and must not depend on the workers.
    """
    return campaign.engine_threads or max(1, len(os.sched_getaffinity(0)) // campaign.cluster.workers)


def dask_settings(campaign: Campaign) -> dict[str, Any]:
    """Dask's configuration for workers that this package starts; their nannies set it before Python imports."""
    threads = str(engine_threads(campaign))
    environment = {
        # The engine's threads, once: readers of a worker decode with one thread each beside them.
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": "1",
        # GDAL reads this variable as MiB. A JPEG 2000 block of 1 024 px in three bands takes 3 MiB, and one that
        # falls out of the cache is decoded again: under some 256 MiB a reader slows down to a third.
        "GDAL_CACHEMAX": str(campaign.cluster.gdal_cache_mb),
        # Dask's own, which this dictionary replaces, and no heap a thread: glibc would keep freed windows and blocks
        # of rasters, which come in all sizes. Without both a worker grows by 40 MB a tile of 25 Mpx; with them reading
        # stays where its second tile brought it.
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "MALLOC_ARENA_MAX": "2",
    }
    return {"distributed.nanny.pre-spawn-environ": environment}


def memory_share(workers: int) -> int:
    """Bytes of this machine (or of its job's part of it) for each of its workers.

    Dask's own rule gives a worker memory by its threads over the cores, so two reading threads on a node of
    forty cores would be stopped at a twentieth of its memory: the engine's threads are none that Dask counts.
    """
    limit = int(MEMORY_LIMIT)
    if per_node := os.environ.get("SLURM_MEM_PER_NODE"):
        limit = min(limit, int(per_node) * 2**20)
    elif (per_cpu := os.environ.get("SLURM_MEM_PER_CPU")) and (cpus := os.environ.get("SLURM_CPUS_ON_NODE")):
        limit = min(limit, int(per_cpu) * int(cpus) * 2**20)
    return limit // max(1, workers)


def visible_gpus() -> tuple[str, ...]:
    """Indices or UUIDs of the GPUs that this process may use, in order.

    `CUDA_VISIBLE_DEVICES` where it is set (SLURM sets it), else all that the driver knows.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(d.strip() for d in named.split(",") if d.strip())
    return tuple(str(i) for i in range(device_get_count()))
