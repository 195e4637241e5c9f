"""What is delivered: COGs and their STAC items per tile, and the national Zarr.

`item.seal` writes a tile, `item.check` proves it whole; `national.plan_edition` decides what a publish
changes, `edition` writes it, and `store.open_national` reads it.
"""
