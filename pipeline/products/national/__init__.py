"""The national product: editions of one sharded Zarr store, and which domain owns each pixel.

`publish_plan` decides which shards change, `shard_writer` writes one, `edition_writer` makes an edition current.
Coarser levels are in `pyramid`; who runs the tasks is decided by `pipeline.runs.publishing`.
"""
