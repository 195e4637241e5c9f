"""The campaign's section on where its tasks run."""

from typing import Literal

from pydantic import Field

from pipeline.config.section import Located, Section

ClusterKind = Literal["local", "cuda", "slurm"]


class ClusterSection(Section):
    """Where tasks run: workers are processes; their threads read, and one at a time computes.

    Nothing here changes a byte of a map.
    """

    kind: ClusterKind = "local"
    """`local`: this machine's processors. `cuda`: its GPUs, one worker each. `slurm`: all nodes of the SLURM job that
    this process runs in."""
    scheduler: str | None = None
    """Address or scheduler file of a running Dask cluster, to use instead of a kind."""
    workers: int = Field(default=1, ge=1)
    """Worker processes on this machine, or on each node of a job. With GPUs there is one for each GPU instead."""
    threads: int = Field(default=2, ge=1)
    """Tasks that a worker runs at once."""
    tiles_in_flight: int = Field(default=2, ge=1)
    """Tiles for each worker that are submitted and not yet sealed: this bounds memory."""
    gdal_cache_mb: int = Field(default=512, ge=16)
    """GDAL's block cache in each worker, in MiB."""
    memory_bytes: int | None = Field(default=None, ge=1)
    """Memory that a worker may take. A run whose projection exceeds it does not start. No limit by default."""
    device_memory_bytes: int | None = Field(default=None, ge=1)
    """The same limit for the memory of the worker's GPU."""
    folder: Located | None = None
    """For kind `slurm`: a folder that every node can read, for keys and addresses. By default `.clusters` beside the
    products."""
    wait_s: float = Field(default=300, gt=0)
    """Seconds to wait for the first worker."""
    lost_s: float = Field(default=60, gt=0)
    """Seconds without any worker, or without an answer from the scheduler, after which the cluster counts as lost."""
