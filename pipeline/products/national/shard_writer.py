"""Writes one shard of the national product from the tiles of its domains.

Each pixel shows the tile of its owner (`products.national.ownership`). Where the owner's sealed tile has no data, the
pixel shows the first other domain that has data there: first the domains that claim the pixel, in order of rank, then
those whose polygon lies elsewhere, by newest vintage, then name. Where the owner's tile failed or is missing, and where
nobody owns the pixel, land cover and confidence are 0. The `domain` layer names the domain that is shown, or the owner
where nobody has data.
"""

import filecmp
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.durable import link_or_copy, sync
from pipeline.errors import ProductError, product_error
from pipeline.fingerprint import file_sha256
from pipeline.grid import Window
from pipeline.legend import Layer
from pipeline.products.national.edition_record import Tally
from pipeline.products.national.gap_filling import STRIP_ROWS, Mask, fill_gaps, read_where
from pipeline.products.national.grid import GridIndex
from pipeline.products.national.ownership import NOBODY, owners, times_claimed
from pipeline.products.national.publish_plan import ShardCandidate, ShardPlan, Target
from pipeline.products.national.zarr_store import write_layer
from pipeline.products.tile.cog import FileFacts
from pipeline.products.tile.seal import count_values, matches, read_sealed

_MOST_CANDIDATES = 255


@dataclass(frozen=True)
class ShardFacts:
    """A written shard."""

    index: GridIndex
    size: int
    """Bytes in all layers."""
    changed: bool
    """False where all layers are equal to the former edition's, and are links to them or copies."""
    tally: Tally
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Path from the edition's folder → SHA-256 of the files in all layers."""


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
        filled = fill_gaps(shard, landcover, shown)
        files = [_write(target, shard, "landcover", landcover)]
        # One layer at a time in memory: the next is read after this one has gone.
        del landcover
        files.append(_write(target, shard, "confidence", _from_tiles(shard, shown, "confidence")))
        files.append(_write(target, shard, "domain", _codes(shard, shown)))
        several = _claimed_by_several(shard)
    nobody = shard.window.pixels - sum(owned.values())
    written = [file for file, _ in files]
    sums = {file.relative_to(target.store.parent).as_posix(): file_sha256(file) for file in written}
    size, changed = sum(file.stat().st_size for file in written), not all(linked for _, linked in files)
    return ShardFacts(shard.index, size, changed, Tally(owned, filled, several, nobody), sums)


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
    changed = [f"{f.path}: checksum mismatch" for f in planned.files if not matches(planned) and _sha256(f) != f.sha256]
    if problems := matches(planned) or changed:
        command = f"landcover run --force --domain {planned.domain} --tile {planned.tile.name}"
        raise ProductError(f"{'; '.join(problems)}; `{command}` maps it again")


def _sha256(file: FileFacts) -> str:
    """Reads a COG once for all shards of its tile; GDAL then finds it in memory."""
    state = file.path.stat()
    return _sha256_of(file.path, (state.st_size, state.st_mtime_ns, state.st_ctime_ns))


@lru_cache(maxsize=64)
def _sha256_of(path: Path, state: tuple[int, ...]) -> str:  # noqa: ARG001  (the state is part of the key)
    return file_sha256(path)


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
    for strip in shard.window.strips(STRIP_ROWS):
        owner_of[strip.slices_in(shard.window)] = owners(strip, owning)
    return owner_of


def _count(shard: ShardPlan, numbers: NDArray[np.uint8]) -> dict[str, int]:
    """Domain → pixels with its number, if there are any; in order of name."""
    strips = (strip.slices_in(shard.window) for strip in shard.window.strips(STRIP_ROWS))
    counts = sum((count_values(numbers[strip]) for strip in strips), np.zeros(256, np.int64))
    return dict(sorted((c.domain, int(counts[i])) for i, c in enumerate(shard.candidates, start=1) if counts[i]))


def _claimed_by_several(shard: ShardPlan) -> int:
    claims = [c.claim for c in shard.candidates if c.claim]
    if len(claims) < 2:
        return 0
    return sum(int(np.count_nonzero(times_claimed(strip, claims) > 1)) for strip in shard.window.strips(STRIP_ROWS))


def _from_tiles(shard: ShardPlan, shown: NDArray[np.uint8], layer: Layer) -> NDArray[np.uint8]:
    """uint8 (y, x): each pixel from the tile of the shown candidate; 0 where none is shown or it has no tile."""
    pixels: NDArray[np.uint8] = np.zeros(shard.window.shape, np.uint8)
    for number, candidate in enumerate(shard.candidates, start=1):
        if candidate.sealed is not None:
            wanted = partial(_is_shown, shard, shown, number)
            for part, mask, values in read_where(candidate.sealed, layer, shard.window, wanted):
                np.copyto(pixels[part.slices_in(shard.window)], values, where=mask)
    return pixels


def _is_shown(shard: ShardPlan, shown: NDArray[np.uint8], number: int, strip: Window) -> Mask:
    return np.asarray(shown[strip.slices_in(shard.window)] == number)


def _codes(shard: ShardPlan, shown: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """uint16 (y, x): the code of each pixel's domain, 0 for nobody."""
    codes = np.array([NOBODY, *(c.domain.code for c in shard.candidates)], np.uint16)
    pixels: NDArray[np.uint16] = np.empty(shown.shape, np.uint16)
    for strip in shard.window.strips(STRIP_ROWS):
        part = strip.slices_in(shard.window)
        # Indexing takes eight bytes a pixel, so it is done in strips.
        pixels[part] = codes[shown[part]]
    return pixels


def _write(
    target: Target, shard: ShardPlan, layer: str, pixels: NDArray[np.uint8] | NDArray[np.uint16]
) -> tuple[Path, bool]:
    """Writes one layer; returns its file, and whether its bytes are those of the former edition's file."""
    file = write_layer(target.store, layer, shard.index, shard=target.grid.shard, pixels=pixels)
    former = target.former and target.former / file.relative_to(target.store)
    if former is None or not former.is_file() or not filecmp.cmp(file, former, shallow=False):
        sync(file)
        return file, False
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
    link_or_copy(former, temporary)
    temporary.replace(file)
    return file, True
