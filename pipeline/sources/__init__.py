"""From deliveries on disk to windows of pixels.

`catalog.index` writes the input catalog and `catalog.reader` reads it. The network reads windows from a
`reading.mosaic.Mosaic` or a `reading.raster.Raster`.
"""
