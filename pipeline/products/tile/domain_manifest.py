"""The manifest of a domain's folder. A publish writes it; runs may replace the files of tiles, and `run.json`, later.

Such files need no manifest to be checked: an item and a run record have a checksum of their own, and an item has those
of its COGs. The manifest shows which of them are lost, and what a tile without a usable item had.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline.domain import Domain
from pipeline.errors import product_error
from pipeline.products.manifest import BOTH, changed_files, has_manifest, read_manifest, write_manifest
from pipeline.products.tile.seal import SealedTile, matches

RUN_FILE = "run.json"
_OF_TILE = re.compile(r"-([0-9]+-[0-9]+)(-\w+\.tif|\.json)")


def write_domain_manifest(folder: Path, domain: Domain, sealed: Sequence[SealedTile]) -> None:
    """Writes the manifest of a domain's tiles, its run record, and what a publish leaves beside them.

    COGs are not read: their checksums are in their items.

    Raises:
        ProductError: a file was removed meanwhile, such as by a run.
        StorageError: the folder cannot be written.
    """
    patterns = ("collection.json", "model-*.json", f"{domain}-*.gti.gpkg", f"{domain}-*.qml", "quicklook.png", RUN_FILE)
    names = {path.name for pattern in patterns for path in folder.glob(pattern)}
    known = {cog.path.name: cog.sha256 for tile in sealed if not matches(tile) for cog in tile.files}
    names |= known.keys() | {tile.item_path.name for tile in sealed}
    with product_error(f"{folder}: its manifest cannot be written; publish again"):
        write_manifest(folder, names, known=known)


def changed_beside(folder: Path, domain: Domain, *, read_all: bool, published: bool) -> dict[str, str]:
    """Path → problem of the files that a publish wrote beside the tiles, its manifest among them.

    Args:
        folder: of the domain's products.
        domain: `D064_2021`.
        read_all: as for `changed_files`.
        published: whether there must be a manifest: `Edition.sealed`.
    """
    if published and not has_manifest(folder):
        return {BOTH: "are missing"}
    manifest = read_manifest(folder)
    own = {name: f for name, f in manifest.files.items() if name != RUN_FILE and tile_of(name, domain) is None}
    return {**manifest.problems, **changed_files(folder, own, read_all=read_all)}


def lost_by_runs(folder: Path, domain: Domain, *, checked: Collection[str]) -> dict[str, str]:
    """Path → problem of a lost run record, and of the files of tiles that have no usable item.

    Args:
        folder: of the domain's products.
        domain: `D064_2021`.
        checked: names of the tiles with an item that can be read: their files are compared with it.
    """

    def wanted(name: str) -> bool:
        tile = tile_of(name, domain)
        return tile not in checked if tile else name == RUN_FILE and not (folder / name).is_file()

    files = {name: file for name, file in read_manifest(folder).files.items() if wanted(name)}
    return changed_files(folder, files, read_all=True)


def tile_of(name: str, domain: Domain) -> str | None:
    """`0595-6890` for the item or a COG of this tile; None for any other file."""
    match = _OF_TILE.fullmatch(name.removeprefix(domain))
    return match[1] if match and name.startswith(domain) else None
