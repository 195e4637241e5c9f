"""The patches of a class map and their common borders, from runs of equal pixels in each row.

A patch is a set of pixels of one class that are connected over their sides (4-connected). Nodata is no class, but forms
patches here too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Patches:
    """The patches of an array and how they touch each other; a patch is its index."""

    shape: tuple[int, int]
    lengths: NDArray[np.int32]
    """(run,): pixels of each run, row by row from the north-west."""
    patch_of: NDArray[np.int32]
    """(run,): the patch of each run."""
    classes: NDArray[np.uint8]
    """(patch,): its class, 0 for nodata."""
    areas: Ints
    """(patch,): its pixels."""
    first: Ints
    """(patch,): its first run. Of two patches, the one whose first pixel comes first in rows has the lower one."""
    one: Ints
    """(border,): the lower of two patches that touch each other; each pair occurs once."""
    other: Ints
    """(border,): the higher one."""
    borders: Ints
    """(border,): sides of pixels along which they touch."""

    def paint(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """An array (y, x) with a value for each patch in its pixels."""
        return np.repeat(values[self.patch_of], self.lengths).reshape(self.shape)

    def at_edges(self, *, top: bool, left: bool, bottom: bool, right: bool) -> NDArray[np.bool_]:
        """(patch,): True where a patch has a pixel in the first or last row or column, for the chosen edges."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        starts, (height, width) = ends - self.lengths, self.shape
        touches = np.zeros(len(starts), np.bool_)
        if top:
            touches |= starts < width
        if bottom:
            touches |= ends > (height - 1) * width
        if left:
            touches |= starts % width == 0
        if right:
            touches |= ends % width == 0
        found = np.zeros(len(self.classes), np.bool_)
        found[self.patch_of[touches]] = True
        return found


def find_patches(classes: NDArray[np.uint8]) -> Patches:
    """The patches of a class map.

    Args:
        classes: uint8 (y, x), at least one pixel; 0 is nodata.
    """
    height, width = classes.shape
    begins = np.ones(classes.shape, np.bool_)
    np.not_equal(classes[:, 1:], classes[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=classes.size).astype(np.int32)
    run_classes = classes.ravel()[starts]
    above, below, touching = _contacts(begins)
    same = run_classes[above] == run_classes[below]
    patches, patch_of = _components(len(starts), above[same], below[same])
    first = np.full(patches, len(starts), np.int64)
    np.minimum.at(first, patch_of, np.arange(len(starts)))
    beside = np.flatnonzero(starts[1:] % width != 0)
    one = np.concatenate([patch_of[above[~same]], patch_of[beside]])
    other = np.concatenate([patch_of[below[~same]], patch_of[beside + 1]])
    lengths_of = np.concatenate([touching[~same], np.ones(len(beside), np.int64)])
    return Patches(
        (height, width),
        lengths,
        patch_of,
        run_classes[first],
        np.bincount(patch_of, weights=lengths, minlength=patches).astype(np.int64),
        first,
        *sum_borders(one, other, lengths_of),
    )


def _contacts(begins: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """Runs that lie above each other: (contact,) the upper one, the lower one, and the pixels over which they touch."""
    width = begins.shape[1]
    run_of = np.cumsum(begins, dtype=np.int32).reshape(begins.shape) - np.int32(1)
    changes = np.flatnonzero(begins[:-1] | begins[1:])
    above = run_of.ravel()[changes].astype(np.int64)
    below = run_of.ravel()[changes + width].astype(np.int64)
    return above, below, np.diff(changes, append=(begins.shape[0] - 1) * width)


def _components(count: int, one: Ints, other: Ints) -> tuple[int, NDArray[np.int32]]:
    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
    found, labels = connected_components(graph, directed=False)
    return int(found), labels


def sum_borders(one: Ints, other: Ints, lengths: Ints) -> tuple[Ints, Ints, Ints]:
    """Borders with each pair of patches once, the lower patch first, their lengths summed.

    Args:
        one, other: (border,): two different patches.
        lengths: (border,).
    """
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other).astype(np.int64)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    begins = np.ones(len(low), np.bool_)
    begins[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    at = np.flatnonzero(begins)
    total = np.add.reduceat(lengths[order], at) if len(at) else np.zeros(0, np.int64)
    return low[at], high[at], total.astype(np.int64)
