"""The one function that opens a cluster, and calls on its client."""

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import ip_address

from distributed import Client, WorkerPlugin
from distributed.comm import CommClosedError
from distributed.comm.addressing import get_address_host
from distributed.utils import get_ip

from pipeline.cluster.connection import connect, worker_count
from pipeline.cluster.local import cuda_cluster, local_cluster
from pipeline.cluster.slurm.cluster import slurm_cluster
from pipeline.config import Campaign
from pipeline.errors import ClusterError

log = logging.getLogger("landcover")

_KINDS = {"local": local_cluster, "cuda": cuda_cluster, "slurm": slurm_cluster}
_TRIES = 3
"""Times that workers may die while they set up a plugin: as often as for a tile."""


@contextmanager
def open_cluster(campaign: Campaign, *, client: Client | None = None, workers: int | None = None) -> Iterator[Client]:
    """Opens the cluster of a campaign's `cluster` section and yields its client, with at least one worker.

    The client and everything that was started for it are closed when the block ends.

    Args:
        campaign: its `cluster` section and `engine_threads` are used, and the folder of its products.
            `Campaign.on_cluster` chooses another kind, or a running cluster, which is left running.
        client: a client that is ready. It is yielded as it is and left open; the other arguments are ignored.
        workers: processes on this machine or on each node, instead of the campaign's number. With GPUs: use only the
            first so many.

    Raises:
        ClusterError: the cluster did not start, or its scheduler was lost during the block.
        MachineError: kind `slurm`: `srun` refuses to start the workers.

    Example:
        >>> with open_cluster(campaign, workers=2) as client:  # doctest: +SKIP
        ...     run(plan, client=client)
        ...     publish(campaign, client=client)
    """
    try:
        if client is not None:
            yield client
            return
        section = campaign.cluster
        cluster: AbstractContextManager[Client]
        if section.scheduler:
            cluster = connect(section.scheduler, wait_s=section.wait_s)
        else:
            cluster = _KINDS[section.kind](campaign, workers=workers)
        with cluster as opened:
            if section.dashboard and (address := dashboard(opened)):
                log.info("Dask dashboard: %s", address)
            yield opened
    except CommClosedError as error:
        raise ClusterError(f"the connection to the scheduler was lost: {error}; run again") from error


def register_plugin(client: Client, plugin: WorkerPlugin) -> None:
    """Registers a plugin with all workers, and with those that join later.

    Dask's own call fails where a worker dies meanwhile, although that worker's successor will have the plugin. The
    call is then repeated, and the other workers set the plugin up once more.

    Args:
        client: of the cluster.
        plugin: exceptions of its `setup` are raised here.

    Raises:
        ClusterError: the scheduler is gone, or workers died each time.
    """
    for left in reversed(range(_TRIES)):
        try:
            client.register_plugin(plugin)
        except OSError as error:  # CommClosedError is one
            worker_count(client)
            if not left:
                name = type(plugin).__name__
                raise ClusterError(f"workers died while they set up {name}: {error}; see their log") from error
        else:
            return


def dashboard(client: Client) -> str | None:
    """The dashboard's address. Inside a job, an `ssh` command follows that forwards it to the user's own machine.

    A scheduler of kind `slurm` serves the dashboard on its node's loopback address alone.

    Returns:
        None where the scheduler serves no dashboard, as those of this package do by default.
    """
    identity = client.scheduler_info(n_workers=0)
    port = identity["services"].get("dashboard")
    node = os.environ.get("SLURMD_NODENAME")
    if port is None:
        return None
    if node is None:
        return str(client.dashboard_link)
    host = get_address_host(identity["address"])
    login = os.environ.get("SLURM_SUBMIT_HOST", "LOGIN_NODE")
    here = ip_address(host).is_loopback or get_ip(host) == host
    forward = [f"{port}:127.0.0.1:{port}", "-J", login, node] if here else [f"{port}:{host}:{port}", login]
    return f"http://127.0.0.1:{port}/status after, on your machine: {shlex.join(['ssh', '-N', '-L', *forward])}"
