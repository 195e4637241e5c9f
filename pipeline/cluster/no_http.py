"""Closes the HTTP server that each scheduler and worker of Dask opens; Dask loads it (`--preload`).

The server asks for no key, also without a dashboard: every user of the machine could read keys, addresses and metrics.
"""

from distributed import Scheduler, Worker


def dask_setup(server: Scheduler | Worker) -> None:
    """Dask calls it when the scheduler or worker starts, before a worker connects to its scheduler."""
    server.http_server.stop()
    server.services.pop("dashboard", None)
