"""Writes one shard of the national product from the tiles of its domains.

Each pixel shows the tile of its owner (`products.national.ownership`). Where the owner's sealed tile has no data, the
pixel shows the first other domain that has data there: first the domains that claim the pixel, in order of rank, then
those whose polygon lies elsewhere, by newest vintage, then name. Where the owner's tile failed or is missing, and where
nobody owns the pixel, land cover and confidence are 0. The `domain` layer names the domain that is shown, or the owner
where nobody has data.
"""

import filecmp
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.durable import sync
from pipeline.errors import ProductError, product_error
from pipeline.grid import Window
from pipeline.legend import NODATA, Layer
from pipeline.products.national.edition_record import Tally
from pipeline.products.national.grid import GridIndex
from pipeline.products.national.ownership import NOBODY, Claim, owners, times_claimed
from pipeline.products.national.publish_plan import ShardCandidate, ShardPlan, Target
from pipeline.products.national.zarr_store import write_layer
from pipeline.products.tile.cog import open_cog
from pipeline.products.tile.seal import SealedTile, count_values, matches, read_sealed

_STRIP_ROWS = 2048
"""Rows that arithmetic of more than a byte a pixel does at once."""
_MOST_CANDIDATES = 255

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ShardFacts:
    """A written shard."""

    index: GridIndex
    size: int
    """Bytes in all layers."""
    changed: bool
    """False where all layers are equal to the former edition's and are links to them."""
    tally: Tally


def write_shard(target: Target, shard: ShardPlan) -> ShardFacts:
    """Writes one shard in all layers. One task, no locks, may be repeated.

    It takes two bytes for each pixel of the shard, twice the size of one encoded layer, and GDAL's cache.

    Args:
        target: the edition, after `begin`.
        shard: one of `plan.write`.

    Raises:
        ProductError: a tile was changed since the plan, cannot be read, or the shard cannot be written.
    """
    for candidate in shard.candidates:
        _check_source(candidate)
    with product_error(f"{target.store}: shard {shard.index} cannot be written"):
        shown = _owner_map(shard)
        owned = _count(shard, shown)
        landcover = _from_tiles(shard, shown, "landcover")
        filled = _fill(shard, landcover, shown)
        files = [_write(target, shard, "landcover", landcover)]
        # One layer at a time in memory: the next is read after this one has gone.
        del landcover
        files.append(_write(target, shard, "confidence", _from_tiles(shard, shown, "confidence")))
        files.append(_write(target, shard, "domain", _codes(shard, shown)))
        several = _claimed_by_several(shard)
    nobody = shard.window.pixels - sum(owned.values())
    changed = not all(linked for _, linked in files)
    return ShardFacts(shard.index, sum(size for size, _ in files), changed, Tally(owned, filled, several, nobody))


def _check_source(candidate: ShardCandidate) -> None:
    """Raises ProductError where a tile's item or files differ from the plan."""
    planned = candidate.sealed
    if planned is None:
        return
    now = read_sealed(planned.item_path.parent, planned.domain, planned.tile)
    if now != planned:
        raise ProductError(
            f"{planned.item_path}: the tile was sealed again since the publish was planned; publish again"
        )
    if problems := matches(planned):
        raise ProductError("; ".join(problems))


def _owner_map(shard: ShardPlan) -> NDArray[np.uint8]:
    """uint8 (y, x): 0 for nobody, i + 1 for `shard.candidates[i]`."""
    if len(shard.candidates) > _MOST_CANDIDATES:
        raise ProductError(
            f"shard {shard.index}: {len(shard.candidates)} domains were delivered with its tile; expected at most "
            f"{_MOST_CANDIDATES}"
        )
    # Owners come first among the candidates, so their numbers are the same in both lists.
    owning = [c.claim for c in shard.candidates if c.claim and c.owns]
    owner_of: NDArray[np.uint8] = np.zeros(shard.window.shape, np.uint8)
    for strip in shard.window.strips(_STRIP_ROWS):
        owner_of[strip.slices_in(shard.window)] = owners(strip, owning)
    return owner_of


def _count(shard: ShardPlan, numbers: NDArray[np.uint8]) -> dict[str, int]:
    """Domain → pixels with its number, if there are any; in order of name."""
    strips = (strip.slices_in(shard.window) for strip in shard.window.strips(_STRIP_ROWS))
    counts = sum((count_values(numbers[strip]) for strip in strips), np.zeros(256, np.int64))
    return dict(sorted((c.domain, int(counts[i])) for i, c in enumerate(shard.candidates, start=1) if counts[i]))


def _claimed_by_several(shard: ShardPlan) -> int:
    claims = [c.claim for c in shard.candidates if c.claim]
    if len(claims) < 2:
        return 0
    return sum(int(np.count_nonzero(times_claimed(strip, claims) > 1)) for strip in shard.window.strips(_STRIP_ROWS))


def _from_tiles(shard: ShardPlan, shown: NDArray[np.uint8], layer: Layer) -> NDArray[np.uint8]:
    """uint8 (y, x): each pixel from the tile of the shown candidate; 0 where none is shown or it has no tile."""
    pixels: NDArray[np.uint8] = np.zeros(shard.window.shape, np.uint8)
    for number, candidate in enumerate(shard.candidates, start=1):
        if candidate.sealed is not None:
            wanted = partial(_is_shown, shard, shown, number)
            for part, mask, values in _read_where(candidate.sealed, layer, shard.window, wanted):
                np.copyto(pixels[part.slices_in(shard.window)], values, where=mask)
    return pixels


def _is_shown(shard: ShardPlan, shown: NDArray[np.uint8], number: int, strip: Window) -> Mask:
    return np.asarray(shown[strip.slices_in(shard.window)] == number)


def _fill(shard: ShardPlan, landcover: NDArray[np.uint8], shown: NDArray[np.uint8]) -> dict[str, int]:
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
        for part, mask, values in _read_where(sealed, "landcover", shard.window, wanted):
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


def _read_where(
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
        for strip in window.strips(_STRIP_ROWS):
            mask = wanted(strip)
            columns = np.flatnonzero(mask.any(axis=0))
            if not columns.size:
                continue
            first, end = int(columns[0]), int(columns[-1]) + 1
            part = Window(strip.row, strip.col + first, strip.height, end - first)
            yield part, mask[:, first:end], cog.read(part.within(sealed.tile.window))


def _codes(shard: ShardPlan, shown: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """uint16 (y, x): the code of each pixel's domain, 0 for nobody."""
    codes = np.array([NOBODY, *(c.domain.code for c in shard.candidates)], np.uint16)
    pixels: NDArray[np.uint16] = np.empty(shown.shape, np.uint16)
    for strip in shard.window.strips(_STRIP_ROWS):
        part = strip.slices_in(shard.window)
        # Indexing takes eight bytes a pixel, so it is done in strips.
        pixels[part] = codes[shown[part]]
    return pixels


def _write(
    target: Target, shard: ShardPlan, layer: str, pixels: NDArray[np.uint8] | NDArray[np.uint16]
) -> tuple[int, bool]:
    """Writes one layer; returns its size in bytes, and whether it is a link to the former edition's file."""
    file = write_layer(target.store, layer, shard.index, shard=target.grid.shard, pixels=pixels)
    size = file.stat().st_size
    former = target.former and target.former / file.relative_to(target.store)
    if former is None or not former.is_file() or not filecmp.cmp(file, former, shallow=False):
        sync(file)
        return size, False
    temporary = file.with_name(f".{file.name}.tmp")
    os.link(former, temporary)
    temporary.replace(file)
    return size, True
