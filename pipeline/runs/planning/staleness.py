"""Why a tile is to be mapped: what stands sealed of it, against what the campaign asks for today."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.domain import Domain
from pipeline.grid import Tile
from pipeline.products.tile.seal import SealedTile, matches, read_sealed

_LOOKERS = 16
"""Threads that wait for a shared file system."""
_CALLED = {
    "inputs": "inputs",
    "weights": "weights",
    "recipe": "recipe",
    "layout": "windows",
    "engine": "engine",
    "tile": "tile",
    "crs": "lattice",
    "version": "product version",
}
"""What a fingerprint covers, in the words of a plan."""


def looked_at(
    folder: Path,
    domain: Domain,
    today: Mapping[Tile, str],
    *,
    force: bool,
    depends_on: Callable[[Tile], Mapping[str, str]],
) -> dict[Tile, tuple[SealedTile | None, str | None]]:
    """What stands sealed of each tile, and why it is to be mapped, if it is.

    Args:
        folder: the domain's products.
        domain: `D064_2021`.
        today: tile → the fingerprint that it would have now.
        force: map every tile again.
        depends_on: gives name → digest of each thing that a tile's fingerprint covers now.

    Raises:
        ProductError: a sealed item that is damaged.
    """

    def look(tile: Tile) -> tuple[SealedTile | None, str | None]:
        sealed = read_sealed(folder, domain, tile)
        if sealed is None:
            return None, "not mapped yet"
        if sealed.fingerprint != today[tile]:
            return sealed, f"{_changed(sealed.depends_on, depends_on(tile))} changed"
        if matches(sealed):
            return sealed, "files missing or damaged"
        return sealed, "forced" if force else None

    with ThreadPoolExecutor(_LOOKERS) as pool:
        return dict(zip(today, pool.map(look, today), strict=True))


def _changed(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`inputs and recipe`: what has another digest now; tiles sealed by earlier releases do not say."""
    changed = [called for name, called in _CALLED.items() if then.get(name) != now.get(name)]
    return " and ".join(changed) if then else "inputs, weights, recipe or windows"
