"""Generalises a part of a map alone: with as much of the map around it as its result depends on."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ProductError
from pipeline.grid import PIXELS_PER_M, Window, union
from pipeline.products.national.generalised.merging import OpenEdges, generalise

_SIDES = 9
"""The first margin, in halves of the side of a square of the largest minimum: 503 px for 500 m². The real map that the
tests use needs 256 to 512 px."""
_DOUBLINGS = 3
"""The margin is doubled so often at most: this bounds memory."""

Read = Callable[[Window], NDArray[np.uint8]]
"""Reads the classes of a window, which lies inside the map: uint8 (y, x)."""


@dataclass(frozen=True, eq=False)
class SettledBlock:
    """A part of the generalised map."""

    classes: NDArray[np.uint8]
    """uint8 (y, x)."""
    before: NDArray[np.uint8]
    """The same pixels of the map itself."""
    read: Window
    """What the result may depend on."""


def settle(read: Read, block: Window, *, extent: Window, units: NDArray[np.int64]) -> SettledBlock:
    """Generalises a block: reads a margin around it, and a wider one around what the margin leaves unsettled.

    Args:
        read: of the map.
        block: inside the extent.
        extent: all of the map.
        units: int64 (class,): smallest pixels of a patch, 0..19.

    Raises:
        ProductError: the widest margin does not settle a pixel.
    """
    margin = _SIDES * (isqrt(int(units.max())) + 1) // 2
    classes, before = np.zeros(block.shape, np.uint8), np.zeros(block.shape, np.uint8)
    left, seen = block, []
    for _ in range(_DOUBLINGS + 1):
        window = left.grow(margin).intersect(extent)
        pixels = read(window)
        merged = generalise(pixels, units, _open(window, extent))
        inside, own = left.slices_in(window), left.slices_in(block)
        classes[own], before[own] = merged.classes[inside], pixels[inside]
        seen.append(window)
        unsettled = ~merged.settled[inside]
        if not unsettled.any():
            return SettledBlock(classes, before, union(seen))
        left, margin = _around(unsettled, left), 2 * margin
    raise ProductError(
        f"the patches at {left.bounds} (left, bottom, right, top in metres) depend on ground that is more than "
        f"{margin // 2 / PIXELS_PER_M:.0f} m away; expected less; choose smaller units in `generalise`"
    )


def _open(window: Window, extent: Window) -> OpenEdges:
    return OpenEdges(
        top=window.row > extent.row,
        left=window.col > extent.col,
        bottom=window.bottom < extent.bottom,
        right=window.right < extent.right,
    )


def _around(wanted: NDArray[np.bool_], window: Window) -> Window:
    """The smallest part of a window that has all wanted pixels."""
    rows, cols = np.flatnonzero(wanted.any(axis=1)), np.flatnonzero(wanted.any(axis=0))
    top, left = window.row + int(rows[0]), window.col + int(cols[0])
    return Window.from_edges(top, left, window.row + int(rows[-1]) + 1, window.col + int(cols[-1]) + 1)
