"""The geobox of an xarray product, and arithmetic between its pixels and its CRS.

Products are regular north-up grids in metres, whole or cut. Windows count from the first corner of a geobox.
"""

import math
from typing import Any

import numpy as np
import pyproj
import shapely
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from pipeline.errors import ProductError
from pipeline.grid import Window


def geobox_of(product: xr.Dataset) -> GeoBox:
    """The geobox of a Dataset's (y, x), read off the coordinates, which stay true when a Dataset is cut.

    Raises:
        ProductError: no CRS, a single pixel, or no square pixels with rows from the north.
    """
    x, y = (product[axis].to_numpy() for axis in "xy")
    # Over the whole axis: odc-geo takes the first two centres, whose difference has lost nine digits.
    steps = [(v[-1] - v[0]) / (len(v) - 1) for v in (x, -y) if len(v) > 1]
    if not steps or product.rio.crs is None:
        raise ProductError(f"expected more than one pixel and a CRS; got {dict(product.sizes)}")
    pixel = float(steps[0])
    if pixel <= 0 or not math.isclose(pixel, steps[-1], rel_tol=1e-6):
        raise ProductError(f"expected square pixels, x to the east and y to the south; got steps of {steps} m")
    # Centres are written in 0.1 m; a micrometre of rounding in them must not move a corner off the lattice.
    left, top = round(float(x[0]) - pixel / 2, 6), round(float(y[0]) + pixel / 2, 6)
    size = round(pixel, 9)
    return GeoBox((len(y), len(x)), Affine(size, 0.0, left, 0.0, -size, top), product.rio.crs)


def window_touched(geobox: GeoBox, bounds: tuple[float, float, float, float]) -> Window:
    """The pixels that (left, bottom, right, top) touches; empty where it lies outside."""
    (left, bottom, right, top), pixel = bounds, geobox.resolution.x
    rows = math.floor((geobox.affine.f - top) / pixel), math.ceil((geobox.affine.f - bottom) / pixel)
    cols = math.floor((left - geobox.affine.c) / pixel), math.ceil((right - geobox.affine.c) / pixel)
    return Window.from_edges(rows[0], cols[0], rows[1], cols[1]).intersect(Window(0, 0, *geobox.shape))


def window_boxes(geobox: GeoBox, windows: list[Window]) -> NDArray[np.object_]:
    """Windows as polygons in the geobox's CRS."""
    w = np.array([(w.row, w.col, w.bottom, w.right) for w in windows], np.float64).reshape(-1, 4)
    pixel = geobox.resolution.x
    x, y = geobox.affine.c + w[:, 1::2] * pixel, geobox.affine.f - w[:, ::2] * pixel
    boxes: NDArray[np.object_] = shapely.box(x[:, 0], y[:, 1], x[:, 1], y[:, 0])
    return boxes


def in_pixels(geobox: GeoBox, geometry: BaseGeometry) -> BaseGeometry:
    """A geometry of the geobox's CRS with x counting its columns and y its rows."""
    a, _, left, _, e, top, *_ = geobox.affine
    offset, scale = np.array([left, top]), np.array([a, e])
    return shapely.transform(geometry, lambda xy: (xy - offset) / scale)


def true_area(geobox: GeoBox, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area on the ellipsoid of a unit of area on the map, at places of the geobox's CRS.

    It is the inverse of PROJ's areal scale.

    Raises:
        ProductError: the CRS is no projection of metres.
    """
    crs = pyproj.CRS.from_user_input(str(geobox.crs))
    if not crs.is_projected:
        raise ProductError(f"areas need a projected CRS; the product lies in {crs.name}")
    projection = pyproj.Proj(crs)
    longitude, latitude = projection(x, y, inverse=True)
    scale: Any = projection.get_factors(longitude, latitude).areal_scale
    inverse: NDArray[np.float64] = 1 / np.asarray(scale, np.float64)
    return inverse
