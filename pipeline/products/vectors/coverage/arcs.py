"""Arcs: the borders between the regions of one cell, traced along the edges of its pixels.

The national lattice is divided into square cells that do not depend on tiles. A cell owns the edges of pixels inside it
and on its northern and western side. An arc is a longest path of edges of one cell that meets no node; a node is a
corner of pixels where more than two edges meet, so where three or more regions meet, or two that lie crosswise.

Arcs are directed so that the larger class lies on their left. Directions are 0 to 3: east, north, west, south.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.products.vectors.coverage.chains import END, expand, offsets, order_chains
from pipeline.products.vectors.coverage.regions import Ints

EAST, NORTH, WEST, SOUTH = range(4)


@dataclass(frozen=True, eq=False)
class Arcs:
    """Arcs as arrays. Vertices are corners of pixels: row and column of the pixel to the south-east."""

    row: Ints
    """Of the vertices of all arcs, one arc after the other."""
    col: Ints
    offset: Ints
    """Where each arc begins among the vertices, and the end of the last."""
    left: Ints
    """Region on the left of each arc, or `NO_REGION`."""
    right: Ints
    leaves: Ints
    """Direction in which an arc leaves its first vertex, before it was simplified."""
    arrives: Ints
    """Direction in which it arrives at its last one."""
    starts_at_node: NDArray[np.bool_]
    """Whether the first vertex is a node; otherwise it is one of a ring, or lies between two cells."""
    ends_at_node: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.left)

    def take(self, chosen: Ints) -> "Arcs":
        """Some of the arcs, in the given order."""
        lengths = np.diff(self.offset)[chosen]
        vertices = expand(self.offset[chosen], lengths)
        places: dict[str, Any] = {"row": self.row[vertices], "col": self.col[vertices], "offset": offsets(lengths)}
        per_arc: dict[str, Any] = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name not in places}
        return Arcs(**places, **per_arc)

    @classmethod
    def concatenate(cls, parts: "list[Arcs]") -> "Arcs":
        """All arcs of at least one collection."""
        joined: dict[str, Any] = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        joined["offset"] = offsets(np.concatenate([np.diff(p.offset) for p in parts]))
        return cls(**joined)


@dataclass(frozen=True, eq=False)
class _Edges:
    """Edges of pixels between two classes, directed; vertices are numbered row by row."""

    tail: Ints
    head: Ints
    heading: Ints
    left: Ints
    right: Ints


def trace_arcs(classes: NDArray[np.integer], labels: Ints) -> Arcs:
    """Traces the arcs of one cell.

    Args:
        classes: (side + 2, side + 2): the cell and one pixel on each side of it.
        labels: of the same pixels without the last row and column.

    Returns:
        Arcs whose vertices count from the cell's first corner. Vertices inside straight lines are left out.
    """
    side = len(classes) - 2
    edges = _find_edges(classes, labels, side)
    a, b, c, d = classes[:-1, :-1], classes[:-1, 1:], classes[1:, :-1], classes[1:, 1:]
    degree = ((a != b).astype(np.int8) + (b != d) + (d != c) + (c != a)).ravel()
    leaving = np.full(degree.size, END, np.int64)
    passed = degree[edges.tail] == 2
    leaving[edges.tail[passed]] = np.flatnonzero(passed)
    order, begins = order_chains(leaving[edges.head], edges.tail)
    return _arcs(edges, order, begins, is_node=degree > 2, width=side + 1)


def _find_edges(classes: NDArray[np.integer], labels: Ints, side: int) -> _Edges:
    inner = slice(1, side + 1)
    north, south = np.s_[0:side, inner], np.s_[inner, inner]
    west, east = np.s_[inner, 0:side], np.s_[inner, inner]
    parts = []
    for one, other, forward, back in ((north, south, EAST, WEST), (west, east, NORTH, SOUTH)):
        i, j = np.nonzero(classes[one] != classes[other])
        is_forward = classes[one][i, j] > classes[other][i, j]
        begin = i * (side + 1) + j
        end = begin + (1 if forward == EAST else side + 1)
        # To the east and to the south lead the higher numbers of vertices.
        rises = is_forward if forward == EAST else ~is_forward
        first, second = labels[one][i, j], labels[other][i, j]
        parts.append(
            (
                np.where(rises, begin, end),
                np.where(rises, end, begin),
                np.where(is_forward, forward, back),
                np.where(is_forward, first, second),
                np.where(is_forward, second, first),
            )
        )
    return _Edges(*(np.concatenate(pair) for pair in zip(*parts, strict=True)))


def _arcs(edges: _Edges, order: Ints, begins: Ints, *, is_node: NDArray[np.bool_], width: int) -> Arcs:
    """The arcs of ordered edges, with the tails of the edges where the direction changes, and the last head."""
    first, last = order[begins[:-1]], order[begins[1:] - 1]
    heading = edges.heading[order]
    turns = np.diff(heading, prepend=-1) != 0
    turns[begins[:-1]] = True
    chain = np.repeat(np.arange(len(first)), np.diff(begins))
    lengths = np.bincount(chain[turns], minlength=len(first)) + 1
    offset = offsets(lengths)
    vertex = np.empty(offset[-1], np.int64)
    is_last = np.zeros(offset[-1], bool)
    is_last[offset[1:] - 1] = True
    vertex[~is_last], vertex[is_last] = edges.tail[order][turns], edges.head[last]
    return Arcs(
        row=vertex // width,
        col=vertex % width,
        offset=offset,
        left=edges.left[first],
        right=edges.right[first],
        leaves=edges.heading[first],
        arrives=edges.heading[last],
        starts_at_node=is_node[edges.tail[first]],
        ends_at_node=is_node[edges.head[last]],
    )
