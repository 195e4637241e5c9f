"""Sealed tiles become a new edition of the national product; later come its generalised map and what changed.

The formats belong to `pipeline.products.national`; here is the order of the steps and their tasks on the cluster.
"""
