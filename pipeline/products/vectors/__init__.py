"""A class raster as polygons: an exact coverage, traced in cells, merged without cuts, and written as vector files."""
