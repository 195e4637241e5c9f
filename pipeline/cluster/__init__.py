"""Where tasks run: Dask clusters behind one function."""

from pipeline.cluster.bounded import in_flight
from pipeline.cluster.opened import dashboard, equip, open_cluster
from pipeline.cluster.processes import spread
from pipeline.cluster.share import engine_threads
from pipeline.cluster.watch import worker_count

__all__ = ["dashboard", "engine_threads", "equip", "in_flight", "open_cluster", "spread", "worker_count"]
