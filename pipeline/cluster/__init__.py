"""Dask clusters: `client.open_cluster` opens them, `bounded_submission` and `parallel_map` submit work to them."""
