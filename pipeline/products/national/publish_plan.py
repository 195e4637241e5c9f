"""Plans a publish: the domains behind each shard, and the shards that differ from the current edition.

Nothing is written here, and no pixel is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from pipeline.domain import Domain
from pipeline.errors import ProductError
from pipeline.fingerprint import digest
from pipeline.grid import Tile, Window
from pipeline.legend import LAYERS, NODATA, Layer
from pipeline.products.manifest import BOTH
from pipeline.products.national.edition_record import (
    FAILED,
    MAPPED,
    MISSING,
    OUTSIDE,
    STORE_LAYERS,
    Edition,
    damaged_files,
    next_number,
    parent_edition,
)
from pipeline.products.national.grid import GridIndex, NationalGrid, present_files
from pipeline.products.national.ownership import Claim, possible_owners
from pipeline.products.tile.seal import SealedTile

STORE_VERSION = 2
"""Raised by hand when the same tiles give other bytes or metadata: every shard is then written again."""
EXTRAS_VERSION = 4
"""Raised by hand when files beside the store change for the same tiles: a new edition is then made, whose shards are
links."""

_RECORDS = frozenset({"edition.json", BOTH})
"""Without these, nothing that a parent has can be trusted."""
_WORST_LAST = (OUTSIDE, MAPPED, MISSING, FAILED)


@dataclass(frozen=True)
class DomainProduct:
    """A domain to publish: its expected tiles, its sealed tiles, and where it may own pixels."""

    name: Domain
    """`D064_2021`."""
    boundary: BaseGeometry | None
    """The département's polygon in the lattice's CRS; None if none was given."""
    sealed: tuple[SealedTile, ...]
    """Its sealed tiles that are up to date; those that are not expected are left out of the nation."""
    expected: tuple[str, ...]
    """Names of the tiles in its input catalog."""
    failed: frozenset[str] = frozenset()
    """Names of expected tiles that could not be mapped."""
    damaged: tuple[str, ...] = ()
    """A sentence for each tile whose item cannot be read. It is published as missing."""
    about: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """More JSON-able fields for its row in the store's table: campaign, weights, attribution, days, …"""

    @cached_property
    def sealed_by_tile(self) -> Mapping[Tile, SealedTile]:
        """Tile → its sealed tile, of `sealed`."""
        return {sealed.tile: sealed for sealed in self.sealed}

    @property
    def shown(self) -> tuple[SealedTile, ...]:
        """The sealed tiles that the nation shows: not those that failed since, nor those that left the delivery."""
        wanted = frozenset(self.expected) - self.failed
        return tuple(s for s in self.sealed if s.tile.name in wanted)


@dataclass(frozen=True)
class ShardCandidate:
    """A domain that was delivered with a shard's tile: its claim on the shard, and its sealed tile."""

    domain: Domain
    claim: Claim | None
    """Cut to the shard; None where its polygon lies elsewhere. It can still fill gaps in the imagery of owners."""
    owns: bool
    """False where claims of smaller rank cover its whole claim."""
    sealed: SealedTile | None
    """Its tile around the shard; None where that failed or is missing, and where nothing of it can be shown."""

    @property
    def inputs(self) -> dict[str, Any]:
        """What a shard's bytes depend on, as JSON-able content."""
        boundary = self.claim and self.claim.boundary
        return {
            "code": self.domain.code,
            # In millimetres, so that another GEOS, whose last digits differ, rewrites nothing.
            "boundary": None if boundary is None else shapely.to_wkt(boundary, rounding_precision=3),
            "windows": [astuple(self.claim.window)] if self.claim else [],
            "files": self.sealed and [f.sha256 for f in self.sealed.files],
        }


@dataclass(frozen=True)
class ShardPlan:
    """All that one shard depends on; small enough to send to a worker."""

    index: GridIndex
    window: Window
    candidates: tuple[ShardCandidate, ...]
    """First those that may own a pixel, in order of rank, then other claims, then those without one. May be empty."""

    @property
    def digest(self) -> str:
        """Hash of all that the shard's bytes and tally depend on."""
        candidates = [candidate.inputs for candidate in self.candidates]
        return digest({"version": STORE_VERSION, "window": astuple(self.window), "candidates": candidates})


@dataclass(frozen=True)
class Target:
    """The edition that is being written: what a worker needs besides the shard."""

    store: Path
    """The Zarr under its temporary name."""
    grid: NationalGrid
    former: Path | None
    """The current edition's Zarr where it has the same grid: shards with equal bytes become links to it."""
    layers: tuple[Layer, ...] = LAYERS
    """Layers that have coarser levels. Class shares are counted only where all layers are there."""


@dataclass(frozen=True, eq=False)
class EditionPlan:
    """The next edition: its content, and which shards are new."""

    national: Path
    grid: NationalGrid
    number: int
    parent: Edition | None
    """The current edition, whose unchanged shards are linked."""
    domains: tuple[Mapping[str, Any], ...]
    """The domain table, by code."""
    coverage: NDArray[np.uint8]
    """uint8 (tile_y, tile_x): 0 outside, 1 mapped, 2 failed, 3 missing."""
    unclaimed: int
    """Delivered tiles that no polygon covers."""
    undelivered_km2: Mapping[str, float]
    """Domain → area of its polygon outside its tiles, if there is any."""
    write: tuple[ShardPlan, ...]
    """Shards whose inputs changed, in order of their index; their bytes may come out the same."""
    link: tuple[GridIndex, ...]
    """Shards that are the same as in the parent."""
    drop: tuple[GridIndex, ...]
    """Shards of the parent in which no domain has a tile any more."""
    digests: Mapping[GridIndex, str]
    """All shards of the edition, with their digest."""
    damaged: frozenset[str] = frozenset()
    """Paths of the parent's files that differ from its manifest. They are written again, not linked."""

    @property
    def metadata(self) -> str:
        """Hash of the edition's content besides shards and their tallies."""
        claims = {"unclaimed": self.unclaimed, "undelivered_km2": dict(self.undelivered_km2)}
        domains, coverage = [dict(d) for d in self.domains], self.coverage.tobytes().hex()
        return digest([STORE_VERSION, EXTRAS_VERSION, domains, coverage, claims])

    @property
    def nothing_to_do(self) -> bool:
        """True where the current edition is already the planned one."""
        unchanged = self.parent is not None and self.parent.metadata == self.metadata
        return unchanged and not (self.write or self.drop or self.damaged)

    @property
    def staging(self) -> Path:
        """The edition's folder until it is committed."""
        return self.national / "editions" / f".{self.number:06d}.tmp"

    @property
    def target(self) -> Target:
        """The argument of `write_shard`."""
        return Target(self.staging / "product.zarr", self.grid, self.former and self.former / "product.zarr")

    @property
    def former(self) -> Path | None:
        """The current edition's folder, where it has the same grid, and a record and manifest that can be trusted."""
        usable = self.parent is not None and self.parent.grid == self.grid and not self.damaged & _RECORDS
        return self.parent.path if self.parent is not None and usable else None


def plan_edition(
    national: Path, grid: NationalGrid, domains: Sequence[DomainProduct], *, recheck: bool = False
) -> EditionPlan:
    """Plans an edition of exactly these domains against the current edition.

    The order of the domains does not matter. A domain of the current edition that is not given leaves the nation.
    Lost shards of the current edition, and those that differ from its manifest, are written again.

    Args:
        national: the product's folder.
        grid: of the edition.
        domains: its domains.
        recheck: reads all files of the current edition to find the damaged ones. Otherwise only those whose size or
            time of the last change differs from the manifest.

    Raises:
        ProductError: a domain is given twice, a tile lies outside the extent or on another lattice, or the current
            edition is damaged.
    """
    codes = [d.name.code for d in domains]
    if len(set(codes)) != len(codes):
        raise ProductError(f"a domain is given twice: {', '.join(sorted(d.name for d in domains))}")
    coverage: NDArray[np.uint8] = np.full(grid.tiles_shape, OUTSIDE, np.uint8)
    shards: list[ShardPlan] = []
    tiles = _by_tile(grid, domains)
    for tile in sorted(tiles, key=grid.tile_index):
        coverage[grid.tile_index(tile)], planned = _plan_tile(grid, tile, tiles[tile])
        shards += planned
    digests = {s.index: s.digest for s in shards}
    parent = parent_edition(national)
    damaged = frozenset(damaged_files(parent, read_all=recheck) if parent else ())
    kept = _reusable(parent, grid, digests, damaged)
    return EditionPlan(
        national=national,
        grid=grid,
        number=next_number(national),
        parent=parent,
        domains=tuple(
            {**d.about, "code": d.name.code, "name": d.name, "year": d.name.year}
            for d in sorted(domains, key=lambda d: d.name.code)
        ),
        coverage=coverage,
        unclaimed=sum(bool(coverage[grid.tile_index(tile)] == OUTSIDE) for tile in tiles),
        undelivered_km2={d.name: km2 for d in sorted(domains, key=lambda d: d.name) if (km2 := _undelivered(d, grid))},
        write=tuple(s for s in shards if s.index not in kept),
        link=tuple(sorted(kept)),
        drop=tuple(sorted((parent.digests.keys() if parent else set()) - digests.keys())),
        digests=digests,
        damaged=damaged,
    )


def _undelivered(domain: DomainProduct, grid: NationalGrid) -> float:
    """Square kilometres of a domain's polygon outside its tiles, rounded to the hectare."""
    if domain.boundary is None:
        return 0.0
    delivered = shapely.union_all([shapely.box(*Tile.named(name, grid.tile).window.bounds) for name in domain.expected])
    return float(round(domain.boundary.difference(delivered).area / 1e6, 2))


def _by_tile(grid: NationalGrid, domains: Sequence[DomainProduct]) -> dict[Tile, list[DomainProduct]]:
    """The domains that were delivered with each tile."""
    found: dict[Tile, list[DomainProduct]] = {}
    for domain in domains:
        if domain.boundary is not None:
            shapely.prepare(domain.boundary)
        for name in sorted(set(domain.expected)):
            found.setdefault(Tile.named(name, grid.tile), []).append(domain)
    return found


def _plan_tile(grid: NationalGrid, tile: Tile, here: Sequence[DomainProduct]) -> tuple[int, list[ShardPlan]]:
    """Coverage of a tile, and its shards; no shards where no domain's polygon covers any of the tile.

    All shards of a covered tile are planned, also those in which nobody owns a pixel, so that coverage alone decides
    which files must exist.
    """
    claims = {d.name: Claim(d.name, d.boundary, tile.window).within(tile.window) for d in here}
    owning = possible_owners(tile.window, [c for c in claims.values() if c])
    if not owning:
        return OUTSIDE, []
    usable = {d.name: _usable(d, tile, grid.crs) for d in here}
    state = max((usable[c.domain][1] for c in owning), key=_WORST_LAST.index)
    candidates = [ShardCandidate(d.name, claims[d.name], owns=False, sealed=usable[d.name][0]) for d in here]
    return state, [_plan_shard(grid, shard, candidates) for shard in grid.shards_of(grid.tile_index(tile))]


def _plan_shard(grid: NationalGrid, index: GridIndex, of_tile: Sequence[ShardCandidate]) -> ShardPlan:
    """A shard with only what it depends on: tiles that cannot be shown in it are left out."""
    window = grid.shard_window(index)
    claims = {c.domain: claim for c in of_tile if c.claim and (claim := c.claim.within(window))}
    owning = {c.domain for c in possible_owners(window, claims.values())}
    here = [replace(c, claim=claims.get(c.domain), owns=c.domain in owning) for c in of_tile]
    # Gaps in an owner's imagery are known for the whole tile only; without gaps nobody can fill any.
    if not any(c.owns and c.sealed and c.sealed.class_pixels.get(NODATA, 0) for c in here):
        here = [c if c.owns else replace(c, sealed=None) for c in here]
    kept = [c for c in here if c.claim or c.sealed]
    return ShardPlan(index, window, tuple(sorted(kept, key=_place)))


def _place(candidate: ShardCandidate) -> tuple[Any, ...]:
    rank = candidate.claim.rank if candidate.claim else (False, -candidate.domain.year, candidate.domain)
    return (not candidate.owns, candidate.claim is None, *rank)


def _usable(domain: DomainProduct, tile: Tile, crs: str) -> tuple[SealedTile | None, int]:
    """The domain's sealed tile, and its coverage; a failed tile is not used even if an older one is on disk."""
    if tile.name in domain.failed:
        return None, FAILED
    sealed = domain.sealed_by_tile.get(tile)
    if sealed is None:
        return None, MISSING
    if sealed.crs != crs:
        raise ProductError(
            f"{sealed.item_path}: is in {sealed.crs}; expected the nation's lattice, {crs}; run the campaign again"
        )
    return sealed, MAPPED


def _reusable(
    parent: Edition | None, grid: NationalGrid, digests: Mapping[GridIndex, str], damaged: frozenset[str]
) -> set[GridIndex]:
    """Shards that the parent has with the same digest, a tally and all files as they were written."""
    if parent is None or parent.grid != grid or damaged & _RECORDS:
        return set()
    there = set.intersection(*(present_files(parent.store / layer / "c") for layer in STORE_LAYERS))
    there &= parent.tallies.keys()
    store = parent.store.name
    there -= {(r, c) for r, c in there if damaged & {f"{store}/{layer}/c/{r}/{c}" for layer in STORE_LAYERS}}
    return {index for index, digest in digests.items() if parent.digests.get(index) == digest and index in there}
