"""Seams: class changes across the edges that mapping leaves behind, against changes across lines beside them.

A line lies between two neighbouring columns (or rows) of pixels. Across an edge and across lines parallel to it the
country changes as often, so a map without seams has a ratio of 1:

    R = (E / M) / (K / L)

with E changes among M pairs of pixels across edges, and K among L across the lines beside them. Pairs with no data on
either side are left out.

Changes along one line are correlated (a field's border, a row of houses), so not pairs but segments count as
independent observations: the unit is an edge's segment of a block's length together with the same segment of
the lines beside it. With xᵢ = (eᵢ, mᵢ, kᵢ, lᵢ) of segment i of n, linearised at the sums (the delta method for
ratios of totals of clusters: Cochran, Sampling Techniques, 3rd ed., §6.3 and §9A; Särndal, Swensson & Wretman, §5.5):

    var R ≈ n / (n − 1) · Σ (g · xᵢ)²,    g = ∂R/∂(E, M, K, L) = (L / (M K), −R / M, −R / K, R / L)

where Σ (g · xᵢ) = 0, so sums and sums of products are all that is kept of a nation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline import legend

_MULTIPLES = (1, 2, 3, 5, 7)
"""Distances of the lines beside an edge, in strides: several, so that nothing periodic in the country counts."""


@dataclass(frozen=True)
class SeamRatio:
    """How much more often classes change across edges than beside them; 1 is seamless."""

    ratio: float
    standard_error: float | None
    """None where there is one segment only."""

    def exceeds(self, limit: float) -> bool:
        """True where the ratio is above the limit by more than three standard errors: not by chance."""
        return self.ratio - 3 * (self.standard_error or 0.0) > limit

    def __str__(self) -> str:
        error = "?" if self.standard_error is None else f"{self.standard_error:.3f}"
        return f"{self.ratio:.3f} ± {error}"


@dataclass(frozen=True, eq=False)
class Crossings:
    """What was counted across edges of one kind, and beside them; adds up over tiles in any order."""

    segments: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    """(4,): changes and pairs across edges, changes and pairs across the lines beside them."""
    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros((4, 4)))
    """(4, 4): sums over segments of products of these four. Counts are exact in float64 up to 2⁵³."""

    @classmethod
    def of(cls, segments: NDArray[np.int64]) -> "Crossings":
        """From segments: int64 (segment, 4), columns as `sums`; those without a pair on one side are left out."""
        counted = segments[(segments[:, 1] > 0) & (segments[:, 3] > 0)].astype(np.float64)
        return cls(len(counted), counted.sum(axis=0), counted.T @ counted)

    def __add__(self, other: "Crossings") -> "Crossings":
        return Crossings(self.segments + other.segments, self.sums + other.sums, self.products + other.products)

    @property
    def pairs(self) -> int:
        """Pairs of pixels across edges."""
        return int(self.sums[1])

    @property
    def change_shares(self) -> tuple[float, float]:
        """Changes per pair across edges, and across the lines beside them; needs pairs of both."""
        changes, pairs, beside, pairs_beside = (float(v) for v in self.sums)
        return changes / pairs, beside / pairs_beside

    @property
    def seam_ratio(self) -> SeamRatio | None:
        """The ratio with its error; None where there is no edge, or nothing changes beside one."""
        changes, pairs, beside, pairs_beside = (float(v) for v in self.sums)
        if not self.segments or not beside:
            return None
        ratio = changes * pairs_beside / (pairs * beside)
        if self.segments < 2:
            return SeamRatio(ratio, None)
        gradient = np.array(
            [pairs_beside / (pairs * beside), -ratio / pairs, -ratio / beside, ratio / pairs_beside], np.float64
        )
        squares = float(gradient @ self.products @ gradient)
        # Rounding can leave a sum of squares a little below 0.
        return SeamRatio(ratio, math.sqrt(self.segments / (self.segments - 1) * max(0.0, squares)))


def changes_across(before: NDArray[np.uint8], after: NDArray[np.uint8], *, segment: int) -> NDArray[np.int64]:
    """Changes and pairs across lines, by segment.

    Args:
        before, after: uint8 (line, along): the pixels on either side of each line; 0 is no data.
        segment: pixels of a segment, counted from the lines' beginning; the last may be shorter.

    Returns:
        int64 (line, segment, 2): changes, pairs.
    """
    known = (before != legend.NODATA) & (after != legend.NODATA)
    changed = known & (before != after)
    starts = np.arange(0, before.shape[1], segment)
    counted: NDArray[np.int64] = np.stack(
        [np.add.reduceat(what.astype(np.int64), starts, axis=1) for what in (changed, known)], axis=-1
    )
    return counted


@dataclass(frozen=True)
class Cuts:
    """Edges of blocks and windows in a tile, in pixels."""

    block: int
    core: int
    """Divides the block."""
    stride: int
    """Of the network."""

    @property
    def beside(self) -> tuple[int, ...]:
        """Distances from an edge to the lines beside it, on either side; all nearer than half a core.

        They are multiples of the stride, because networks, and labels of 2 × 2 px, change class more often at some
        phases of the stride than at others: edge and lines must have the same phase. Where the core is too small for
        that, they are multiples of half the stride, and so on.
        """
        step = self.stride
        while step > 1 and 2 * step >= self.core:
            step //= 2
        return tuple(d for d in (step * k for k in _MULTIPLES) if 2 * d < self.core)

    @property
    def reach(self) -> int:
        """Pixels on either side of an edge that are read."""
        return max(self.beside, default=0) + 1

    def crossings(self, pixels: NDArray[np.uint8]) -> Crossings:
        """Changes across one edge and across the lines beside it, in segments of a block's length.

        Args:
            pixels: uint8 (across, along), 0 is no data; the edge lies in the middle of the first axis, with at least
                `reach` pixels on either side.
        """
        beside, edge = self.beside, len(pixels) // 2
        if not beside:
            return Crossings()
        lines = np.array([edge, *(edge + d for d in beside), *(edge - d for d in beside)])
        counted = changes_across(pixels[lines - 1], pixels[lines], segment=self.block)
        return Crossings.of(np.concatenate([counted[0], counted[1:].sum(axis=0)], axis=1))


def border_crossings(
    classes: NDArray[np.uint8], owners: NDArray[np.uint16], *, beside: Sequence[int], inner: slice
) -> Crossings:
    """Changes across the crooked line along which owners change, of columns, as one segment.

    Args:
        classes: uint8 (y, x), 0 is no data.
        owners: uint16 (y, x), 0 is nobody.
        beside: distances of the lines beside it; a pair there counts where both pixels have one owner.
        inner: positions whose pairs count as border; the rest of the columns only serve beside it.
    """
    known = (classes[:, 1:] != legend.NODATA) & (classes[:, :-1] != legend.NODATA)
    changed = classes[:, 1:] != classes[:, :-1]
    same = owners[:, 1:] == owners[:, :-1]
    border = np.zeros_like(same)
    own = slice(inner.start - 1, inner.stop - 1)
    border[:, own] = ~same[:, own] & (owners[:, 1:] != 0)[:, own] & (owners[:, :-1] != 0)[:, own]
    counts = [int((border & known & changed).sum()), int((border & known).sum()), 0, 0]
    for d in beside:
        for shifted in (np.roll(border, d, axis=1), np.roll(border, -d, axis=1)):
            pairs = shifted & known & same
            counts[2] += int((pairs & changed).sum())
            counts[3] += int(pairs.sum())
    return Crossings.of(np.array([counts], np.int64))
