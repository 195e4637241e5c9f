"""Regions of a class raster: pixels of one class that are connected by their edges (4-connectivity)."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NO_REGION = -1
"""Label of pixels without a class."""

Ints = NDArray[np.int64]
"""Whole numbers: labels, indices, or pixels of the lattice."""


def label_regions(classes: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """Numbers the regions of a raster. Pixels that only touch at a corner are not connected.

    Args:
        classes: (y, x); 0 for no class.

    Returns:
        Labels (y, x), `NO_REGION` where there is no class; and the class of each region.
    """
    begins = np.ones(classes.shape, bool)
    begins[:, 1:] = classes[:, 1:] != classes[:, :-1]
    run = np.cumsum(begins).reshape(classes.shape) - 1
    same = classes[1:] == classes[:-1]
    # Of a stretch where two runs lie one above the other, one pixel is enough.
    first = same & (begins[1:] | begins[:-1])
    of_run = join(int(run[-1, -1]) + 1, run[:-1][first], run[1:][first])
    class_of_run = classes[begins].astype(np.int64)
    kept, of_kept = np.unique(of_run[class_of_run != 0], return_inverse=True)
    label = np.full(len(class_of_run), NO_REGION, np.int64)
    label[class_of_run != 0] = of_kept
    class_of = np.zeros(len(kept), np.int64)
    class_of[of_kept] = class_of_run[class_of_run != 0]
    return label[run], class_of


def join(number: int, first: Ints, second: Ints) -> Ints:
    """Numbers the groups of items that are connected, directly or through others.

    Args:
        number: of items.
        first: one item of each pair that is connected.
        second: the other one.

    Returns:
        The group of each item: 0, 1, …
    """
    pairs = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(number, number))
    return np.asarray(connected_components(pairs, directed=False)[1], np.int64)


def pixel_key(row: Ints, col: Ints) -> Ints:
    """A number for each place of the lattice; they rise row by row."""
    return row * (1 << 32) + col


def pixel_of(key: Ints) -> tuple[Ints, Ints]:
    """The row and column of a `pixel_key`."""
    col = ((key + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
    return (key - col) >> 32, col
