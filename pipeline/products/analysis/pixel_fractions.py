"""How much of each pixel a polygon covers, exactly: signed areas along its edges, summed along the rows.

Each edge is cut at the borders of pixels. By Green's theorem a polygon's area is the sum over its edges of x · dy, so
an edge adds its dy to all pixels right of it, and to its own pixel the share that lies right of the edge. That takes
one pass over the edges and one cumulative sum, as in font rasterizers.
"""

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

Floats = NDArray[np.float64]


def fractions(polygon: BaseGeometry, shape: tuple[int, int]) -> Floats:
    """The share of each pixel that lies in a polygon.

    Args:
        polygon: a valid Polygon, MultiPolygon or collection, in pixels: x is the column, y the row, both from the
            array's first corner. Lines, points and parts outside the array are ignored.
        shape: (height, width).

    Returns:
        float64 (y, x), 0..1 within rounding.
    """
    height, width = shape
    parts: Floats = np.zeros((height, width + 1))
    starts, ends = _edges(polygon)
    edge, begin, end = _pieces(starts, ends)
    move = ends - starts
    dy = (end - begin) * move[edge, 1]
    middle = starts[edge] + ((begin + end) / 2)[:, None] * move[edge]
    row = np.floor(middle[:, 1]).astype(np.int64)
    x = np.maximum(middle[:, 0], 0)
    column = np.floor(x).astype(np.int64)
    here = (row >= 0) & (row < height) & (column < width)
    row, column, right, dy = row[here], column[here], (x - column)[here], dy[here]
    np.add.at(parts, (row, column), -dy * (1 - right))
    np.add.at(parts, (row, column + 1), -dy * right)
    covered: Floats = np.cumsum(parts, axis=1)[:, :-1]
    return covered


def _edges(polygon: BaseGeometry) -> tuple[Floats, Floats]:
    """(edge, x y) of starts and ends: around shells one way, around holes the other, which so count negative."""
    polygons = [p for p in shapely.get_parts(shapely.get_parts([polygon])) if shapely.get_dimensions(p) == 2]
    rings = shapely.get_rings(shapely.orient_polygons(np.array(polygons, object)))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    inside = ring[1:] == ring[:-1]
    return points[:-1][inside], points[1:][inside]


def _pieces(starts: Floats, ends: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Edges cut at pixel borders: (piece,) of the edge's number, and of where on it, 0..1, a piece begins and ends."""
    numbers = np.arange(len(starts))
    edges, cuts = [numbers, numbers], [np.zeros(len(starts)), np.ones(len(starts))]
    for axis in (0, 1):
        a, b = starts[:, axis], ends[:, axis]
        lowest, highest = np.floor(np.minimum(a, b)) + 1, np.ceil(np.maximum(a, b)) - 1
        count = np.maximum(highest - lowest + 1, 0).astype(np.int64)
        edge = np.repeat(numbers, count)
        line = lowest[edge] + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        edges.append(edge)
        cuts.append((line - a[edge]) / (b - a)[edge])
    every, at = np.concatenate(edges), np.concatenate(cuts)
    order = np.lexsort((at, every))
    every, at = every[order], at[order]
    same = every[1:] == every[:-1]
    return every[1:][same], at[:-1][same], at[1:][same]
