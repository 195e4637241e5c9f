"""Clusters of this machine: Dask's LocalCluster, and dask-cuda's with one worker a GPU."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster, SpecCluster

from pipeline.cluster.worker_resources import dask_settings, memory_share, visible_gpus
from pipeline.config import Campaign
from pipeline.errors import ClusterError

log = logging.getLogger("landcover")

_CLOSE_S = 60


@contextmanager
def local(campaign: Campaign, *, workers: int | None) -> Iterator[Client]:
    """Worker processes on this machine; a killed one is started again by its nanny and its tasks are done anew."""
    section = campaign.cluster
    count = workers or section.workers
    with _scratch(campaign) as scratch:
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=section.threads,
            processes=True,
            memory_limit=memory_share(count),
            # Port 0: a second run on this machine gets a port of its own.
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            local_directory=scratch,
        )
        with _closing(cluster), Client(cluster) as client:
            yield client


@contextmanager
def cuda(campaign: Campaign, *, workers: int | None) -> Iterator[Client]:
    """One worker a GPU of this machine, each with several reading threads; `workers` takes the first GPUs only.

    Raises:
        ClusterError: dask-cuda is not installed, or there are fewer GPUs.
    """
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise ClusterError(
            f"cluster kind cuda wants dask-cuda: pip install 'landcover-pipeline[cuda]', or choose kind local ({error})"
        ) from error
    devices = visible_gpus()
    if workers is not None and workers > len(devices):
        raise ClusterError(f"{workers} workers want {workers} GPUs; this machine has {len(devices)}")
    if not devices:
        raise ClusterError("cluster kind cuda: this machine has no GPU; choose kind local")
    chosen = devices[:workers]
    with _scratch(campaign) as scratch:
        cluster = LocalCUDACluster(
            CUDA_VISIBLE_DEVICES=chosen,
            threads_per_worker=campaign.cluster.threads,
            memory_limit=memory_share(len(chosen)),
            # What tasks return lies in host memory; the device is PyTorch's.
            device_memory_limit=0,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            local_directory=scratch,
        )
        with _closing(cluster), Client(cluster) as client:
            yield client


@contextmanager
def _scratch(campaign: Campaign) -> Iterator[str]:
    """A temporary folder for workers, while Dask is set up as they want it."""
    with (
        tempfile.TemporaryDirectory(prefix="landcover-dask-") as folder,
        dask.config.set(dask_settings(campaign)),
    ):
        yield folder


@contextmanager
def _closing(cluster: SpecCluster) -> Iterator[None]:
    """Closes a cluster at the end of the block.

    A worker that has just been started again takes long to go on a busy machine, and its nanny may wait for ever. Then
    it is left to die with this process: no failure of a run whose tiles are sealed.
    """
    try:
        yield
    finally:
        try:
            cluster.close(timeout=_CLOSE_S)
        except TimeoutError:
            log.warning("a worker did not end in time; it ends with this process")
