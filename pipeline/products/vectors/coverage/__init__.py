"""Polygons of a class raster as an exact coverage: arcs of cells, simplified once, merged and assembled."""
