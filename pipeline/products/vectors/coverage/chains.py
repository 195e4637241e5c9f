"""Puts linked items in order: edges of pixels into arcs, and arcs into rings."""

import numpy as np

from pipeline.products.vectors.coverage.regions import Ints, join

END = -1
"""Follows the last item of a chain."""


def order_chains(following: Ints, rank: Ints) -> tuple[Ints, Ints]:
    """Orders items that each have at most one successor and one predecessor.

    Args:
        following: the successor of each item, or `END`.
        rank: different for the items of one ring; a ring begins with its smallest.

    Returns:
        The items, chain after chain, each in its order; and the offset of each chain in them, with the end of the last.
    """
    number = len(following)
    linked = np.flatnonzero(following != END)
    chain = join(number, linked, following[linked])
    following = _cut_rings(following, chain, rank)
    # Each pass doubles the distance that an item looks ahead.
    to_end = (following != END).astype(np.int64)
    ahead = np.where(following == END, np.arange(number), following)
    while True:
        further = to_end[ahead]
        if not further.any():
            break
        to_end += further
        ahead = ahead[ahead]
    order = np.lexsort((-to_end, chain))
    return order, np.append(np.flatnonzero(np.diff(chain[order], prepend=-1)), number)


def _cut_rings(following: Ints, chain: Ints, rank: Ints) -> Ints:
    """The successors without those by which rings close."""
    chains = int(chain.max(initial=-1)) + 1
    is_ring = np.ones(chains, bool)
    is_ring[chain[following == END]] = False
    in_ring = np.flatnonzero(is_ring[chain])
    in_ring = in_ring[np.lexsort((rank[in_ring], chain[in_ring]))]
    first = np.zeros(len(following), bool)
    first[in_ring[np.flatnonzero(np.diff(chain[in_ring], prepend=-1))]] = True
    return np.where((following != END) & first[following], END, following)


def offsets(lengths: Ints) -> Ints:
    """Where each of several parts begins when they lie one after the other, and the end of the last."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def expand(starts: Ints, lengths: Ints) -> Ints:
    """The indices of several ranges, one after the other: `[5, 2], [2, 3]` → `[5, 6, 2, 3, 4]`."""
    ends = np.cumsum(lengths)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    return np.asarray(np.repeat(starts, lengths) + within, np.int64)
