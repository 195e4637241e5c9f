"""Polygons by which change is counted: départements from the campaign, communes from a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from pipeline.grid import Window
from pipeline.products.analysis.areas import read_zones


@dataclass(frozen=True, eq=False)
class Zoning:
    """Polygons of one kind, which should not overlap. A pixel belongs to the one that has its centre."""

    kind: str
    """`département` or `commune`."""
    names: tuple[str, ...]
    polygons: tuple[BaseGeometry, ...]
    """In the product's CRS."""

    def meeting(self, window: Window) -> tuple[tuple[int, bytes], ...]:
        """(number from 1, WKB) of the polygons that meet a window; cut to it, because communes have many vertices."""
        box = shapely.box(*window.grow(1).bounds)
        met = sorted(self._tree.query(box, predicate="intersects").tolist())
        return tuple((at + 1, shapely.to_wkb(shapely.intersection(self.polygons[at], box))) for at in met)

    def holding(self, polygons: NDArray[np.object_]) -> NDArray[np.int64]:
        """The number, from 1, of the zone that has most of each polygon; of equals the first; 0 for none."""
        index, zone = self._tree.query(polygons)
        zones, found = np.array(self.polygons, object)[zone], polygons[index]
        shapely.prepare(zones)
        part = np.where(shapely.contains_properly(zones, found), np.inf, 0.0)
        across = np.flatnonzero(part == 0)
        part[across] = shapely.area(shapely.intersection(zones[across], found[across]))
        # The last that is written for a polygon is the one with the largest part.
        order = np.lexsort((-zone, part))
        numbers = np.zeros(len(polygons), np.int64)
        numbers[index[order]] = np.where(part > 0, zone + 1, 0)[order]
        return numbers

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.polygons)


def read_communes(path: Path, by: str, crs: str) -> Zoning:
    """The communes of a file.

    Args:
        path: polygons in any format that `area_by_class` reads.
        by: attribute with their number or name.
        crs: of the product.

    Raises:
        ProductError: the file cannot be read, or lacks the attribute.
    """
    table = read_zones(path, by, crs)
    return Zoning("commune", tuple(map(str, table.index)), tuple(table.geometry))


def zoning(kind: str, named: Sequence[tuple[str, BaseGeometry]]) -> Zoning:
    """Zones of a kind; of several polygons with one name, the first."""
    first: dict[str, BaseGeometry] = {}
    for name, polygon in named:
        first.setdefault(name, polygon)
    return Zoning(kind, tuple(first), tuple(first.values()))
