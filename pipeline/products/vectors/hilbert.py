"""Places on Hilbert's curve: neighbours on it are neighbours on the ground."""

import numpy as np

from pipeline.products.vectors.coverage.regions import Ints

_BITS = 27
"""The lattice has rows and columns from -2²⁶ to 2²⁶."""
PART_BITS = 16
"""A file of a partitioned dataset has the polygons that begin in a square of 2¹⁶ pixels, 13.1 km."""
SORT_BITS = 11
"""Polygons that begin in a square of 2¹¹ pixels, 0.4 km, are sorted together in memory."""


def hilbert(row: Ints, col: Ints) -> Ints:
    """Distances along the curve through all pixels of the lattice (Skilling's transform in two dimensions).

    Args:
        row: of pixels of the lattice.
        col: of the same pixels.
    """
    half = 1 << (_BITS - 1)
    x, y = col + half, row + half
    distance = np.zeros(len(row), np.int64)
    for bit in reversed(range(_BITS)):
        right, down = x >> bit & 1, y >> bit & 1
        distance += ((3 * right) ^ down) << (2 * bit)
        # The curve through the next smaller squares is turned.
        flip = (down == 0) & (right == 1)
        mask = (1 << bit) - 1
        x, y = np.where(flip, mask - (x & mask), x & mask), np.where(flip, mask - (y & mask), y & mask)
        x, y = np.where(down == 0, y, x), np.where(down == 0, x, y)
    return distance


def square_of(distance: Ints, *, bits: int) -> Ints:
    """The square of 2^bits pixels that a place lies in, by the square's own distance along the curve."""
    return distance >> (2 * bits)
