"""How many workers there are, and when a cluster counts as lost."""

import time
from collections.abc import Callable

from distributed import Client

from pipeline.errors import ClusterError

_POLL_S = 0.1


def worker_count(client: Client, *, timeout_s: float = 60) -> int:
    """Workers that are connected now: on a cluster they come later, and nodes go.

    Raises:
        ClusterError: the scheduler is gone, or gave no answer within `timeout_s` seconds.
    """
    if client.status != "running" or client.scheduler is None:
        raise ClusterError(f"the connection to the scheduler was lost (client {client.status}); run again")
    try:
        identity = client.sync(client.scheduler.identity, n_workers=0, callback_timeout=timeout_s)
    except OSError as error:  # TimeoutError is one
        cause = str(error) or f"no answer in {timeout_s:g} s"
        raise ClusterError(f"the scheduler does not answer: {cause}; run again") from error
    return int(identity["n_workers"])


def wait_for_worker(client: Client, *, wait_s: float, check: Callable[[], None] = lambda: None) -> None:
    """Waits for the first worker; more may join later.

    Args:
        client: of a scheduler that runs.
        wait_s: seconds to wait at most.
        check: called between looks; raises where no worker can come any more.

    Raises:
        ClusterError: none came in time, or the scheduler is gone.
    """
    deadline = time.monotonic() + wait_s
    while not worker_count(client):
        check()
        if time.monotonic() > deadline:
            raise ClusterError(f"no worker came within {wait_s:g} s (cluster.wait_s)")
        time.sleep(_POLL_S)


class Watch:
    """Looks whether the cluster still stands; a cluster without workers counts as lost after `lost_s` seconds."""

    def __init__(self, client: Client, *, lost_s: float) -> None:
        self._client, self._lost_s = client, lost_s
        self._alone_since: float | None = None

    def look(self) -> None:
        """Called now and then while nothing else happens.

        Raises:
            ClusterError: the scheduler is gone, or there has been no worker for too long.
        """
        if worker_count(self._client, timeout_s=self._lost_s):
            self._alone_since = None
            return
        now = time.monotonic()
        self._alone_since = self._alone_since or now
        if now - self._alone_since > self._lost_s:
            raise ClusterError(f"no worker for {self._lost_s:g} s (cluster.lost_s); run again")
