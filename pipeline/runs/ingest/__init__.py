"""Deliveries become input: `stage` unpacks archives and makes heights, then `sources.catalog.index` writes the catalog.

The steps only order calls to `pipeline.sources`.
"""
