"""The product: COGs with a STAC item for each tile, and the national Zarr that is published from them.

`tile.seal` writes a tile and `tile.verify` checks it. `national.publish_plan` finds what a publish changes,
`national.edition_writer` and `national.shard_writer` write it. `analysis.open_product` opens all of it in xarray.
"""
