"""Sealed tiles become a new edition of the national product, with its levels, catalog and GIS files.

The formats belong to `pipeline.products.national`; here is the order of the steps and their tasks on the cluster.
"""
