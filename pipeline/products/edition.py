"""An edition comes into being: begin, one task a shard, commit.

It grows under a temporary name, out of hard links to what did not change and new files for what did, and
becomes current by one rename of a symbolic link. Readers see the former edition or the new one.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from pipeline.durable import sync, write_json
from pipeline.errors import ProductError
from pipeline.grid import Window
from pipeline.legend import LAYERS as COG_LAYERS
from pipeline.legend import Layer
from pipeline.products.item import SealedTile, matches, read_sealed
from pipeline.products.national import EditionPlan, Owner, ShardPlan, Target
from pipeline.products.ownership import NOBODY, owners
from pipeline.products.record import LAYERS, Index, current_edition, present_shards
from pipeline.products.store import create_store, write_layer

_STRIP_ROWS = 2048
_MOST_OWNERS = 255


@dataclass(frozen=True)
class ShardFacts:
    """A written shard: its bytes in all layers, and how many pixels each domain owns of it."""

    index: Index
    size: int
    owned: tuple[tuple[str, int], ...]


def abandoned(national: Path) -> tuple[Path, ...]:
    """Removes what a killed publish left and returns it; the current edition stays what it was.

    Call it while no other publish is at work: `runs.publish` holds the nation.

    Raises:
        ProductError: it cannot be removed.
    """
    # A pointer that was not swapped names an edition that was finished and never current.
    pointers = tuple(national.glob(".current.*.tmp"))
    finished = [national / p.readlink() for p in pointers]
    left = [*(national / "editions").glob(".*.tmp"), *(p for p in finished if p.is_dir())]
    try:
        for folder in left:
            shutil.rmtree(folder)
        for pointer in pointers:
            pointer.unlink()
    except OSError as error:
        raise ProductError(f"{national}: what a killed publish left cannot be removed: {error}") from error
    return (*left, *pointers)


def begin(plan: EditionPlan) -> None:
    """Makes the edition's folder under its temporary name: metadata, and links to unchanged shards.

    Raises:
        ProductError: it cannot be written, or a publish is under way or was killed. Nothing is left.
    """
    try:
        plan.staging.parent.mkdir(parents=True, exist_ok=True)
        plan.staging.mkdir()
    except FileExistsError as error:
        raise ProductError(
            f"{plan.staging}: a publish is under way or was killed; if none is, `abandoned` clears it"
        ) from error
    except OSError as error:
        raise ProductError(f"{plan.national}: cannot be written: {error.strerror or error}") from error
    try:
        _fill(plan)
    except OSError as error:
        shutil.rmtree(plan.staging, ignore_errors=True)
        raise ProductError(f"{plan.staging}: cannot be written: {error.strerror or error}") from error


def _fill(plan: EditionPlan) -> None:
    same_grid = plan.parent is not None and plan.parent.grid == plan.grid
    create_store(
        plan.target.store,
        plan.grid,
        domains=plan.domains,
        coverage=plan.coverage,
        coordinates_from=plan.parent.store if plan.parent is not None and same_grid else None,
    )
    for layer in LAYERS:
        shards = plan.target.store / layer / "c"
        for row in sorted({index[0] for index in plan.digests}):
            (shards / str(row)).mkdir(parents=True)
        for row, col in plan.link:
            if plan.parent is not None:
                os.link(plan.parent.store / layer / "c" / str(row) / str(col), shards / str(row) / str(col))


def write_shard(target: Target, shard: ShardPlan) -> ShardFacts:
    """Writes one shard in all layers, from the tiles of its owners only. One task, no locks, may be repeated.

    Where an owner's tile failed or is missing, land cover and confidence are 0 and the owner stays. Two
    bytes a pixel of the shard are held, and twice what one layer takes when encoded, besides GDAL's cache.

    Args:
        target: the edition, begun.
        shard: one of the plan's `write`.

    Raises:
        ProductError: a tile is no longer what was planned, cannot be read, or the shard cannot be written.
    """
    for owner in shard.owners:
        _check_source(owner)
    files = []
    try:
        owner_of = _owner_map(shard)
        for layer in COG_LAYERS:
            pixels = _layer_pixels(shard, owner_of, layer)
            files.append(write_layer(target.store, layer, shard.index, shard=target.grid.shard, pixels=pixels))
            # One layer at a time in memory: the next is read after this one has gone.
            del pixels
        owned, codes = _owned(shard, owner_of), _codes(shard, owner_of)
        del owner_of
        files.append(write_layer(target.store, "domain", shard.index, shard=target.grid.shard, pixels=codes))
        for file in files:
            sync(file)
    except OSError as error:
        raise ProductError(f"{target.store}: shard {shard.index} cannot be written: {error}") from error
    return ShardFacts(shard.index, sum(f.stat().st_size for f in files), owned)


def _check_source(owner: Owner) -> None:
    """Raises ProductError where a tile's item or files are not those of the plan."""
    planned = owner.sealed
    if planned is None:
        return
    now = read_sealed(planned.item_path.parent, planned.domain, planned.tile)
    if now != planned:
        raise ProductError(
            f"{planned.item_path}: the tile was sealed anew since the publish was planned; publish again"
        )
    if problems := matches(planned):
        raise ProductError("; ".join(problems))


def _strips(window: Window) -> Iterator[Window]:
    for row in range(window.row, window.bottom, _STRIP_ROWS):
        yield window.intersect(Window(row, window.col, _STRIP_ROWS, window.width))


def _owner_map(shard: ShardPlan) -> NDArray[np.uint8]:
    """uint8 (y, x): 0 for nobody, i + 1 for `shard.owners[i]`."""
    if len(shard.owners) > _MOST_OWNERS:
        raise ProductError(f"shard {shard.index}: {len(shard.owners)} domains own of it, at most {_MOST_OWNERS} can")
    claims = [o.claim for o in shard.owners]
    owner_of: NDArray[np.uint8] = np.zeros(shard.window.shape, np.uint8)
    for strip in _strips(shard.window):
        owner_of[strip.slices_in(shard.window)] = owners(strip, claims)
    return owner_of


def _layer_pixels(shard: ShardPlan, owner_of: NDArray[np.uint8], layer: Layer) -> NDArray[np.uint8]:
    """uint8 (y, x): each pixel from its owner's tile, 0 where there is no owner or no tile of its."""
    pixels: NDArray[np.uint8] = np.zeros(shard.window.shape, np.uint8)
    for number, owner in enumerate(shard.owners, start=1):
        if owner.sealed is not None:
            _copy_owned(owner.sealed, layer, shard.window, owned=owner_of, number=number, into=pixels)
    return pixels


def _copy_owned(
    sealed: SealedTile,
    layer: Layer,
    window: Window,
    *,
    owned: NDArray[np.uint8],
    number: int,
    into: NDArray[np.uint8],
) -> None:
    """Copies the pixels where `owned` is `number` from a tile, reading no more columns than these span."""
    path = sealed.file(layer).path
    try:
        with rasterio.open(path) as dataset:
            for strip in _strips(window):
                columns = np.flatnonzero((owned[strip.slices_in(window)] == number).any(axis=0))
                if not columns.size:
                    continue
                left = strip.col + int(columns[0])
                read = Window(strip.row, left, strip.height, int(columns[-1]) + 1 - int(columns[0]))
                here = read.slices_in(window)
                rows, cols = read.slices_in(sealed.tile.window)
                values = dataset.read(1, window=((rows.start, rows.stop), (cols.start, cols.stop)))
                np.copyto(into[here], values, where=owned[here] == number)
    except (RasterioError, CPLE_BaseError) as error:
        raise ProductError(f"{path}: cannot be read: {error}; run `landcover verify`") from error


def _codes(shard: ShardPlan, owner_of: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """uint16 (y, x): the code of each pixel's domain, 0 for nobody."""
    codes = np.array([NOBODY, *(o.code for o in shard.owners)], np.uint16)
    pixels: NDArray[np.uint16] = np.empty(owner_of.shape, np.uint16)
    for strip in _strips(shard.window):
        part = strip.slices_in(shard.window)
        # Indexing makes an index of eight bytes a pixel: strips keep that small.
        pixels[part] = codes[owner_of[part]]
    return pixels


def _owned(shard: ShardPlan, owner_of: NDArray[np.uint8]) -> tuple[tuple[str, int], ...]:
    counts = sum(
        (np.bincount(owner_of[s.slices_in(shard.window)].ravel(), minlength=256) for s in _strips(shard.window)),
        np.zeros(256, np.int64),
    )
    return tuple((o.claim.domain, int(counts[i])) for i, o in enumerate(shard.owners, start=1))


def commit(plan: EditionPlan) -> Path:
    """Makes the edition current; returns its folder.

    Raises:
        ProductError: a shard was not written, another edition became current since the plan, or the disk
            refuses. The former edition is then still current.
    """
    _check_complete(plan)
    final = plan.staging.with_name(f"{plan.number:06d}")
    pointer = plan.national / f".current.{plan.number:06d}.tmp"
    try:
        write_json(plan.staging / "edition.json", _record(plan), indent=None)
        _sync_tree(plan.staging)
        # The pointer is made before the folder has its name: a kill between leaves what `abandoned` sees.
        pointer.symlink_to(Path("editions", final.name))
        plan.staging.rename(final)
        sync(final.parent)
        pointer.replace(plan.national / "current")
        sync(plan.national)
    except OSError as error:
        raise ProductError(f"{final}: cannot be made current: {error.strerror or error}") from error
    return final


def _check_complete(plan: EditionPlan) -> None:
    now = current_edition(plan.national)
    if (now and now.number) != (plan.parent and plan.parent.number):
        raise ProductError(
            f"{plan.national}: edition {now and now.number} became current since the plan; publish again"
        )
    for layer in LAYERS:
        missing = sorted(plan.digests.keys() - present_shards(plan.target.store, layer))
        if missing:
            raise ProductError(f"{plan.target.store}: {len(missing)} shards of {layer} were not written: {missing[:5]}")
        # A worker that was killed while it wrote leaves its temporary file beside the shards.
        for stray in (plan.target.store / layer / "c").glob("*/*"):
            if not stray.name.isdigit():
                stray.unlink()


def _record(plan: EditionPlan) -> dict[str, object]:
    return {
        "number": plan.number,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "parent": plan.parent and plan.parent.number,
        "grid": plan.grid.to_json(),
        "domains": [dict(d) for d in plan.domains],
        "metadata": plan.metadata,
        "shards": {f"{row}/{col}": plan.digests[row, col] for row, col in sorted(plan.digests)},
    }


def _sync_tree(folder: Path) -> None:
    """Syncs every folder, and every file that is not a link to a former edition's."""
    for parent, _, names in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in names):
            if path.stat().st_nlink == 1:
                sync(path)
        sync(Path(parent))
