"""Polygons from outside, whose work is limited before geometry libraries see them: those cannot be interrupted."""

from collections.abc import Iterable
from typing import Any

import shapely

from pipeline.errors import LandcoverError
from pipeline.untrusted.limits import INVALID_VERTICES, POLYGON_VERTICES


def check_polygons(polygons: Iterable[Any], where: object, error: type[LandcoverError]) -> None:
    """Raises `error` where a polygon has more vertices than the limits.

    Args:
        polygons: shapely geometries; None is skipped.
        where: the file, for the message.
        error: class of the error.
    """
    for polygon in polygons:
        if polygon is None:
            continue
        vertices = int(shapely.get_num_coordinates(polygon))
        POLYGON_VERTICES.check(vertices, where, error)
        # Testing takes no longer for more crossings, repairing and overlaying do.
        if vertices > INVALID_VERTICES.value and not shapely.is_valid(polygon):
            INVALID_VERTICES.check(vertices, where, error)
