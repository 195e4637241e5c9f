"""Deliveries become input: `stage` unpacks archives and makes heights, `index` writes the catalog.

The steps only order calls to `pipeline.sources`.
"""
