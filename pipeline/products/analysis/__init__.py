"""Questions to a product in Python: open it, areas by class in polygons, change between two maps.

Every function takes or returns xarray and geopandas objects. Accuracy belongs to `pipeline.evaluation`.
"""
