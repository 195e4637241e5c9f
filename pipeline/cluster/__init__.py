"""Dask clusters: one function opens them, and a few submit work to them."""

from pipeline.cluster.bounded_submission import map_jobs, submit_bounded
from pipeline.cluster.client import dashboard, open_cluster, register_plugin
from pipeline.cluster.liveness import worker_count
from pipeline.cluster.parallel_map import parallel_map
from pipeline.cluster.worker_resources import engine_threads

__all__ = [
    "dashboard",
    "engine_threads",
    "map_jobs",
    "open_cluster",
    "parallel_map",
    "register_plugin",
    "submit_bounded",
    "worker_count",
]
