"""The campaign's section on the cluster that runs its tasks."""

from typing import Literal

from pydantic import Field

from pipeline.config.section import ConfigPath, Section

ClusterKind = Literal["local", "cuda", "slurm"]


class ClusterSection(Section):
    """Where tasks run, and with how many resources. It changes no byte of a product.

    Workers are processes. The threads of a worker read and decode in parallel; one of them at a time uses the device.
    """

    kind: ClusterKind = "local"
    """`local`: this machine. `cuda`: one worker per GPU of this machine. `slurm`: all nodes of the surrounding job."""
    scheduler: str | None = None
    """Address or scheduler file of a running Dask cluster, instead of `kind`."""
    workers: int = Field(default=1, ge=1)
    """Worker processes on this machine, or on each node of a job. With GPUs, one worker per GPU instead."""
    threads: int = Field(default=2, ge=1)
    """Tasks that a worker runs at once."""
    tiles_in_flight: int = Field(default=2, ge=1)
    """Tiles per worker that are submitted and not sealed yet. It bounds memory."""
    gdal_cache_mb: int = Field(default=512, ge=16)
    """GDAL's block cache of each worker, in MiB."""
    memory_bytes: int | None = Field(default=None, ge=1)
    """Memory that a worker may use. A run with a larger projection does not start; by default there is no limit."""
    device_memory_bytes: int | None = Field(default=None, ge=1)
    """The same for the memory of the worker's GPU."""
    folder: ConfigPath | None = None
    """For kind `slurm`: a folder that every node sees, for keys and addresses. The default is `.clusters` beside the
    products."""
    wait_s: float = Field(default=300, gt=0)
    """Seconds to wait for the first worker."""
    lost_s: float = Field(default=60, gt=0)
    """Seconds without any worker, or without an answer of the scheduler, after which the cluster is lost."""
