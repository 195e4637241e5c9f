"""The border between the two domains, and their polygons."""

import numpy as np
from rasterio.warp import transform

from pipeline.grid import CRS, Window

Points = list[tuple[float, float]]

_BEYOND_M = 100.0
"""A domain's polygon extends this far beyond its tiles, except along the border."""


def border(middle: Window) -> Points:
    """The winding border through the window `middle`, from north to south, as (x, y) in metres of EPSG:2154."""
    left, bottom, right, top = middle.bounds
    reach = (right - left) / 2
    y = np.linspace(top + _BEYOND_M, bottom - _BEYOND_M, 200)
    s = (top - y) / reach
    x = (left + right) / 2 + reach * (0.45 * np.sin(2.1 * s + 0.4) + 0.16 * np.sin(5.3 * s))
    return list(zip(x.tolist(), y.tolist(), strict=True))


def polygon(window: Window, line: Points, *, west: bool) -> Points:
    """The ring of a domain on one side of the border, closed and counter-clockwise, as (longitude, latitude).

    Both domains share the vertices of the border, so they neither overlap nor leave a gap.
    """
    left, bottom, right, top = window.bounds
    south, north = bottom - _BEYOND_M, top + _BEYOND_M
    if west:
        far = left - _BEYOND_M
        ring = [(far, north), (far, south), *reversed(line), (far, north)]
    else:
        far = right + _BEYOND_M
        ring = [*line, (far, south), (far, north), line[0]]
    longitudes, latitudes = transform(CRS, "EPSG:4326", *zip(*ring, strict=True))
    return list(zip(longitudes, latitudes, strict=True))
