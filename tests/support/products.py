"""Small products in the lattice around (600 km, 6890 km), and the plainest code that makes them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.domain import Domain
from pipeline.grid import Tile, Window
from pipeline.halo import Layout
from pipeline.products.national.edition_writer import begin, commit, remove_abandoned
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.publish_plan import DomainProduct, EditionPlan, plan_edition
from pipeline.products.national.shard_writer import write_shard
from pipeline.products.tile.seal import SealedTile, seal
from pipeline.products.tile.stac_item import Provenance

LIVE = tuple(range(1, 13))
TILE = 200
"""Pixels: 40 m, so tiles are named in decametres."""
NORTH, WEST = -6_890_000 * 5, 600_000 * 5
GRID = NationalGrid(extent=Window(NORTH, WEST, 3 * TILE, 4 * TILE), tile=TILE, shard=100, chunk=50)

PROVENANCE = Provenance(
    campaign="trial",
    weights="weights.pth",
    weights_sha256="ab" * 32,
    recipe="small",
    engine="torch",
    precision="fp32",
    engine_threads=2,
    layout=Layout(),
    software=(("torch", "2.6"),),
    citation="A. Author, A paper",
    doi="10.1000/paper",
)


def tile_at(row: int, col: int, size: int = TILE) -> Tile:
    """The tile in this row and column of the grid."""
    return Tile.at(NORTH + row * size, WEST + col * size, size)


def stack_of(seed: int, size: int = TILE) -> NDArray[np.uint8]:
    """Patches of classes and any confidence, a strip without data: uint8 (layer, y, x)."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(1, 13, (-(-size // 10), -(-size // 10)), np.uint8).repeat(10, 0).repeat(10, 1)
    stack = np.stack([classes[:size, :size], rng.integers(20, 256, (size, size), np.uint8)])
    stack[:, : size // 20] = 0
    return stack


def sealed_at(
    folder: Path, tile: Tile, *, domain: Domain = Domain("D064_2021"), seed: int = 0, fingerprint: str = "f0"
) -> SealedTile:
    """Seals a tile of `stack_of(seed)`."""
    return seal(
        folder,
        domain=domain,
        tile=tile,
        stack=stack_of(seed, tile.window.height),
        fingerprint=fingerprint,
        live=LIVE,
        provenance=PROVENANCE,
        inputs=["../catalog/a.json"],
    )


def product(
    folder: Path,
    name: str,
    tiles: dict[Tile, int | None],
    *,
    boundary: object = None,
    failed: frozenset[str] = frozenset(),
) -> DomainProduct:
    """A domain whose tiles are sealed from these seeds; None is expected and not sealed."""
    domain = Domain(name)
    sealed = tuple(sealed_at(folder / name, t, domain=domain, seed=s) for t, s in tiles.items() if s is not None)
    return DomainProduct(
        name=domain,
        boundary=boundary,
        sealed=sealed,
        expected=tuple(t.name for t in tiles),
        failed=failed,
        about={"campaign": "trial"},
    )


def publish(
    national: Path, domains: list[DomainProduct], *, reverse: bool = False, recheck: bool = False
) -> EditionPlan:
    """Plan, begin, write every shard, commit."""
    remove_abandoned(national)
    plan = plan_edition(national, GRID, domains, recheck=recheck)
    if not plan.nothing_to_do:
        begin(plan)
        commit(plan, [write_shard(plan.target, s) for s in (reversed(plan.write) if reverse else plan.write)])
    return plan
