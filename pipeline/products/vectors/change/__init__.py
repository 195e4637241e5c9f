"""Polygons of what changed between two editions, with a minimum unit."""
