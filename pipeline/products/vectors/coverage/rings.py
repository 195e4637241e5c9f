"""Assembles the polygons of regions from arcs, by the numbers of regions and vertices alone."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.grid import PIXELS_PER_M
from pipeline.products.vectors.coverage.arcs import Arcs
from pipeline.products.vectors.coverage.chains import expand, offsets, order_chains
from pipeline.products.vectors.coverage.regions import Ints, pixel_key


@dataclass(frozen=True, eq=False)
class Rings:
    """Polygons as arrays: each has a shell and then its holes."""

    row: Ints
    """Of the vertices of all rings; a ring ends with its first vertex."""
    col: Ints
    ring_offset: Ints
    """Where each ring begins among the vertices, and the end of the last."""
    polygon_offset: Ints
    """Where each polygon begins among the rings, and the end of the last."""

    def __len__(self) -> int:
        return len(self.polygon_offset) - 1

    def polygons(self) -> NDArray[np.object_]:
        """The polygons in metres of the lattice's CRS."""
        places = np.column_stack([self.col, -self.row]) / PIXELS_PER_M
        starts = (self.ring_offset, self.polygon_offset)
        found: NDArray[np.object_] = shapely.from_ragged_array(shapely.GeometryType.POLYGON, places, starts)
        return found


@dataclass(frozen=True, eq=False)
class _Sides:
    """Arcs with a region on their left: each arc once in its own direction and once backwards."""

    region: Ints
    first: Ints
    """Index of the first vertex among those of the arcs."""
    last: Ints
    leaves: Ints
    arrives: Ints
    at_node: NDArray[np.bool_]
    """Whether the first vertex is a node."""

    @classmethod
    def of(cls, arcs: Arcs) -> "_Sides":
        """Both sides of the arcs."""
        begin, end = arcs.offset[:-1], arcs.offset[1:] - 1
        return cls(
            np.concatenate([arcs.left, arcs.right]),
            np.concatenate([begin, end]),
            np.concatenate([end, begin]),
            np.concatenate([arcs.leaves, (arcs.arrives + 2) % 4]),
            np.concatenate([arcs.arrives, (arcs.leaves + 2) % 4]),
            np.concatenate([arcs.starts_at_node, arcs.ends_at_node]),
        )

    def take(self, chosen: Ints) -> "_Sides":
        """Some of the sides, in the given order."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name)[chosen] for f in fields(self)}
        return _Sides(**parts)


def assemble(arcs: Arcs, wanted: NDArray[np.bool_]) -> tuple[Ints, Rings]:
    """The polygons of some regions.

    Where a region meets itself at a corner of pixels, its ring turns right, so it splits there into rings that touch.
    Then each region has exactly one shell, and all its other rings are holes.

    Args:
        arcs: among them all arcs of the wanted regions; numbers of regions are final.
        wanted: of each region, whether its polygon is wanted. Each has an arc.

    Returns:
        The wanted regions, and their polygons.
    """
    sides = _Sides.of(arcs)
    sides = sides.take(np.flatnonzero((sides.region >= 0) & wanted[sides.region]))
    place = pixel_key(arcs.row, arcs.col)
    order, begins = order_chains(_following(sides, place), np.arange(len(sides.region)))
    sides = sides.take(order)
    steps = np.abs(sides.last - sides.first)
    vertices = _walk(sides, steps)
    offset = offsets(steps)
    joint = np.zeros(len(vertices), bool)
    joint[offset[:-1]] = ~sides.at_node
    rings = _Vertices(arcs.row[vertices], arcs.col[vertices], offset[begins]).without_straight(joint).from_the_first()
    return rings.grouped(sides.region[begins[:-1]])


def _following(sides: _Sides, place: Ints) -> Ints:
    """The side by which each ring goes on."""
    places, of_vertex = np.unique(np.concatenate([place[sides.first], place[sides.last]]), return_inverse=True)
    number = len(sides.region)
    tail = sides.region * len(places) + of_vertex[:number]
    head = sides.region * len(places) + of_vertex[number:]
    order = np.lexsort((sides.leaves, tail))
    low = np.searchsorted(tail[order], head, "left")
    several = np.searchsorted(tail[order], head, "right") - low > 1
    turns_right = sides.leaves[order][low] == (sides.arrives - 1) % 4
    return np.asarray(order[low + (several & ~turns_right)], np.int64)


def _walk(sides: _Sides, steps: Ints) -> Ints:
    """The vertices of sides in their directions, without the last of each."""
    within = expand(np.zeros_like(steps), steps)
    backwards = np.repeat(sides.last < sides.first, steps)
    return np.repeat(sides.first, steps) + np.where(backwards, -within, within)


@dataclass(frozen=True, eq=False)
class _Vertices:
    """Rings whose first vertex is not repeated."""

    row: Ints
    col: Ints
    offset: Ints

    def _lengths(self) -> Ints:
        return np.diff(self.offset)

    def _neighbours(self) -> tuple[Ints, Ints]:
        """The index of the vertex before each, and after."""
        before, after = np.arange(len(self.row)) - 1, np.arange(len(self.row)) + 1
        before[self.offset[:-1]], after[self.offset[1:] - 1] = self.offset[1:] - 1, self.offset[:-1]
        return before, after

    def without_straight(self, joint: NDArray[np.bool_]) -> "_Vertices":
        """Without the joints between two arcs of the same regions that lie on a straight line."""
        before, after = self._neighbours()
        y, x = self.row, self.col
        bend = (x - x[before]) * (y[after] - y[before]) - (x[after] - x[before]) * (y - y[before])
        kept = ~joint | (bend != 0)
        ends = np.concatenate([[0], np.cumsum(kept)])
        return _Vertices(y[kept], x[kept], ends[self.offset])

    def from_the_first(self) -> "_Vertices":
        """Rings that begin with their northernmost vertex, the westernmost of several."""
        lengths = self._lengths()
        ring = np.repeat(np.arange(len(lengths)), lengths)
        first = np.lexsort((self.col, self.row, ring))[self.offset[:-1]]
        turned = expand(first - self.offset[:-1], lengths) % np.repeat(lengths, lengths)
        vertices = np.repeat(self.offset[:-1], lengths) + turned
        return _Vertices(self.row[vertices], self.col[vertices], self.offset)

    def grouped(self, region: Ints) -> tuple[Ints, Rings]:
        """The rings as polygons: those of one region after another, shells before holes, holes from the north-west."""
        begin = self.offset[:-1]
        order = np.lexsort((self.col[begin], self.row[begin], self._twice_the_area() < 0, region))
        lengths = self._lengths()[order] + 1
        closed = expand(np.zeros_like(lengths), lengths) % np.repeat(lengths - 1, lengths)
        vertices = np.repeat(begin[order], lengths) + closed
        regions, polygons = np.unique(region[order], return_index=True)
        ring_offset = offsets(lengths)
        return regions, Rings(self.row[vertices], self.col[vertices], ring_offset, np.append(polygons, len(order)))

    def _twice_the_area(self) -> Ints:
        """Positive where the ring runs counterclockwise on the map, whose rows count southwards."""
        _, after = self._neighbours()
        return np.add.reduceat(self.row * self.col[after] - self.col * self.row[after], self.offset[:-1])
