"""Random fields that depend only on the place and the seed, so that any part of them can be computed alone.

Places are in metres along the lattice's axes: y increases southwards (row / 5), x eastwards (column / 5).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Metres = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Odd 64-bit constants of the SplitMix64 finaliser (Steele, Lea, Flood 2014) and the golden ratio.
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ROW = np.uint64(0xD6E8FEB86659FD93)


def uniform(i: Index, j: Index, *, seed: int) -> Float:
    """A random number in [0, 1) for each pair of integers: float32, of the shape to which `i` and `j` broadcast."""
    h = np.atleast_1d(i).astype(np.uint64) * _ROW ^ np.uint64((seed + 1) * _GOLDEN & 0xFFFFFFFFFFFFFFFF)
    h = (h ^ (h >> np.uint64(29))) * _MIX_1 + np.atleast_1d(j).astype(np.uint64)
    h = (h ^ (h >> np.uint64(30))) * _MIX_1
    h = (h ^ (h >> np.uint64(27))) * _MIX_2
    return ((h ^ (h >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def smooth(ys: Metres, xs: Metres, *, cell: float, seed: int) -> Float:
    """Value noise on the grid of `ys` (n,) and `xs` (m,), metres: float32 (n, m) in [-1, 1).

    It takes random numbers at the corners of cells of `cell` metres and interpolates them by the cubic 3t² - 2t³.
    """
    i, ty = _corners(ys, cell)
    j, tx = _corners(xs, cell)
    rows, cols = np.arange(i.min(), i.max() + 2), np.arange(j.min(), j.max() + 2)
    corners = 2 * uniform(rows[:, None], cols[None, :], seed=seed) - 1
    north, west = i - rows[0], j - cols[0]
    band = corners[north] * (1 - ty)[:, None] + corners[north + 1] * ty[:, None]
    field: Float = band[:, west] * (1 - tx) + band[:, west + 1] * tx
    return field


def _corners(positions: Metres, cell: float) -> tuple[Index, Float]:
    whole = np.floor(positions / cell)
    t = positions / cell - whole
    return whole.astype(np.int64), (t * t * (3 - 2 * t)).astype(np.float32)


def fractal(ys: Metres, xs: Metres, *, cell: float, octaves: int, seed: int) -> Float:
    """Sums `octaves` of `smooth`, each with half the cell and half the amplitude: float32 (n, m), about [-1, 1]."""
    field = smooth(ys, xs, cell=cell, seed=seed)
    for k in range(1, octaves):
        field += smooth(ys, xs, cell=cell / 2**k, seed=seed + 7919 * k) * np.float32(0.5**k)
    return field / np.float32(np.sqrt((1 - 0.25**octaves) / 0.75))


@dataclass(frozen=True, eq=False)
class VoronoiCells:
    """The Voronoi cell of each place, and its distance from the cell's edge; the points are a jittered grid."""

    i: Index
    """Row of the nearest point in the grid."""
    j: Index
    """Column of the nearest point in the grid."""
    edge: Float
    """Distance to the edge between the nearest and the second nearest point."""
    pair: Float
    """A random number in [0, 1) for the edge, the same on both of its sides."""
    normal: Float
    """Direction of the edge's normal in radians, atan2(dy, dx)."""

    def random(self, seed: int) -> Float:
        """A random number in [0, 1) for the cell of each place."""
        return uniform(self.i, self.j, seed=seed)


def jittered(low: Metres, high: Metres, *, jitter: float, seed: int) -> tuple[Index, Index, Metres]:
    """The points of a unit grid from `low` to `high` (y, x), each moved at random by up to ± jitter / 2.

    Returns:
        row and column (n,) of each point in the grid, row by row, and the points (n, 2) as y, x.
    """
    rows, cols = (np.arange(np.floor(low[k]), np.ceil(high[k])).astype(np.int64) for k in (0, 1))
    i, j = rows.repeat(cols.size), np.tile(cols, rows.size)
    offsets = np.stack([uniform(i, j, seed=seed), uniform(i, j, seed=seed + 1)], axis=-1) - 0.5
    return i, j, np.stack([i, j], axis=-1) + 0.5 + jitter * offsets.astype(np.float64)


def voronoi(v: Metres, u: Metres, *, jitter: float, seed: int) -> VoronoiCells:
    """The Voronoi cells of a jittered unit grid at the places (v, u), arrays of one shape in units of the grid."""
    from scipy.spatial import cKDTree

    low, high = (np.array([limit(v), limit(u)]) for limit in (np.min, np.max))
    i, j, points = jittered(low - 3, high + 3, jitter=jitter, seed=seed)
    distance, nearest = cKDTree(points).query(np.stack([v, u], axis=-1), k=2)
    first, second = nearest[..., 0], nearest[..., 1]
    apart = points[second] - points[first]
    edge = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * np.hypot(apart[..., 0], apart[..., 1]))
    # Sums and squared differences are the same from both sides of an edge.
    pair = uniform(
        (i[first] + i[second]) * 3 + (i[first] - i[second]) ** 2,
        (j[first] + j[second]) * 3 + (j[first] - j[second]) ** 2,
        seed=seed + 2,
    )
    normal = np.arctan2(apart[..., 0], apart[..., 1])
    return VoronoiCells(i[first], j[first], edge.astype(np.float32), pair, normal.astype(np.float32))
