"""Decides the one owner of each pixel: by département polygon, then newest vintage, then name.

A domain can own pixels only in the tiles that it was delivered with. With a boundary it claims the pixels whose centre
its polygon covers, without one all pixels. Where several domains claim a pixel, claims with a polygon come before
claims without one, then the newest vintage, then the first name. Ground of a polygon outside its domain's tiles goes to
the next claim there, or to nobody.

Which domain's pixel is shown follows from the owner: see `products.national.gap_filling`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.enums import MergeAlg
from rasterio.features import rasterize
from rasterio.transform import Affine
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from pipeline.domain import Domain
from pipeline.errors import ProductError
from pipeline.grid import CRS, Window
from pipeline.untrusted.documents import read_json
from pipeline.untrusted.limits import POLYGON_VERTICES
from pipeline.untrusted.polygons import check_polygons
from pipeline.untrusted.vector_files import errors_named

NOBODY = 0
"""Owner of the pixels that no domain claims."""

_DENSIFY_M = 500.0
"""A straight edge in degrees is a curve in Lambert-93. Segments of 500 m deviate by less than 1 cm."""
_METRES_PER_DEGREE = 111_320.0
_STRIP_ROWS = 2048
"""Rows burnt at once."""
_CLIP_MARGIN = 2
"""Pixels kept around a window when a polygon is cut to it, so that the new edges lie outside the window."""


@dataclass(frozen=True)
class Claim:
    """The area that a domain may own in one of its tiles."""

    domain: Domain
    """`D064_2021`."""
    boundary: BaseGeometry | None
    """The département's polygon in the lattice's CRS, or None where none was given."""
    window: Window
    """A tile that the domain was delivered with, sealed or not, or a part of one."""

    def within(self, window: Window) -> "Claim | None":
        """The claim cut to a window; None where nothing of it lies there.

        The result depends only on what lies in the window and two pixels around it.
        """
        inside = self.window.intersect(window)
        if not inside.pixels:
            return None
        if self.boundary is None:
            return Claim(self.domain, None, inside)
        box = shapely.box(*window.grow(_CLIP_MARGIN).bounds)
        part = self.boundary.intersection(box)
        cut = Claim(self.domain, part.normalize(), inside)
        return None if cut.area.area == 0 else cut

    @property
    def area(self) -> BaseGeometry:
        """The claimed area: the polygon inside the tile. No edge of a tile passes through a pixel's centre."""
        tile: BaseGeometry = shapely.box(*self.window.bounds)
        if self.boundary is None:
            return tile
        # The intersection has lines where a polygon only touches a tile, and GDAL would burn them.
        return shapely.union_all(_polygons(tile.intersection(self.boundary)))

    @property
    def rank(self) -> tuple[bool, int, str]:
        """Sort key: claims of smaller rank come first."""
        return (self.boundary is None, -self.domain.year, self.domain)


def owners(window: Window, claims: Sequence[Claim]) -> NDArray[np.uint16]:
    """The owner of each pixel of a lattice window.

    A polygon owns a pixel whose centre it covers. GDAL's rasterizer decides for a centre exactly on an edge; it has one
    owner too.

    Args:
        window: on the lattice.
        claims: in any order; their order decides only the numbers in the result.

    Returns:
        uint16 (y, x): 0 for nobody, i + 1 for `claims[i]`.
    """
    owner: NDArray[np.uint16] = np.zeros(window.shape, np.uint16)
    # The first in rank is burnt last and so covers the others.
    ranked = sorted(enumerate(claims, start=1), key=lambda pair: pair[1].rank, reverse=True)
    _burn(owner, window, ranked, MergeAlg.replace)
    return owner


def times_claimed(window: Window, claims: Sequence[Claim]) -> NDArray[np.uint8]:
    """How many of at most 255 claims cover each pixel of a window: uint8 (y, x)."""
    times: NDArray[np.uint8] = np.zeros(window.shape, np.uint8)
    _burn(times, window, [(1, claim) for claim in claims], MergeAlg.add)
    return times


def _burn(into: NDArray[Any], window: Window, numbered: Sequence[tuple[int, Claim]], merge: MergeAlg) -> None:
    """Burns the claims' numbers, one after the other."""
    # GDAL works on a copy of what it burns into: strips keep that small.
    for strip in window.strips(_STRIP_ROWS):
        parts = [(claim.within(strip), number) for number, claim in numbered]
        shapes = [(part.area, number) for part, number in parts if part is not None]
        if shapes:
            place = Affine(*strip.transform)
            rasterize(shapes, out=into[strip.slices_in(window)], transform=place, merge_alg=merge)


def possible_owners(window: Window, claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """The claims that may own a pixel of the window, cut to it, in order of rank; no pixels are computed.

    A claim is left out where claims of smaller rank cover all of it. A claim of which only a sliver between pixel
    centres is left is returned and owns nothing.
    """
    taken: BaseGeometry = shapely.Polygon()
    found = []
    for claim in sorted(claims, key=lambda c: c.rank):
        part = claim.within(window)
        if part is None:
            continue
        if part.area.difference(taken).area > 0:
            found.append(part)
            taken = taken.union(part.area)
    return tuple(found)


def read_boundary(path: Path, *, crs: str = CRS) -> BaseGeometry:
    """The polygons of a GeoJSON file as one geometry on a lattice.

    Args:
        path: a geometry, Feature or FeatureCollection in EPSG:4326 (RFC 7946), or in the CRS of its older member
            `crs`. Polygons are joined; points and lines are ignored.
        crs: `EPSG:…` of the lattice.

    Raises:
        ProductError: the file cannot be read, has no polygon, or names an unknown CRS.
    """
    expected = "a boundary as GeoJSON polygons"
    with errors_named(path, ProductError, expected=expected):
        content = read_json(path)
        features = content["features"] if content["type"] == "FeatureCollection" else [content]
        geometries = [f["geometry"] if f["type"] == "Feature" else f for f in features]
        polygons = [p for g in geometries if g for p in _polygons(shape(g))]
        own = pyproj.CRS.from_user_input(content.get("crs", {}).get("properties", {}).get("name", "EPSG:4326"))
        if not polygons:
            raise ProductError(f"{path}: expected {expected}; it has no polygon")
        check_polygons(polygons, path, ProductError)
        return _moved(shapely.union_all([shapely.make_valid(p) for p in polygons]), own, crs, path)


def _moved(joined: BaseGeometry, own: pyproj.CRS, crs: str, path: Path) -> BaseGeometry:
    """A boundary on the lattice, with points along its edges, which are bent in another CRS."""
    densify = _DENSIFY_M / _METRES_PER_DEGREE if own.is_geographic else _DENSIFY_M
    elsewhere = ProductError(f"{path}: the boundary, in {own.to_string()}, lies outside the area of {crs}")
    if joined.length / densify > POLYGON_VERTICES.value:
        raise elsewhere
    transformer = pyproj.Transformer.from_crs(own, crs, always_xy=True)
    moved = shapely.transform(
        joined.segmentize(densify), lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))
    )
    if moved.is_empty or not np.isfinite(moved.bounds).all():
        raise elsewhere
    return shapely.make_valid(moved)


def _polygons(geometry: BaseGeometry) -> list[BaseGeometry]:
    return [p for p in shapely.get_parts(geometry) if p.geom_type == "Polygon"]
