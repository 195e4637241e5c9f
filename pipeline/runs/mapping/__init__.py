"""Mapping: locked domains, tiles in flight on the cluster, and the consequence of each kind of failure.

`run` is the place to start reading. What is to be mapped was decided by `planning`.
"""
