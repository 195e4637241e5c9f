"""Connects to a running scheduler, and counts its workers."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client

from pipeline.errors import ClusterError

_POLL_S = 0.1


def worker_count(client: Client, *, timeout_s: float = 60) -> int:
    """Number of workers that are connected now. Workers of a job join late, and nodes may go.

    Args:
        client: of the cluster.
        timeout_s: seconds to wait for the scheduler's answer.

    Raises:
        ClusterError: the scheduler is gone or does not answer.
    """
    return int(_ask(client, "identity", timeout_s, n_workers=0)["n_workers"])


def paused_workers(client: Client, *, timeout_s: float = 60) -> tuple[int, frozenset[str]]:
    """The workers that Dask has paused, because their memory is nearly used up, and that compute nothing.

    Args:
        client: of the cluster.
        timeout_s: seconds to wait for the scheduler's answer.

    Returns:
        The number of all workers that are connected, and the addresses of those that are paused.

    Raises:
        ClusterError: the scheduler is gone or does not answer.
    """
    workers = _ask(client, "identity", timeout_s, n_workers=-1)["workers"]
    paused = (
        address
        for address, worker in workers.items()
        if worker["status"] == "paused" and not worker["metrics"].get("task_counts", {}).get("executing")
    )
    return len(workers), frozenset(paused)


def task_states(client: Client, name: str, *, timeout_s: float = 60) -> dict[str, int]:
    """Numbers of tasks by Dask's word for their state (`processing`, `memory`, `released`, …), of unfinished graphs.

    Args:
        client: of the cluster.
        name: what the tasks' keys begin with.
        timeout_s: seconds to wait for the scheduler's answer.

    Raises:
        ClusterError: the scheduler is gone or does not answer.
    """
    states: dict[str, int] = _ask(client, "get_task_prefix_states", timeout_s).get(name, {})
    return states


def restart_workers(client: Client, addresses: Sequence[str], *, timeout_s: float = 60) -> None:
    """Ends workers. Their nannies start them again, where they have any, and their tasks run elsewhere meanwhile.

    Args:
        client: of the cluster.
        addresses: of the workers.
        timeout_s: seconds to wait for their end.

    Raises:
        ClusterError: the scheduler is gone or does not answer.
    """
    how = {"on_error": "return", "wait_for_workers": False, "stimulus_id": "landcover-restart"}
    _ask(client, "restart_workers", 2 * timeout_s, workers=list(addresses), timeout=timeout_s, **how)


def _ask(client: Client, call: str, timeout_s: float, **arguments: Any) -> Any:
    """The scheduler's answer to one of its calls."""
    if client.status != "running" or client.scheduler is None:
        raise ClusterError(f"the connection to the scheduler was lost (client {client.status}); run again")
    try:
        return client.sync(getattr(client.scheduler, call), **arguments, callback_timeout=timeout_s)
    except OSError as error:  # TimeoutError is one
        cause = str(error) or f"no answer in {timeout_s:g} s"
        raise ClusterError(f"the scheduler does not answer: {cause}; run again") from error


@contextmanager
def connect(scheduler: str, *, wait_s: float, check: Callable[[], None] = lambda: None) -> Iterator[Client]:
    """A client of a running cluster with at least one worker. The cluster is left running.

    TLS follows Dask's own configuration (`distributed.comm.tls`).

    Args:
        scheduler: address or scheduler file.
        wait_s: seconds to wait for the first worker. More may join later.
        check: called while waiting; raises where no worker can come any more.

    Raises:
        ClusterError: there is no such scheduler, or no worker came in time.
    """
    try:
        if "://" in scheduler:
            client = Client(scheduler)
        elif Path(scheduler).is_file():
            client = Client(scheduler_file=scheduler)
        else:
            raise ClusterError(
                f"scheduler {scheduler!r} is neither an address (tcp://HOST:PORT, tls://HOST:PORT) nor a file"
            )
    except (OSError, TypeError, ValueError) as error:
        raise ClusterError(
            f"scheduler {scheduler}: {error}; check that it runs, and that Dask's configuration names its TLS files"
        ) from error
    with client:
        deadline = time.monotonic() + wait_s
        while not worker_count(client):
            check()
            if time.monotonic() > deadline:
                raise ClusterError(f"no worker came within {wait_s:g} s (cluster.wait_s)")
            time.sleep(_POLL_S)
        yield client
