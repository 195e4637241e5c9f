"""Where an xarray product's pixels lie: any regular north-up grid in metres, whole or cut."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely
import xarray as xr
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from pipeline.errors import ProductError
from pipeline.grid import Affine6, Window


@dataclass(frozen=True)
class Placed:
    """The grid of a Dataset's (y, x); windows in it count from its own first corner."""

    left: float
    top: float
    pixel: float
    """Metres a side."""
    shape: tuple[int, int]
    crs: str
    """As WKT."""

    @classmethod
    def of(cls, product: xr.Dataset) -> "Placed":
        """Read off the coordinates, which stay true when a Dataset is cut.

        Raises:
            ProductError: no CRS, a single pixel, or no square pixels with rows from the north.
        """
        x, y = (product[axis].to_numpy() for axis in "xy")
        steps = [(v[-1] - v[0]) / (len(v) - 1) for v in (x, -y) if len(v) > 1]
        if not steps or product.rio.crs is None:
            raise ProductError(f"expected more than one pixel and a CRS; got {dict(product.sizes)}")
        pixel = float(steps[0])
        if pixel <= 0 or not math.isclose(pixel, steps[-1], rel_tol=1e-6):
            raise ProductError(f"expected square pixels, x to the east and y to the south; got steps of {steps} m")
        corner = float(x[0]) - pixel / 2, float(y[0]) + pixel / 2
        # Centres are written in 0.1 m; a micrometre of rounding in them must not move a corner off the lattice.
        left, top = (round(c, 6) for c in corner)
        return cls(left, top, round(pixel, 9), (len(y), len(x)), product.rio.crs.to_wkt())

    @property
    def window(self) -> Window:
        """All of it."""
        return Window(0, 0, *self.shape)

    def transform(self, window: Window) -> Affine6:
        """The coefficients of a window's north-west corner."""
        return (
            self.pixel,
            0.0,
            self.left + window.col * self.pixel,
            0.0,
            -self.pixel,
            self.top - window.row * self.pixel,
        )

    def within(self, bounds: tuple[float, float, float, float]) -> Window:
        """The pixels that (left, bottom, right, top) touches; empty where it lies outside."""
        left, bottom, right, top = bounds
        rows = math.floor((self.top - top) / self.pixel), math.ceil((self.top - bottom) / self.pixel)
        cols = math.floor((left - self.left) / self.pixel), math.ceil((right - self.left) / self.pixel)
        return Window.from_edges(rows[0], cols[0], rows[1], cols[1]).intersect(self.window)

    def boxes(self, windows: list[Window]) -> NDArray[np.object_]:
        """Windows as polygons in the grid's CRS."""
        w = np.array([(w.row, w.col, w.bottom, w.right) for w in windows], np.float64).reshape(-1, 4)
        x, y = self.left + w[:, 1::2] * self.pixel, self.top - w[:, ::2] * self.pixel
        boxes: NDArray[np.object_] = shapely.box(x[:, 0], y[:, 1], x[:, 1], y[:, 0])
        return boxes

    def in_pixels(self, geometry: BaseGeometry, window: Window) -> BaseGeometry:
        """A geometry with x counting columns and y rows from a window's corner."""
        _, _, left, _, _, top = self.transform(window)
        offset, scale = np.array([left, top]), np.array([self.pixel, -self.pixel])
        return shapely.transform(geometry, lambda xy: (xy - offset) / scale)

    def true_area(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Area on the ellipsoid of a unit of area on the map, at places of the grid's CRS.

        It is the inverse of PROJ's areal scale.

        Raises:
            ProductError: the CRS is no projection of metres.
        """
        crs = pyproj.CRS.from_wkt(self.crs)
        if not crs.is_projected:
            raise ProductError(f"areas need a projected CRS; the product lies in {crs.name}")
        projection = pyproj.Proj(crs)
        longitude, latitude = projection(x, y, inverse=True)
        scale: Any = projection.get_factors(longitude, latitude).areal_scale
        inverse: NDArray[np.float64] = 1 / np.asarray(scale, np.float64)
        return inverse
