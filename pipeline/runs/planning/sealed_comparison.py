"""Compares sealed tiles with what the campaign would make today, and finds the reason to map a tile."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.domain import Domain
from pipeline.grid import Tile
from pipeline.products.tile.seal import SealedTile, matches, read_sealed

_THREADS = 16
"""They wait for a shared file system."""
_PART_NAMES = {
    "inputs": "inputs",
    "weights": "weights",
    "recipe": "recipe",
    "layout": "windows",
    "engine": "engine",
    "tile": "tile",
    "crs": "lattice",
    "version": "product version",
}
"""Part of a fingerprint → its name in a plan."""


def compare_with_sealed(
    folder: Path,
    domain: Domain,
    fingerprints: Mapping[Tile, str],
    *,
    force: bool,
    depends_on: Callable[[Tile], Mapping[str, str]],
) -> dict[Tile, tuple[SealedTile | None, str | None]]:
    """Reads the sealed tiles of a domain and decides which tiles are to be mapped.

    Args:
        folder: the domain's product.
        domain: `D064_2021`.
        fingerprints: tile → the fingerprint that it would have now.
        force: map all tiles again.
        depends_on: gives name → digest of each part of a tile's fingerprint.

    Returns:
        Tile → (the sealed tile if there is one, the reason to map it or None).

    Raises:
        ProductError: a sealed item is damaged.
    """

    def compare(tile: Tile) -> tuple[SealedTile | None, str | None]:
        sealed = read_sealed(folder, domain, tile)
        if sealed is None:
            return None, "not mapped yet"
        if sealed.fingerprint != fingerprints[tile]:
            return sealed, f"{_changed_parts(sealed.depends_on, depends_on(tile))} changed"
        if matches(sealed):
            return sealed, "files missing or damaged"
        return sealed, "forced" if force else None

    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(fingerprints, pool.map(compare, fingerprints), strict=True))


def _changed_parts(sealed: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`inputs and recipe`: the parts whose digest changed. Tiles of early releases do not record the parts."""
    changed = [name for part, name in _PART_NAMES.items() if sealed.get(part) != now.get(part)]
    return " and ".join(changed) if sealed else "inputs, weights, recipe or windows"
