"""The tile is the transaction: its COGs are written first, its STAC item last.

A tile exists when its item does. `seal` removes an older item before it replaces the files, so an
item never stands beside files that are not its own; a killed run leaves no item, and the tile is made
again.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.domain import Domain
from pipeline.durable import sync, write_json
from pipeline.errors import ProductError
from pipeline.geobox import lattice_geobox
from pipeline.grid import CRS, Tile, Window
from pipeline.legend import LAYERS, Layer
from pipeline.products.tile.cog import FileFacts, remove_stray, write_cog
from pipeline.products.tile.stac_item import Provenance, build_item, reading_item
from pipeline.stac_fields import sha256_of

STRIP_ROWS = 1024
"""Rows looked at once: numpy's counting makes copies of eight bytes a pixel."""


@dataclass(frozen=True)
class SealedTile:
    """A tile that exists, as its item says."""

    domain: Domain
    tile: Tile
    fingerprint: str
    """Of all that the bytes depend on."""
    files: tuple[FileFacts, ...]
    """The COGs in the order of `LAYERS`, with the size and checksum that they were sealed with."""
    class_pixels: Mapping[int, int] = field(hash=False)
    """FLAIR value → pixels, 0 (no data) included."""
    item_path: Path
    crs: str = CRS
    """`EPSG:…` of the lattice on which the tile lies."""
    depends_on: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Name → digest of each thing that the fingerprint covers; empty where the item does not say."""

    def file(self, layer: Layer) -> FileFacts:
        """The COG of this layer."""
        return self.files[LAYERS.index(layer)]


def stem(domain: Domain, tile: Tile) -> str:
    """What the names of a tile's files start with: `D064_2021-0595-6890`."""
    return f"{domain}-{tile.name}"


def seal(
    folder: Path,
    *,
    domain: Domain,
    tile: Tile,
    stack: NDArray[np.uint8],
    fingerprint: str,
    live: tuple[int, ...],
    provenance: Provenance,
    inputs: Sequence[str],
    crs: str = CRS,
) -> SealedTile:
    """Writes a tile's COGs, then the item that makes it exist.

    Args:
        folder: the domain's products; made where missing.
        domain: `D064_2021`.
        tile: where it lies.
        stack: uint8 (layer, y, x): land cover (FLAIR values of `live`, 0 no data), then confidence
            (1..255, and 0 exactly where land cover is 0).
        fingerprint: of all that the bytes depend on.
        live: FLAIR values that may appear.
        provenance: how it was made.
        inputs: hrefs of what it was made from.
        crs: `EPSG:…` of the lattice.

    Returns:
        The sealed tile.

    Raises:
        ProductError: a stack that is not what it must be, or a folder that cannot be written. Nothing of
            the tile is then sealed.
    """
    name = stem(domain, tile)
    class_pixels, confidence_sum = _checked_counts(stack, name=name, tile=tile, live=live)
    item_path = folder / f"{name}.json"
    _unseal(item_path, name)
    tags = provenance.tags() | {"domain": domain, "tile": tile.name, "fingerprint": fingerprint}
    files = {
        layer: write_cog(
            folder / f"{name}-{layer}.tif",
            stack[index],
            layer=layer,
            geobox=lattice_geobox(tile.window, crs),
            live=live,
            tags=tags,
        )
        for index, layer in enumerate(LAYERS)
    }
    content = build_item(
        domain=domain,
        tile=tile,
        crs=crs,
        fingerprint=fingerprint,
        files=files,
        class_pixels=class_pixels,
        confidence_sum=confidence_sum,
        live=live,
        provenance=provenance,
        inputs=inputs,
    )
    write_json(item_path, content)
    depends_on = dict(provenance.depends_on)
    return SealedTile(domain, tile, fingerprint, tuple(files.values()), class_pixels, item_path, crs, depends_on)


def _unseal(item_path: Path, name: str) -> None:
    """Makes the folder, clears what a killed run left of this tile, and removes its older item for good."""
    folder = item_path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_stray(folder, name)
        if item_path.exists():
            item_path.unlink()
            sync(folder)
    except OSError as error:
        raise ProductError(f"{folder}: tile {name} cannot be sealed there: {error.strerror or error}") from error


def remove_unfinished(folder: Path, domain: Domain) -> tuple[Path, ...]:
    """Removes what killed runs left of a domain's tiles; temporary files of other writers stay.

    A run's lock is about tiles only: index, style and catalogue beside them are a publish's, which may be at work.

    Args:
        folder: the domain's products, held by who calls.
        domain: `D064_2021`.

    Returns:
        The files removed.
    """
    of_a_tile = re.compile(rf"\.{re.escape(domain)}-\d+-\d+[-.].*\.tmp")
    found = tuple(sorted(p for p in folder.glob(f".{domain}-*") if of_a_tile.fullmatch(p.name)))
    for path in found:
        path.unlink(missing_ok=True)
    return found


def count_values(strip: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels of each value 0..255 in a uint8 array of any shape: int64 (256,)."""
    return np.bincount(strip.ravel(), minlength=256)


def as_class_pixels(counts: NDArray[np.int64]) -> dict[int, int]:
    """Value → pixels for the values that occur, and always for 0."""
    return {value: int(n) for value, n in enumerate(counts) if n or value == legend.NODATA}


def _checked_counts(
    stack: NDArray[np.uint8], *, name: str, tile: Tile, live: tuple[int, ...]
) -> tuple[dict[int, int], int]:
    """Class counts, and the sum of the confidence, of a stack that is what `seal` promises to write."""
    expected = (len(LAYERS), *tile.window.shape)
    if stack.dtype != np.uint8 or stack.shape != expected:
        raise ProductError(
            f"{name}: expected a uint8 stack (layer, y, x) of shape {expected}, got {stack.dtype} {stack.shape}"
        )
    counts, confidence_sum = np.zeros(256, np.int64), 0
    for strip in Window(0, 0, *tile.window.shape).strips(STRIP_ROWS):
        landcover, confidence = stack[:, *strip.slices]
        counts += count_values(landcover)
        confidence_sum += int(confidence.sum(dtype=np.int64))
        unlike = (landcover == legend.NODATA) != (confidence == 0)
        if unlike.any():
            row, col = (int(i) for i in np.argwhere(unlike)[0])
            raise ProductError(
                f"{name}: confidence is 0 exactly where land cover is no data; at row {strip.row + row}, column {col} "
                f"there is class {landcover[row, col]} with confidence {confidence[row, col]}"
            )
    class_pixels = as_class_pixels(counts)
    if alien := sorted(class_pixels.keys() - {legend.NODATA, *live}):
        raise ProductError(f"{name}: classes {alien} appear, and only 0 and {list(live)} may")
    return class_pixels, confidence_sum


def read_sealed(folder: Path, domain: Domain, tile: Tile) -> SealedTile | None:
    """The tile as its item says, or None where it has no item. The COGs are not looked at: see `matches`.

    Raises:
        ProductError: the item cannot be read, lacks a field or belongs to another tile.
    """
    path = folder / f"{stem(domain, tile)}.json"
    with reading_item(path):
        try:
            content = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _from_item(content, path, domain, tile)


def _from_item(content: Mapping[str, Any], path: Path, domain: Domain, tile: Tile) -> SealedTile:
    properties = content["properties"]
    said = (properties["landcover:domain"], properties["landcover:tile"])
    if said != (domain, tile.name) or tuple(properties["proj:shape"]) != tile.window.shape:
        raise ValueError(
            f"expected {domain} {tile.name} of {tile.window.shape} px, got {said} of {properties['proj:shape']} px"
        )
    files = []
    for layer in LAYERS:
        asset = content["assets"][layer]
        # Files stand beside their item; a path in an href is not followed.
        files.append(FileFacts(path.with_name(Path(asset["href"]).name), int(asset["file:size"]), sha256_of(asset)))
    counts = {int(value): int(n) for value, n in properties["landcover:class_pixels"].items()}
    fingerprint, crs = str(properties["landcover:fingerprint"]), str(properties["proj:code"])
    depends_on = {str(name): str(digest) for name, digest in properties.get("landcover:depends_on", {}).items()}
    return SealedTile(domain, tile, fingerprint, tuple(files), counts, path, crs, depends_on)


def list_sealed(folder: Path, domain: Domain, tile_size: int) -> tuple[SealedTile, ...]:
    """The sealed tiles of a domain in order of their names; none where there is no folder.

    Raises:
        ProductError: a damaged item, or one of another tile size.
        GridError: an item's name is no tile of `tile_size` pixels.
    """
    name = re.compile(rf"{re.escape(domain)}-(\d+-\d+)\.json")
    found = sorted(m[1] for m in (name.fullmatch(p.name) for p in folder.glob(f"{domain}-*.json")) if m)
    sealed = (read_sealed(folder, domain, Tile.named(n, tile_size)) for n in found)
    return tuple(s for s in sealed if s is not None)


def matches(sealed: SealedTile) -> list[str]:
    """What a cheap look finds wrong: files that are missing or of another size. Empty where none is."""
    problems = []
    for facts in sealed.files:
        if not facts.path.is_file():
            problems.append(f"{facts.path}: missing, though {sealed.item_path.name} promises it")
        elif (size := facts.path.stat().st_size) != facts.size:
            problems.append(f"{facts.path}: {size} bytes, expected the {facts.size} of {sealed.item_path.name}")
    return problems
