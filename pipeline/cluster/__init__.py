"""Where tasks run: Dask clusters behind one function."""

from pipeline.cluster.bounded import in_flight
from pipeline.cluster.local import engine_threads, open_cluster

__all__ = ["engine_threads", "in_flight", "open_cluster"]
