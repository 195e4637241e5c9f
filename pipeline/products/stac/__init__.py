"""The STAC catalog of the product: collections, the model as an item, and search without a server.

The item of a single tile is written by `tile`.
"""
