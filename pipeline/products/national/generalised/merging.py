"""Gives patches below a minimum mapping unit to their neighbours: one answer, whatever part of a map is looked at.

The rule: while a patch is smaller than the minimum of its class and has a neighbour, take the smallest such patch, of
equals the one whose first pixel comes first in rows from the north. It gets the class with which it has the longest
common border, of equals the lowest value, and becomes one patch with all patches of that class that it touches.

A patch waits only for smaller patches beside it. Patches without one can be merged in any order or at once, with the
same result: patches only grow, so none of their neighbours goes before them. And a window tells which of its pixels are
settled, whatever lies beyond it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.legend import NODATA
from pipeline.products.national.generalised.patches import Ints, Patches, find_patches, sum_borders

_VALUES = 32
"""More than there are classes."""


@dataclass(frozen=True)
class OpenEdges:
    """The edges of a window beyond which the map goes on."""

    top: bool = False
    left: bool = False
    bottom: bool = False
    right: bool = False


@dataclass(frozen=True, eq=False)
class Merged:
    """A generalised window."""

    classes: NDArray[np.uint8]
    """uint8 (y, x): FLAIR values."""
    settled: NDArray[np.bool_]
    """(y, x): True where the class is final, whatever lies beyond the window's open edges."""


@dataclass(frozen=True, eq=False)
class _State:
    """Patches while they merge; those that were merged are one."""

    classes: NDArray[np.uint8]
    areas: Ints
    first: Ints
    open: NDArray[np.bool_]
    """True where a patch may have more pixels beyond the window."""
    one: Ints
    other: Ints
    borders: Ints


def generalise(classes: NDArray[np.uint8], units: NDArray[np.int64], edges: OpenEdges) -> Merged:
    """Applies the rule to a window of a map, as far as the window tells the result.

    Args:
        classes: uint8 (y, x), 0..19; 0 is nodata, which stays and is nobody's neighbour.
        units: int64 (class,): smallest number of pixels of a patch of each class, 0..19.
        edges: where the map goes on.
    """
    patches = find_patches(classes)
    state, now = _start(patches, units, edges), np.arange(len(patches.classes))
    while True:
        small = (state.areas < units[state.classes]) & (state.classes != NODATA)
        ready = _ready(state, small)
        if not ready.any():
            break
        state, joined = _merge(state, ready)
        now = joined[now]
    stuck = small & (_has_neighbour(state) | state.open)
    painted = patches.paint(state.classes[now])
    return Merged(painted.astype(np.uint8, copy=False), ~patches.paint(stuck[now]).astype(np.bool_, copy=False))


def _start(patches: Patches, units: NDArray[np.int64], edges: OpenEdges) -> _State:
    """Without the borders that play no role: of nodata, and between patches that are both large enough."""
    beyond = patches.at_edges(top=edges.top, left=edges.left, bottom=edges.bottom, right=edges.right)
    small = patches.areas < units[patches.classes]
    one, other = patches.one, patches.other
    kept = (patches.classes[one] != NODATA) & (patches.classes[other] != NODATA) & (small[one] | small[other])
    return _State(patches.classes, patches.areas, patches.first, beyond, one[kept], other[kept], patches.borders[kept])


def _has_neighbour(state: _State) -> NDArray[np.bool_]:
    found = np.zeros(len(state.classes), np.bool_)
    found[state.one] = found[state.other] = True
    return found


def _ready(state: _State, small: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True for small patches whose turn it is: no small patch beside them can come first.

    An open patch may be larger than it looks, so it comes later for sure only where its known part is larger.
    """
    ready = small & ~state.open & _has_neighbour(state)
    both = small[state.one] & small[state.other]
    for here, there in ((state.one[both], state.other[both]), (state.other[both], state.one[both])):
        less, equal = state.areas[there] < state.areas[here], state.areas[there] == state.areas[here]
        first = less | (equal & (state.open[there] | (state.first[there] < state.first[here])))
        ready[here[first]] = False
    return ready


def _merge(state: _State, ready: NDArray[np.bool_]) -> tuple[_State, Ints]:
    """Merges patches of which no two touch each other; returns the new state, and the new patch of each one."""
    target = _longest(state, ready)
    classes = np.where(ready, target, state.classes).astype(np.uint8)
    joins = (ready[state.one] & (state.classes[state.other] == target[state.one])) | (
        ready[state.other] & (state.classes[state.one] == target[state.other])
    )
    count = len(state.classes)
    links = coo_array((joins[joins], (state.one[joins], state.other[joins])), shape=(count, count))
    patches, joined = connected_components(links, directed=False)
    areas = np.zeros(patches, np.int64)
    np.add.at(areas, joined, state.areas)
    first = np.full(patches, np.iinfo(np.int64).max)
    np.minimum.at(first, joined, state.first)
    beyond, merged = np.zeros(patches, np.bool_), np.zeros(patches, np.uint8)
    beyond[joined[state.open]] = True
    merged[joined] = classes
    one, other = joined[state.one], joined[state.other]
    apart = one != other
    borders = sum_borders(one[apart], other[apart], state.borders[apart])
    return _State(merged, areas, first, beyond, *borders), joined


def _longest(state: _State, ready: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(patch,): the class with which a ready patch has the longest border, the lowest of equals; 0 for others."""
    index = np.cumsum(ready) - 1
    sums = np.zeros(int(ready.sum()) * _VALUES, np.int64)
    for here, there in ((state.one, state.other), (state.other, state.one)):
        own = ready[here]
        np.add.at(sums, index[here[own]] * _VALUES + state.classes[there[own]], state.borders[own])
    longest = np.zeros(len(state.classes), np.int64)
    # argmax takes the first of equals.
    longest[ready] = sums.reshape(-1, _VALUES).argmax(axis=1)
    return longest
