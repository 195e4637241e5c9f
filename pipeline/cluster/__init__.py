"""Where tasks run: Dask clusters behind one function."""

from pipeline.cluster.client import dashboard, equip, open_cluster
from pipeline.cluster.in_flight import in_flight
from pipeline.cluster.liveness import worker_count
from pipeline.cluster.parallel_map import spread
from pipeline.cluster.worker_resources import engine_threads

__all__ = ["dashboard", "engine_threads", "equip", "in_flight", "open_cluster", "spread", "worker_count"]
