"""Blocks: squares of the lattice whose regions are finished or open, merged into larger ones.

A block is one cell, or k × k smaller blocks. The regions that reach its outer border stay open: their arcs and counts
go on to the next larger block. All others are finished, and leave as polygons. Regions of neighbours are united by
their labels: a block has labels too for the pixels just north and west of it, whose arcs it owns on these sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.products.vectors.coverage.arcs import Arcs, trace_arcs
from pipeline.products.vectors.coverage.regions import NO_REGION, Ints, join, label_regions, pixel_key
from pipeline.products.vectors.coverage.rings import Rings, assemble
from pipeline.products.vectors.coverage.simplify import simplify

FIRST_DOMAIN = 256
"""Keys of counts below it are confidences; those from it on are codes of domains plus this number."""
_NOWHERE = np.iinfo(np.int64).max
_SIDES = ("north", "south", "west", "east")


@dataclass(frozen=True, eq=False)
class Counts:
    """Pixels of regions, counted by confidence and by domain."""

    region: Ints
    key: Ints
    """A confidence, or `FIRST_DOMAIN` plus the code of a domain."""
    pixels: Ints

    @classmethod
    def of(cls, region: Ints, key: Ints, pixels: Ints | None = None) -> "Counts":
        """Adds up equal pairs; in order of region, then key."""
        span = int(key.max(initial=0)) + 1
        pair, index, times = np.unique(region * span + key, return_inverse=True, return_counts=True)
        added = times if pixels is None else _sum(index, pixels, len(pair))
        return cls(pair // span, pair % span, added)

    def take(self, chosen: NDArray[np.bool_], renamed: Ints) -> "Counts":
        """Those of the chosen regions, under new numbers."""
        kept = chosen[self.region]
        return Counts(renamed[self.region[kept]], self.key[kept], self.pixels[kept])


@dataclass(frozen=True, eq=False)
class Finished:
    """Whole regions with their polygons."""

    classes: Ints
    first: Ints
    """`pixel_key` of the first pixel of each, row by row."""
    counts: Counts
    """Regions by their position here."""
    rings: Rings


@dataclass(frozen=True, eq=False)
class Block:
    """The open regions of a square of the lattice."""

    classes: Ints
    first: Ints
    counts: Counts
    arcs: Arcs
    """All arcs of the open regions that the block owns. Regions that are finished have no number any more."""
    north: Ints
    """Region of each pixel just north of the block, or `NO_REGION`."""
    south: Ints
    """Of its southernmost pixels."""
    west: Ints
    """Of the pixels just west of it."""
    east: Ints
    """Of its easternmost pixels."""


def cell_block(
    classes: NDArray[np.integer],
    confidence: NDArray[np.uint8],
    domain: NDArray[np.uint16],
    *,
    corner: tuple[int, int],
    tolerance: float,
) -> Block:
    """The block of one cell; also regions that are whole are open.

    Args:
        classes: (side + 2, side + 2), the cell and one pixel on each side of it; 0 for no data.
        confidence: (side, side) of the cell.
        domain: (side, side) of the cell.
        corner: row and column of the cell's first pixel.
        tolerance: of the simplification, in pixels.
    """
    side, (row, col) = len(confidence), corner
    labels, class_of = label_regions(classes[:-1, :-1])
    arcs = simplify(trace_arcs(classes, labels), tolerance, side=side)
    inner = labels[1:, 1:]
    pixel = np.flatnonzero(inner.ravel() != NO_REGION)
    region = inner.ravel()[pixel]
    first = np.full(len(class_of), _NOWHERE)
    # Of several values for one region, numpy keeps the last: the first pixel.
    first[region[::-1]] = pixel_key(row + pixel // side, col + pixel % side)[::-1]
    keys = np.concatenate([confidence.ravel()[pixel], domain.ravel()[pixel].astype(np.int64) + FIRST_DOMAIN])
    return Block(
        class_of,
        first,
        Counts.of(np.concatenate([region, region]), keys),
        replace(arcs, row=arcs.row + row, col=arcs.col + col),
        north=labels[0, 1:],
        south=inner[-1],
        west=labels[1:, 0],
        east=inner[:, -1],
    )


def merge(blocks: Mapping[tuple[int, int], Block], *, across: int) -> tuple[Finished, Block]:
    """Merges blocks into one, and takes out the regions that are finished.

    Args:
        blocks: (row, column) of `across` × `across` blocks of one size → block; at least one. Those that are missing
            have no data.
        across: blocks on a side.
    """
    places = sorted(blocks)
    parts = [blocks[place] for place in places]
    begin = np.cumsum([0, *(len(part.classes) for part in parts)])
    moved = {
        place: {side: _shift(getattr(part, side), by) for side in _SIDES}
        for place, part, by in zip(places, parts, begin, strict=False)
    }
    group = join(int(begin[-1]), *_contacts(moved))
    number = int(group.max(initial=-1)) + 1
    classes, first = np.zeros(number, np.int64), np.full(number, _NOWHERE)
    classes[group] = np.concatenate([part.classes for part in parts])
    np.minimum.at(first, group, np.concatenate([part.first for part in parts]))
    counts = Counts.of(
        group[np.concatenate([part.counts.region + by for part, by in zip(parts, begin, strict=False)])],
        np.concatenate([part.counts.key for part in parts]),
        np.concatenate([part.counts.pixels for part in parts]),
    )
    arcs = Arcs.concatenate([_renumber(part.arcs, group, by) for part, by in zip(parts, begin, strict=False)])
    borders = _borders(moved, group, across=across, side=len(parts[0].north))
    return _split(classes, first, counts, arcs, borders)


def _shift(labels: Ints, by: int) -> Ints:
    return np.where(labels == NO_REGION, NO_REGION, labels + by)


def _lookup(group: Ints, labels: Ints) -> Ints:
    """The groups of labels; `NO_REGION` stays."""
    return np.append(group, NO_REGION)[labels]


def _renumber(arcs: Arcs, group: Ints, by: int) -> Arcs:
    return replace(arcs, left=_lookup(group, _shift(arcs.left, by)), right=_lookup(group, _shift(arcs.right, by)))


def _contacts(labels: Mapping[tuple[int, int], Mapping[str, Ints]]) -> tuple[Ints, Ints]:
    """Pairs of labels that two neighbours have for the same pixel."""
    pairs = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for (row, col), own in labels.items():
        for place, mine, theirs in (((row + 1, col), "south", "north"), ((row, col + 1), "east", "west")):
            if place in labels:
                shared = own[mine] != NO_REGION
                pairs.append((own[mine][shared], labels[place][theirs][shared]))
    first, second = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return first, second


def _borders(
    labels: Mapping[tuple[int, int], Mapping[str, Ints]], group: Ints, *, across: int, side: int
) -> dict[str, Ints]:
    """The groups along the four sides of the merged block."""
    nothing = np.full(side, NO_REGION)
    outer = {
        "north": [(0, k) for k in range(across)],
        "south": [(across - 1, k) for k in range(across)],
        "west": [(k, 0) for k in range(across)],
        "east": [(k, across - 1) for k in range(across)],
    }
    return {
        name: _lookup(group, np.concatenate([labels[place][name] if place in labels else nothing for place in line]))
        for name, line in outer.items()
    }


def _split(
    classes: Ints, first: Ints, counts: Counts, arcs: Arcs, borders: Mapping[str, Ints]
) -> tuple[Finished, Block]:
    """The finished regions, and the block of the others."""
    number = len(classes)
    is_open = np.zeros(number + 1, bool)
    is_open[np.concatenate(list(borders.values()))] = True
    is_open[NO_REGION] = False
    # A pixel at the corner outside a cell has a label too, and no arc of the cell.
    has_arc = np.zeros(number + 1, bool)
    has_arc[arcs.left] = has_arc[arcs.right] = True
    wanted = (has_arc & ~is_open)[:number]
    regions, rings = assemble(arcs, wanted)
    renamed = np.full(number + 1, NO_REGION)
    renamed[regions] = np.arange(len(regions))
    finished = Finished(classes[regions], first[regions], counts.take(wanted, renamed), rings)
    still = np.flatnonzero(is_open)
    renamed = np.full(number + 1, NO_REGION)
    renamed[still] = np.arange(len(still))
    left = arcs.take(np.flatnonzero(is_open[arcs.left] | is_open[arcs.right]))
    left = replace(left, left=renamed[left.left], right=renamed[left.right])
    sides = {name: renamed[labels] for name, labels in borders.items()}
    return finished, Block(classes[still], first[still], counts.take(is_open, renamed), left, **sides)


def _sum(index: Ints, values: Ints, length: int) -> Ints:
    """Sums of values by index, exact."""
    total = np.zeros(length, np.int64)
    np.add.at(total, index, values)
    return total
