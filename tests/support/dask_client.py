"""A Dask client whose scheduler and worker run in this process, so that runs start in a moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from distributed import Client

THREADS = 2
"""Threads of the worker."""


@contextmanager
def in_process_client(*, threads: int = THREADS) -> "Iterator[Client]":
    """A client with one worker. When the block ends, the tasks that are still running are awaited."""
    # Imported here, because pytest-xdist's own process loads this plugin and runs no test.
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            # An address that commands in other processes, or with a client of their own, can connect to.
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


# Not of the session: Dask's threads use `random`, and Hypothesis refuses strategies during which its state changes.
@pytest.fixture(scope="module")
def dask_client() -> "Iterator[Client]":
    """One client for the tests of a module."""
    with in_process_client() as client:
        yield client


@pytest.fixture
def scheduler_option(dask_client: "Client") -> tuple[str, str]:
    """The option by which `landcover run` and `landcover publish` use the client's cluster."""
    return "--scheduler", dask_client.scheduler.address
