"""Checks of single files before they are indexed: georeference, band pairs, radiometry, heights, nodata fill.

The limits of the model card are checked here. Writing the catalog belongs to `catalog`.
"""
