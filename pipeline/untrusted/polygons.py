"""Polygons from outside, whose work is limited before geometry libraries see them: those cannot be interrupted."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import shapely

from pipeline.errors import LandcoverError
from pipeline.untrusted.limits import INVALID_VERTICES, POLYGON_VERTICES

_MOST_COORDINATE = 1e9
"""Metres or degrees from the origin of any CRS: work on edges that are cut into pieces grows with their length."""


def check_polygons(polygons: Iterable[Any], where: object, error: type[LandcoverError]) -> None:
    """Raises `error` where a polygon has more vertices than the limits, or a coordinate that no place on Earth has.

    Args:
        polygons: shapely geometries; None is skipped.
        where: the file, for the message.
        error: class of the error.
    """
    for polygon in polygons:
        if polygon is None or polygon.is_empty:
            continue
        if not (np.abs(polygon.bounds) < _MOST_COORDINATE).all():
            raise error(f"{where}: a polygon has bounds {polygon.bounds}; expected degrees or metres on Earth")
        vertices = int(shapely.get_num_coordinates(polygon))
        POLYGON_VERTICES.check(vertices, where, error)
        # Testing takes no longer for more crossings, repairing and overlaying do.
        if vertices > INVALID_VERTICES.value and not shapely.is_valid(polygon):
            INVALID_VERTICES.check(vertices, where, error)
