"""The campaign's section on where its tasks run."""

from typing import Literal

from pydantic import Field

from pipeline.config.section import Located, Section

ClusterKind = Literal["local", "cuda", "slurm"]


class ClusterSection(Section):
    """Where tasks run: workers are processes, threads read and one of them holds the device. Changes no byte."""

    kind: ClusterKind = "local"
    """`local`: this machine; `cuda`: its GPUs, a worker each; `slurm`: all nodes of the job around this process."""
    scheduler: str | None = None
    """Address or scheduler file of a running Dask cluster, instead of a kind."""
    workers: int = Field(default=1, ge=1)
    """Worker processes on this machine, or on each node of a job. With GPUs there is one a GPU instead."""
    threads: int = Field(default=2, ge=1)
    """Tasks at once in a worker."""
    tiles_in_flight: int = Field(default=2, ge=1)
    """Tiles that are submitted and not yet sealed, a worker: it bounds memory."""
    gdal_cache_mb: int = Field(default=512, ge=16)
    """GDAL's block cache a worker, in MiB."""
    memory_bytes: int | None = Field(default=None, ge=1)
    """What a worker may take: a run whose projection is over it does not start. By default nothing is refused."""
    device_memory_bytes: int | None = Field(default=None, ge=1)
    """The same of its GPU's own memory, where it has one."""
    folder: Located | None = None
    """For kind `slurm`: a folder that every node sees, for keys and addresses; by default `.clusters` beside the
    products."""
    wait_s: float = Field(default=300, gt=0)
    """Seconds to wait for the first worker."""
    lost_s: float = Field(default=60, gt=0)
    """Seconds without any worker, or without an answer of the scheduler, after which the cluster counts as lost."""
