"""Simplifies the arcs of one cell so that none can touch or cross another.

Vertices are removed one by one, those of the smallest triangle with their two neighbours first (Visvalingam and Whyatt,
1993, "Line generalisation by repeated elimination of points"), as long as

- each vertex of the arc as it was traced stays within the tolerance of the segment that replaces it: the bandwidth
  criterion of de Berg, van Kreveld and Schirra (1998, "Topologically correct subdivision simplification using the
  bandwidth criterion");
- the triangle, border included, contains no other vertex of any arc;
- the new segment is not a whole arc that another arc already is.

No arc crosses such a triangle without a vertex in it, since it would cross one of the two old segments. So the new
segment touches nothing, and arcs meet in their ends alone, as before. For the same reason triangles of vertices that
are not neighbours do not overlap, and such vertices are removed in one step. All tests are exact: vertices are whole
pixels. Cells do not depend on each other, since the triangles of a cell lie inside it, and since no arc is replaced by
a piece of the southern or eastern side, whose edges the next cell owns.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.products.vectors.coverage.arcs import Arcs
from pipeline.products.vectors.coverage.chains import expand, offsets
from pipeline.products.vectors.coverage.regions import NO_REGION, Ints

_LAST = np.iinfo(np.int64).max
Flags = NDArray[np.bool_]


def simplify(arcs: Arcs, tolerance: float, *, side: int) -> Arcs:
    """Leaves out vertices of the arcs of a cell.

    Args:
        arcs: as `trace_arcs` returns them. Arcs with no class on one side stay as they are, so that the mapped area
            does not change.
        tolerance: largest distance in pixels between an arc and its simplified form.
        side: of the cell in pixels.

    Returns:
        The arcs with the same ends.
    """
    if tolerance <= 0 or not len(arcs):
        return arcs
    removal = _Removal(arcs, tolerance, side)
    while removal.step():
        pass
    kept = np.flatnonzero(removal.present)
    lengths = np.add.reduceat(removal.present.astype(np.int64), arcs.offset[:-1])
    return replace(arcs, row=arcs.row[kept], col=arcs.col[kept], offset=offsets(lengths))


@dataclass(frozen=True, eq=False)
class _Triangles:
    """Vertices with their neighbours, as indices of vertices, and their places."""

    before: Ints
    middle: Ints
    after: Ints
    x: Ints
    """(3, triangle): of the three."""
    y: Ints

    def take(self, chosen: Flags) -> "_Triangles":
        """Some of the triangles."""
        return _Triangles(
            self.before[chosen], self.middle[chosen], self.after[chosen], self.x[:, chosen], self.y[:, chosen]
        )

    def twice_the_area(self) -> Ints:
        """Twice the area of each."""
        (ax, bx, cx), (ay, by, cy) = self.x, self.y
        return np.asarray(np.abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)), np.int64)


class _Removal:
    """The vertices of a cell while some of them are removed."""

    def __init__(self, arcs: Arcs, tolerance: float, side: int) -> None:
        self.x, self.y, self.side, self.tolerance = arcs.col, arcs.row, side, tolerance
        number = len(self.x)
        self.present = np.ones(number, bool)
        self.before, self.after = np.arange(number) - 1, np.arange(number) + 1
        self.is_end = np.zeros(number, bool)
        self.is_end[arcs.offset[:-1]] = self.is_end[arcs.offset[1:] - 1] = True
        shared = (arcs.left != NO_REGION) & (arcs.right != NO_REGION)
        self.movable = np.repeat(shared, np.diff(arcs.offset)) & ~self.is_end
        self.rank = np.full(number, _LAST)
        """Vertices of the lowest rank are tried first; `_LAST` for those that are not to be tried."""
        self.crowded = np.zeros(number, bool)
        """Vertices whose triangle contained another one, which may be gone by now."""
        self.progress = False
        """Whether any was removed since the crowded ones were tried."""
        straight = np.flatnonzero(np.diff(arcs.offset) == 2)
        self.straight = self._between(arcs.offset[straight], arcs.offset[straight] + 1)
        """Arcs that are a single segment, by their ends."""
        self._try_again(np.flatnonzero(self.movable))

    def step(self) -> bool:
        """Tries all vertices of a lower rank than both their neighbours; False where nothing is left to try."""
        middle = np.flatnonzero(self.rank != _LAST)
        rank = self.rank[middle]
        lowest = middle[(rank < self.rank[self.before[middle]]) & (rank < self.rank[self.after[middle]])]
        triangles = self._triangles(lowest)
        triangles = triangles.take(self._in_band(triangles))
        triangles = triangles.take(self._is_new(triangles))
        empty = self._is_empty(triangles)
        self.crowded[triangles.middle[~empty]] = True
        self.rank[lowest] = _LAST
        self._remove(triangles.take(empty))
        if self.progress and not (self.rank != _LAST).any():
            self.progress = False
            self._try_again(np.flatnonzero(self.crowded & self.present))
        return bool((self.rank != _LAST).any())

    def _triangles(self, middle: Ints) -> _Triangles:
        corners = np.stack([self.before[middle], middle, self.after[middle]])
        return _Triangles(corners[0], corners[1], corners[2], self.x[corners], self.y[corners])

    def _try_again(self, vertices: Ints) -> None:
        self.crowded[vertices] = False
        place = self.y[vertices] * (self.side + 1) + self.x[vertices]
        self.rank[vertices] = (self._triangles(vertices).twice_the_area() << 32) | _scramble(place)

    def _remove(self, gone: _Triangles) -> None:
        self.present[gone.middle] = False
        self.after[gone.before], self.before[gone.after] = gone.after, gone.before
        whole = self.is_end[gone.before] & self.is_end[gone.after]
        self.straight = np.concatenate([self.straight, self._between(gone.before[whole], gone.after[whole])])
        near = np.unique(np.concatenate([gone.before, gone.after]))
        self._try_again(near[self.movable[near]])
        self.progress |= len(gone.middle) > 0

    def _in_band(self, triangles: _Triangles) -> Flags:
        """Whether the traced vertices that a segment would replace all lie within the tolerance of it."""
        lengths = triangles.after - triangles.before - 1
        traced, of = expand(triangles.before + 1, lengths), np.repeat(np.arange(len(lengths)), lengths)
        (ax, _, bx), (ay, _, by) = triangles.x, triangles.y
        ux, uy = (bx - ax)[of], (by - ay)[of]
        px, py = self.x[traced] - ax[of], self.y[traced] - ay[of]
        squared = ux * ux + uy * uy
        along = np.clip(px * ux + py * uy, 0, squared)
        beside = (ux * py - uy * px) ** 2
        # At the ends of the segment the nearest point is the end.
        outside = (px * ux + py * uy != along) | (squared == 0)
        qx, qy = np.where(along > 0, px - ux, px), np.where(along > 0, py - uy, py)
        far = np.where(outside, qx * qx + qy * qy > self.tolerance**2, beside > self.tolerance**2 * squared)
        return np.asarray(np.bincount(of[far], minlength=len(lengths)) == 0)

    def _is_new(self, triangles: _Triangles) -> Flags:
        """Whether segments differ from all others, and from the southern and eastern side.

        A segment between two vertices can only exist already if it is a whole arc, or closes an arc of two segments.
        """
        before, after = triangles.before, triangles.after
        second = np.where(self.is_end[after], after, self.after[after])
        former = np.where(self.is_end[before], before, self.before[before])
        new = ~(self._same_place(before, second) | self._same_place(after, former))
        (ax, _, bx), (ay, _, by) = triangles.x, triangles.y
        outer = ((ax == self.side) & (bx == self.side)) | ((ay == self.side) & (by == self.side))
        between = self._between(before, after)
        order = np.lexsort((self.rank[triangles.middle], between))
        twice = np.zeros(len(between), bool)
        twice[order[1:]] = between[order[1:]] == between[order[:-1]]
        whole = self.is_end[before] & self.is_end[after]
        new &= ~(outer | twice | (whole & np.isin(between, self.straight)))
        return new

    def _same_place(self, one: Ints, other: Ints) -> Flags:
        return np.asarray((self.x[one] == self.x[other]) & (self.y[one] == self.y[other]))

    def _between(self, one: Ints, other: Ints) -> Ints:
        """A number for each pair of places, in any order."""
        width = self.side + 1
        places = np.sort(np.stack([self.y[v] * width + self.x[v] for v in (one, other)]), axis=0)
        return np.asarray(places[0] * width**2 + places[1])

    def _is_empty(self, triangles: _Triangles) -> Flags:
        """Whether triangles contain no vertex but their own three."""
        empty = np.ones(len(triangles.middle), bool)
        # Of a triangle of half a pixel, only the three corners are whole (Pick's theorem).
        large = triangles.twice_the_area() > 1
        if large.any():
            taken = np.zeros((self.side + 2, self.side + 1), np.int32)
            taken[self.y[self.present] + 1, self.x[self.present]] = 1
            empty[large] = _count_inside(triangles.take(large), np.cumsum(taken, axis=0, dtype=np.int32)) == 3
        return empty


def _count_inside(triangles: _Triangles, above: NDArray[np.int32]) -> Ints:
    """Counts the vertices in triangles, borders included.

    Args:
        triangles: of vertices with three different places.
        above: (y, x): how many vertices a column has above row y.
    """
    order = np.argsort(triangles.x, axis=0, kind="stable")
    (ax, bx, cx), (ay, by, cy) = (np.take_along_axis(v, order, axis=0) for v in (triangles.x, triangles.y))
    lengths = cx - ax + 1
    of = np.repeat(np.arange(len(lengths)), lengths)
    column = expand(ax, lengths)
    ax, bx, cx, ay, by, cy = (v[of] for v in (ax, bx, cx, ay, by, cy))
    long = _crossing(column, ax, ay, cx, cy)
    short = np.where(column < bx, _crossing(column, ax, ay, bx, by), _crossing(column, bx, by, cx, cy))
    top, bottom = np.minimum(long[1], short[1]), np.maximum(long[0], short[0])
    return np.bincount(of, above[bottom + 1, column] - above[top, column], minlength=len(lengths)).astype(np.int64)


def _crossing(column: Ints, ax: Ints, ay: Ints, bx: Ints, by: Ints) -> tuple[Ints, Ints]:
    """Where lines from a to b cross a column, rounded down and up; of an upright line, its first end."""
    width = np.maximum(bx - ax, 1)
    rise = np.where(bx > ax, (by - ay) * (column - ax), 0)
    return ay + rise // width, ay - (-rise // width)


def _scramble(places: Ints) -> Ints:
    """Numbers below 2³² that differ for different places, in no order, so that ties end evenly along a staircase."""
    return np.asarray(places * 2_654_435_761 & 0xFFFFFFFF, np.int64)
