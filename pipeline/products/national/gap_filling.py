"""Which domain a pixel shows where its owner has no data: the next one that has data there.

First come the domains that claim the pixel, in order of rank, then those whose polygon lies elsewhere, by newest
vintage, then name.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.grid import Window
from pipeline.legend import NODATA, Layer
from pipeline.products.national.ownership import NOBODY, Claim, owners
from pipeline.products.national.publish_plan import ShardPlan
from pipeline.products.tile.cog import open_cog
from pipeline.products.tile.seal import SealedTile

STRIP_ROWS = 2048
"""Rows that arithmetic of more than a byte a pixel does at once."""

Mask = NDArray[np.bool_]


def fill_gaps(shard: ShardPlan, landcover: NDArray[np.uint8], shown: NDArray[np.uint8]) -> dict[str, int]:
    """Fills no data of owners from other tiles, in `landcover` and in `shown`; returns domain → pixels filled."""
    lacking = [
        number
        for number, c in enumerate(shard.candidates, start=1)
        if c.owns and c.sealed and c.sealed.class_pixels.get(NODATA, 0)
    ]
    filled: Counter[str] = Counter()
    for number, within in _fill_order(shard):
        sealed = shard.candidates[number - 1].sealed
        gaps = [n for n in lacking if n != number]
        if sealed is None or not gaps:
            continue
        wanted = partial(_gaps, shard, landcover, shown, lacking=gaps, within=within)
        for part, mask, values in read_where(sealed, "landcover", shard.window, wanted):
            here, has = part.slices_in(shard.window), mask & (values != NODATA)
            np.copyto(landcover[here], values, where=has)
            shown[here][has] = number
            filled[sealed.domain] += int(np.count_nonzero(has))
    return dict(sorted((+filled).items()))


def _fill_order(shard: ShardPlan) -> list[tuple[int, Claim | None]]:
    """(number of a candidate, the claim inside which it fills gaps or None for everywhere), from first to last.

    A candidate with a polygon here comes twice: for the pixels in its claim, and for all others.
    """
    numbered = list(enumerate(shard.candidates, start=1))
    claiming = sorted(((n, c.claim) for n, c in numbered if c.claim), key=lambda pair: pair[1].rank)
    bounded = [(number, c) for number, c in numbered if c.claim is None or c.claim.boundary is not None]
    elsewhere = sorted(bounded, key=lambda pair: (-pair[1].domain.year, pair[1].domain))
    return [*claiming, *((number, None) for number, _ in elsewhere)]


def _gaps(
    shard: ShardPlan,
    landcover: NDArray[np.uint8],
    shown: NDArray[np.uint8],
    strip: Window,
    *,
    lacking: list[int],
    within: Claim | None,
) -> Mask:
    """True where a candidate in `lacking` is shown and has no data, inside the claim if one is given."""
    part = strip.slices_in(shard.window)
    gap: Mask = np.zeros(strip.shape, np.bool_)
    for number in lacking:
        gap |= shown[part] == number
    gap &= landcover[part] == NODATA
    if within is not None and within.boundary is not None and gap.any():
        gap &= owners(strip, [within]) != NOBODY
    return gap


def read_where(
    sealed: SealedTile, layer: Layer, window: Window, wanted: Callable[[Window], Mask]
) -> Iterator[tuple[Window, Mask, NDArray[np.uint8]]]:
    """Reads the wanted pixels of a tile, strip by strip, with no more columns than these span.

    Args:
        sealed: the tile.
        layer: which of its COGs.
        window: on the lattice, inside the tile.
        wanted: returns for a strip of the window True (y, x) where pixels are wanted; called once for each strip.

    Yields:
        The part that was read, where it is wanted (bool), and its pixels (uint8), both (y, x).
    """
    with open_cog(sealed.file(layer).path) as cog:
        for strip in window.strips(STRIP_ROWS):
            mask = wanted(strip)
            columns = np.flatnonzero(mask.any(axis=0))
            if not columns.size:
                continue
            first, end = int(columns[0]), int(columns[-1]) + 1
            part = Window(strip.row, strip.col + first, strip.height, end - first)
            yield part, mask[:, first:end], cog.read(part.within(sealed.tile.window))
