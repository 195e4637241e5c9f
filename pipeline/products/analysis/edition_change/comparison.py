"""Compares one tile of two editions: change of the land, change of the map only, and what errors alone would show.

Where both editions show the same imagery, the land cannot have changed between them: a pixel whose class differs there
is *map change*, made by other weights or another way of mapping. Elsewhere it is *land change*, or an error of a map.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from pipeline.errors import product_error
from pipeline.grid import Window
from pipeline.legend import NODATA
from pipeline.products.national.generalised.settling import settle
from pipeline.products.national.grid import GridIndex, NationalGrid
from pipeline.products.national.pyramid.downsample import CLASSES
from pipeline.products.national.zarr_store import read_zarr, write_layer

NONE, STABLE, LAND, MAP, UNSURE = range(5)
"""Values of the layer `change`: no data, stable, land change, map change, uncertain."""
KINDS = ("no_data", "stable", "land_change", "map_change", "uncertain")
LAYERS_OF_CHANGE = ("from", "to", "confidence", "change")
_CHANGED = 2
"""The state of changed pixels while small patches are looked for; that of all others is 1."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EditionLayers:
    """The arrays of an edition that are compared."""

    landcover: Path
    confidence: Path
    domain: Path


@dataclass(frozen=True)
class ChangeTarget:
    """What a worker needs besides the tile."""

    first: EditionLayers
    second: EditionLayers
    store: Path
    """The Zarr to write into."""
    grid: NationalGrid
    side: int
    """Pixels a side of the store's files; divides the tile."""
    least: int
    """Pixels whose lower confidence, 0..255, is below it are uncertain."""
    unit: int
    """Changed patches with fewer pixels are uncertain."""


@dataclass(frozen=True)
class ChangeJob:
    """A tile, and what is known of it."""

    tile: GridIndex
    same: frozenset[tuple[int, int]]
    """Codes of domains, (first, second), that were mapped from the same files here."""
    zones: Mapping[str, tuple[tuple[int, bytes], ...]] = field(hash=False)
    """Kind of zone → (number from 1, polygon as WKB) of those that meet the tile."""


@dataclass(frozen=True, eq=False)
class ZoneChange:
    """Pixels of one zone."""

    figures: Ints
    """int64 (2, 5): for other and for the same imagery: certain pixels, those whose class differs, those of them in
    patches that are large enough, and the sums of 255² − p q and of 255 |p − q| over the certain pixels."""
    classes: Ints
    """int64 (2, from, to): changed pixels, by class, for other and for the same imagery; small patches left out."""
    unsure: int
    """Pixels with data in both that are not certain."""

    def __add__(self, other: "ZoneChange") -> "ZoneChange":
        return ZoneChange(self.figures + other.figures, self.classes + other.classes, self.unsure + other.unsure)


@dataclass(frozen=True, eq=False)
class TileChange:
    """The change of a tile."""

    kinds: Ints
    """int64 (file, 5): pixels of each kind, for the parts of the tile that are files of the store."""
    zones: Mapping[tuple[str, int], ZoneChange]
    """(kind of zone, number) → its pixels in the tile; (`all`, 0) is the tile."""
    lesser: Ints
    """int64 (256,): certain pixels with other imagery, by the lower of the two confidences."""


@dataclass(frozen=True, eq=False)
class _Block:
    """Both maps in a window, and how they are related."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    p: NDArray[np.uint8]
    q: NDArray[np.uint8]
    known: NDArray[np.bool_]
    sure: NDArray[np.bool_]

    @property
    def lesser(self) -> NDArray[np.uint8]:
        return np.minimum(self.p, self.q)

    @property
    def differ(self) -> NDArray[np.bool_]:
        """Certain pixels whose class differs."""
        differ: NDArray[np.bool_] = self.sure & (self.before != self.after)
        return differ


def write_change(target: ChangeTarget, job: ChangeJob) -> TileChange:
    """Writes the change of a tile. One task, no locks, may be repeated. Files without any change are not written.

    Args:
        target: the store, created.
        job: the tile.

    Raises:
        ProductError: an edition cannot be read, or a file cannot be written.
    """
    grid, (row, col) = target.grid, job.tile
    whole = Window(grid.extent.row + row * grid.tile, grid.extent.col + col * grid.tile, grid.tile, grid.tile)
    kinds, zones, lesser = [], dict[tuple[str, int], ZoneChange](), np.zeros(256, np.int64)
    with product_error(f"{target.store}: tile {job.tile} (row, column) cannot be written"):
        for part in whole.split(target.side):
            block, same = _read(target, part), _same_imagery(target, part, job.same)
            kept = block.differ & _large(target, part) if target.unit > 1 else block.differ
            change = _kinds(block, kept, same)
            _write(target, part, block, change)
            kinds.append(np.bincount(change.ravel(), minlength=len(KINDS)))
            lesser += np.bincount(block.lesser[block.sure & ~same], minlength=256)
            for key, inside in _zones_of(job, part).items():
                found = _count(block, kept, same, inside)
                zones[key] = zones[key] + found if key in zones else found
    return TileChange(np.array(kinds, np.int64), zones, lesser)


def _read(target: ChangeTarget, window: Window) -> _Block:
    place = window.within(target.grid.extent)
    before, after = (read_zarr(edition.landcover, place) for edition in (target.first, target.second))
    p, q = (read_zarr(edition.confidence, place) for edition in (target.first, target.second))
    known = (before != NODATA) & (after != NODATA)
    return _Block(before, after, p, q, known, known & (np.minimum(p, q) >= target.least))


def _same_imagery(target: ChangeTarget, window: Window, pairs: frozenset[tuple[int, int]]) -> NDArray[np.bool_]:
    """True where both editions show one domain, so one vintage, or domains that were mapped from the same files."""
    place = window.within(target.grid.extent)
    one, other = (read_zarr(edition.domain, place) for edition in (target.first, target.second))
    same: NDArray[np.bool_] = one == other
    for first, second in pairs:
        same |= (one == first) & (other == second)
    return same


def _large(target: ChangeTarget, part: Window) -> NDArray[np.bool_]:
    """True in changed patches that are large enough, whatever part of them lies in this part."""
    units = np.array([0, 0, target.unit, *[0] * (CLASSES - 3)])

    def states(window: Window) -> NDArray[np.uint8]:
        return np.where(_read(target, window).differ, np.uint8(_CHANGED), np.uint8(1))

    settled = settle(states, part, extent=target.grid.extent, units=units)
    return np.asarray(settled.classes == _CHANGED)


def _kinds(block: _Block, kept: NDArray[np.bool_], same: NDArray[np.bool_]) -> NDArray[np.uint8]:
    change = np.where(block.known, np.uint8(UNSURE), np.uint8(NONE))
    change[block.sure & (block.before == block.after)] = STABLE
    change[kept & ~same] = LAND
    change[kept & same] = MAP
    return change


def _write(target: ChangeTarget, part: Window, block: _Block, change: NDArray[np.uint8]) -> None:
    place = part.within(target.grid.extent)
    index = (place.row // target.side, place.col // target.side)
    changed = (change == LAND) | (change == MAP)
    values = {"from": block.before, "to": block.after, "confidence": block.lesser}
    for layer, pixels in {name: np.where(changed, v, np.uint8(0)) for name, v in values.items()}.items():
        if changed.any():
            write_layer(target.store, layer, index, shard=target.side, pixels=pixels)
    write_layer(target.store, "change", index, shard=target.side, pixels=change)


def _zones_of(job: ChangeJob, part: Window) -> dict[tuple[str, int], NDArray[np.bool_] | None]:
    """The zones in a part of the tile: True at pixels whose centre they have; None for all pixels."""
    found: dict[tuple[str, int], NDArray[np.bool_] | None] = {("all", 0): None}
    box = shapely.box(*part.bounds)
    for kind, polygons in job.zones.items():
        here = [(shape, number) for number, wkb in polygons if (shape := shapely.from_wkb(wkb)).intersects(box)]
        if here:
            numbers = rasterize(here, out_shape=part.shape, transform=Affine(*part.transform), dtype="int32")
            found |= {(kind, int(n)): numbers == n for n in np.unique(numbers) if n}
    return found


def _count(
    block: _Block, kept: NDArray[np.bool_], same: NDArray[np.bool_], inside: NDArray[np.bool_] | None
) -> ZoneChange:
    within = np.ones(same.shape, np.bool_) if inside is None else inside
    figures, classes = np.zeros((2, 5), np.int64), np.zeros((2, CLASSES, CLASSES), np.int64)
    for at, imagery in enumerate((~same, same)):
        sure = within & imagery & block.sure
        p, q = block.p[sure].astype(np.int64), block.q[sure].astype(np.int64)
        changed = sure & kept
        pairs = block.before[changed].astype(np.int64) * CLASSES + block.after[changed]
        classes[at] = np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
        figures[at] = (
            len(p),
            np.count_nonzero(block.differ & sure),
            np.count_nonzero(changed),
            (255**2 - p * q).sum(),
            (255 * np.abs(p - q)).sum(),
        )
    return ZoneChange(figures, classes, int(np.count_nonzero(within & block.known & ~block.sure)))
