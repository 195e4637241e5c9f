"""Files for QGIS and other viewers: a raster index over the COGs, a style, and a quick-look picture."""
