"""Windows of pixels from the files of a domain: a lazy mosaic of imagery and elevation, or a single raster.

Retries, open datasets and GDAL's silent failures are handled here. What files exist is decided by `catalog`.
"""
