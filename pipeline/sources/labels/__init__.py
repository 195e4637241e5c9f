"""Labelled data: patches with masks as FLAIR ships them, and rasters or polygons that serve as a reference."""
