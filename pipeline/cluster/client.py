"""The one way to a cluster: what the campaign or the command line names, as a client."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from distributed import Client, WorkerPlugin
from distributed.comm import CommClosedError
from distributed.comm.addressing import get_address_host
from distributed.utils import get_ip

from pipeline.cluster.liveness import wait_for_worker, worker_count
from pipeline.cluster.local import cuda, local
from pipeline.cluster.slurm.cluster import slurm
from pipeline.config import Campaign, ClusterKind
from pipeline.errors import ClusterError

_KINDS = {"local": local, "cuda": cuda, "slurm": slurm}
_TRIES = 3
"""Times that workers may die while they take a plugin: as often as on a tile."""


@contextmanager
def open_cluster(
    campaign: Campaign, *, workers: int | None = None, kind: ClusterKind | None = None, scheduler: str | None = None
) -> Iterator[Client]:
    """A client of the cluster that the campaign's `cluster` section says; the arguments go before it.

    Threads of a worker read and decode side by side while one of them holds the device.

    Args:
        campaign: its `cluster` section, `engine_threads`, and where its products go.
        workers: processes on this machine or on each node; of GPUs, the first so many.
        kind: `local`, `cuda` or `slurm`.
        scheduler: address or scheduler file of a running one, instead of a kind; it is left running.

    Yields:
        The client, with at least one worker. Closed at the end, with what was started for it.

    Raises:
        ClusterError: the cluster did not come up, or its scheduler was lost meanwhile.
    """
    section = campaign.on_cluster(kind, scheduler).cluster
    if section.scheduler:
        chosen = running(section.scheduler, wait_s=section.wait_s)
    else:
        chosen = _KINDS[section.kind](campaign, workers=workers)
    try:
        with chosen as client:
            yield client
    except CommClosedError as error:
        raise ClusterError(f"the connection to the scheduler was lost: {error}; run again") from error


@contextmanager
def running(scheduler: str, *, wait_s: float) -> Iterator[Client]:
    """A client of somebody's cluster, with at least one worker. TLS as Dask's own configuration says
    (`distributed.comm.tls`).

    Args:
        scheduler: its address or scheduler file; it is left running.
        wait_s: seconds in which a worker has to be there.

    Raises:
        ClusterError: no such scheduler, or no worker.
    """
    try:
        if "://" in scheduler:
            client = Client(scheduler)
        elif Path(scheduler).is_file():
            client = Client(scheduler_file=scheduler)
        else:
            raise ClusterError(f"scheduler {scheduler!r} is no address (tcp://HOST:PORT, tls://HOST:PORT) and no file")
    except (OSError, TypeError, ValueError) as error:
        raise ClusterError(
            f"scheduler {scheduler}: {error}; is it running, and does Dask's configuration name its TLS files?"
        ) from error
    with client:
        wait_for_worker(client, wait_s=wait_s)
        yield client


def equip(client: Client, plugin: WorkerPlugin) -> None:
    """Gives a plugin to all workers, and to those that come later.

    Dask's own call fails where one worker dies meanwhile, though its successor will have the plugin. It is called again
    then, and the others set theirs up once more.

    Raises:
        ClusterError: the scheduler is gone, or workers die again and again; what `setup` raises comes as it is.
    """
    for left in reversed(range(_TRIES)):
        try:
            client.register_plugin(plugin)
        except OSError as error:  # CommClosedError is one
            worker_count(client)
            if not left:
                name = type(plugin).__name__
                raise ClusterError(f"workers die while they set up {name}: {error}; see their log") from error
        else:
            return


def dashboard(client: Client) -> str:
    """Where the dashboard is, and inside a job the `ssh` line that brings it to the user's own machine.

    A scheduler of kind `slurm` serves it on its node's loopback address alone.
    """
    identity = client.scheduler_info(n_workers=0)
    port = identity["services"].get("dashboard")
    node = os.environ.get("SLURMD_NODENAME")
    if port is None or node is None:
        return str(client.dashboard_link)
    host = get_address_host(identity["address"])
    login = os.environ.get("SLURM_SUBMIT_HOST", "LOGIN_NODE")
    here = ip_address(host).is_loopback or get_ip(host) == host
    way = f"{port}:127.0.0.1:{port} -J {login} {node}" if here else f"{port}:{host}:{port} {login}"
    return f"http://127.0.0.1:{port}/status after, on your machine: ssh -N -L {way}"
