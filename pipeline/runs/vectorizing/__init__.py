"""`landcover vectorize`: an edition as polygons, block by block on the cluster."""
