"""Clusters of this machine: Dask's LocalCluster, and dask-cuda's with one worker per GPU."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster, Security, SpecCluster

from pipeline.cluster import no_http
from pipeline.cluster.scratch_folder import scratch_folder
from pipeline.cluster.tls import write_keys
from pipeline.cluster.worker_resources import dask_config, memory_per_worker, visible_gpus
from pipeline.config import Campaign
from pipeline.errors import ClusterError

log = logging.getLogger("landcover")

_CLOSE_S = 60
_STARTS = 3


def keep_log(record: logging.LogRecord) -> bool:
    """False for tornado's traceback of a worker that does not end in time: `_close` says it in a sentence."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, TimeoutError) and "SpecCluster._correct_state" in record.getMessage())


logging.getLogger("tornado.application").addFilter(keep_log)


def local_cluster(campaign: Campaign, *, workers: int | None) -> AbstractContextManager[Client]:
    """Worker processes on this machine. A killed worker is started again, and its tasks are run again."""
    count = workers or campaign.cluster.workers
    options = {"n_workers": count, "threads_per_worker": campaign.cluster.threads}
    options["memory_limit"] = memory_per_worker(count)
    return start_cluster(LocalCluster, dask_config(campaign), campaign.cluster.dashboard, **options)


def cuda_cluster(campaign: Campaign, *, workers: int | None) -> AbstractContextManager[Client]:
    """One worker per GPU of this machine, each with several reading threads; `workers` uses the first GPUs only.

    Raises:
        ClusterError: dask-cuda is not installed, or there are fewer GPUs.
    """
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise ClusterError(
            "cluster kind cuda needs dask-cuda: pip install 'landcover-pipeline[cuda]', or use --cluster local "
            f"({error})"
        ) from error
    devices = visible_gpus()
    if workers is not None and workers > len(devices):
        raise ClusterError(f"{workers} workers need {workers} GPUs; this machine has {len(devices)}")
    if not devices:
        raise ClusterError("cluster kind cuda: this machine has no GPU; use --cluster local")
    chosen = devices[:workers]
    options = {"CUDA_VISIBLE_DEVICES": chosen, "threads_per_worker": campaign.cluster.threads}
    # Results of tasks stay in host memory; PyTorch alone uses the device's.
    options |= {"memory_limit": memory_per_worker(len(chosen)), "device_memory_limit": 0}
    return start_cluster(LocalCUDACluster, dask_config(campaign), campaign.cluster.dashboard, **options)


@contextmanager
def start_cluster(
    kind: Callable[..., SpecCluster],
    config: Mapping[str, Any],
    dashboard: bool = False,  # noqa: FBT001, FBT002  (mypy)
    **options: Any,
) -> Iterator[Client]:
    """Starts a cluster on this machine that only this process can use, and closes it when the block ends.

    Args:
        kind: Dask's class of the cluster.
        config: Dask's configuration during the block.
        dashboard: serve Dask's dashboard to every user of this machine.
        options: of the class, such as the number of workers.

    Raises:
        ClusterError: the workers could not be started.
    """
    with scratch_folder() as scratch, dask.config.set(config):
        # The folder is open to this user alone, and so are the keys in it.
        with dask.config.set(write_keys(scratch)):
            security = Security()
        # Port 0: a second run on this machine gets another port.
        here = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "local_directory": str(scratch)}
        scheduler = {} if dashboard else {"dashboard": False, "preload": [no_http.__name__]}
        closed = {"protocol": "tls", "security": security, "preload": [no_http.__name__], "scheduler_kwargs": scheduler}
        cluster = _started(lambda: kind(**here, **closed, **options))
        try:
            with Client(cluster) as client:
                yield client
        finally:
            _close(cluster)


def _started(start: Callable[[], SpecCluster], attempts: int = _STARTS) -> SpecCluster:
    """Starts a cluster, again if a worker was lost meanwhile: Dask replaces only workers that were ready once."""
    try:
        return start()
    except RuntimeError as error:
        cause = error.__cause__ or error
        if attempts == 1:
            raise ClusterError(
                f"the workers could not be started, {_STARTS} times: {cause}; the system's log tells if one was killed "
                "for lack of memory: try fewer workers"
            ) from error
        log.warning("a worker ended while it started (%s); starting again", cause)
    return _started(start, attempts - 1)


def _close(cluster: SpecCluster) -> None:
    """Closes a cluster.

    A worker that was just restarted on a busy machine may take minutes to end, and its nanny may wait for ever. It
    then ends with this process: that is no failure of a run whose tiles are sealed.
    """
    try:
        cluster.close(timeout=_CLOSE_S)
    except TimeoutError:
        log.warning("a worker did not end in time; it ends with this process")
