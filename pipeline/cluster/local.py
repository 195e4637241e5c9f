"""The embedded default: Dask's LocalCluster on this machine."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster

from pipeline.config import Campaign


def engine_threads(campaign: Campaign) -> int:
    """Threads of the engine in each worker: as the campaign says, else this machine's cores over its workers.

    Another number of workers on the command line does not change it: the last bit of a logit may depend on
    the engine's threads, and must not depend on the workers.
    """
    return campaign.engine_threads or max(1, len(os.sched_getaffinity(0)) // campaign.cluster.workers)


@contextmanager
def open_cluster(campaign: Campaign, *, workers: int | None = None) -> Iterator[Client]:
    """A client of a LocalCluster as the campaign's `cluster` section says.

    Workers are processes: a killed one is started again by its nanny and its tasks are done anew.
    Threads of a worker read and decode side by side while one of them holds the device.

    Args:
        campaign: its `cluster` section, and `engine_threads`.
        workers: processes, instead of the campaign's number.

    Yields:
        The client; its `dashboard_link` is the address to show. Closed with its workers at the end.
    """
    section = campaign.cluster
    count = workers or section.workers
    threads = engine_threads(campaign)
    environment = {
        # The engine's threads, once: readers of a worker decode with one thread each beside them.
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        # GDAL reads this variable as MiB. A JPEG 2000 block of 1 024 px in three bands takes 3 MiB, and one that
        # falls out of the cache is decoded again: under some 256 MiB a reader slows down to a third.
        "GDAL_CACHEMAX": str(section.gdal_cache_mb),
    }
    with (
        tempfile.TemporaryDirectory(prefix="landcover-dask-") as scratch,
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
        LocalCluster(
            n_workers=count,
            threads_per_worker=section.threads,
            processes=True,
            # Port 0: a second run on this machine gets a port of its own.
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            local_directory=scratch,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
