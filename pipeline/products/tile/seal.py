"""Seals a tile: its COGs are written first and its STAC item last, and a tile exists when its item does.

`seal` removes the old item before it replaces the COGs, so an item never lies beside files of another run. A killed
run leaves no item, and the tile is mapped again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, Field

from pipeline import legend
from pipeline.domain import Domain
from pipeline.durable import sync, write_json
from pipeline.errors import GridError, LandcoverError, ProductError, product_error
from pipeline.geobox import lattice_geobox
from pipeline.grid import CRS, Tile, Window
from pipeline.legend import LAYERS, Layer
from pipeline.products.tile.cog import FileFacts, write_cog
from pipeline.products.tile.stac_item import Provenance, build_item, reading_item
from pipeline.stac_fields import sha256_of
from pipeline.untrusted.documents import Document, read_model
from pipeline.untrusted.own_checksum import read_checked
from pipeline.untrusted.own_files import own_entries

STRIP_ROWS = 1024
"""Rows that are counted at once: numpy makes copies of eight bytes a pixel."""

_KEYS = frozenset(
    "type stac_version stac_extensions id geometry bbox properties links assets collection".split()  # noqa: SIM905
)
"""Keys at the top of items of older versions, which have no checksum of their own."""


@dataclass(frozen=True)
class SealedTile:
    """A sealed tile, as its item describes it."""

    domain: Domain
    tile: Tile
    fingerprint: str
    """Hash of all that the bytes depend on."""
    files: tuple[FileFacts, ...]
    """The COGs in the order of `LAYERS`, with their size and checksum when they were sealed."""
    class_pixels: Mapping[int, int] = field(hash=False)
    """FLAIR value → pixels, 0 (no data) included."""
    item_path: Path
    crs: str = CRS
    """`EPSG:…` of the tile's lattice."""
    depends_on: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Name → digest of each part of the fingerprint; empty in items of older versions."""
    switched_off: int | None = None
    """Pixels with data where a class that is switched off would have won; None where this was not counted."""
    novelty: float | None = None
    """How unlike the training imagery the tile's is: above 1 it is out of distribution. None where not scored."""
    novelty_fingerprint: str = ""
    """Of the map's fingerprint and the reference of the score; empty where it was mapped without a reference."""

    def file(self, layer: Layer) -> FileFacts:
        """The COG of this layer."""
        return self.files[LAYERS.index(layer)]


class _Link(Document):
    rel: str
    href: str


class _Class(Document):
    value: int = Field(ge=0, le=255)


class _Asset(Document):
    href: str = Field(pattern=r"^(\./)?[\w.-]+$")
    size: int = Field(alias="file:size", ge=0)
    checksum: str = Field(alias="file:checksum")
    classes: tuple[_Class, ...] = Field(default=(), alias="classification:classes")


class _Properties(Document):
    domain: str = Field(alias="landcover:domain")
    tile: str = Field(alias="landcover:tile")
    shape: tuple[int, int] = Field(alias="proj:shape")
    crs: str = Field(alias="proj:code")
    fingerprint: str = Field(alias="landcover:fingerprint")
    class_pixels: dict[Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=1 << 40)]] = Field(
        alias="landcover:class_pixels"
    )
    depends_on: dict[str, str] = Field(default={}, alias="landcover:depends_on")
    switched_off: int | None = Field(default=None, ge=0, alias="landcover:switched_off_pixels")
    novelty: float | None = Field(default=None, ge=0, alias="landcover:novelty")
    novelty_fingerprint: str = Field(default="", alias="landcover:novelty_fingerprint")
    start: AwareDatetime = Field(alias="start_datetime")
    end: AwareDatetime = Field(alias="end_datetime")
    licence: str = Field(alias="license")
    attribution: str = Field(default="", alias="landcover:attribution")
    recipe: str = Field(alias="landcover:recipe")
    weights: str = Field(alias="landcover:weights")
    weights_sha256: str = Field(alias="landcover:weights_sha256", pattern=r"^\w+$")
    layout: dict[str, int] = Field(alias="landcover:layout")


class _Item(Document):
    """What is read of a tile's item, here and to publish it."""

    id: str
    bbox: tuple[float, float, float, float]
    links: tuple[_Link, ...]
    properties: _Properties
    assets: dict[str, _Asset]


def stem(domain: Domain, tile: Tile) -> str:
    """How the names of a tile's files start: `D064_2021-0595-6890`."""
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
    switched_off: int | None = None,
) -> SealedTile:
    """Writes a tile's COGs, then its item.

    Args:
        folder: of the domain's products; created if missing.
        domain: `D064_2021`.
        tile: name and window.
        stack: uint8 (layer, y, x): land cover (FLAIR values of `live`, 0 no data), then confidence
            (1..255, and 0 exactly where land cover is 0).
        fingerprint: hash of all that the bytes depend on.
        live: FLAIR values that may occur.
        provenance: how the tile was mapped.
        inputs: hrefs of the input items.
        crs: `EPSG:…` of the lattice.
        switched_off: pixels with data where a class that is switched off would have won; None where not counted.

    Returns:
        The sealed tile.

    Raises:
        ProductError: the stack breaks these rules, or the folder cannot be written. The tile is then not sealed.
    """
    name = stem(domain, tile)
    class_pixels, confidence_sum = _checked_counts(stack, name=name, tile=tile, live=live)
    item_path = folder / f"{name}.json"
    _unseal(item_path, domain, tile)
    tags = provenance.tags() | {"domain": domain, "tile": tile.name, "fingerprint": fingerprint}
    files = tuple(
        write_cog(
            folder / f"{name}-{layer}.tif",
            stack[index],
            layer=layer,
            geobox=lattice_geobox(tile.window, crs),
            live=live,
            tags=tags,
        )
        for index, layer in enumerate(LAYERS)
    )
    depends_on = dict(provenance.depends_on)
    sealed = SealedTile(
        domain,
        tile,
        fingerprint,
        files,
        class_pixels,
        item_path,
        crs,
        depends_on,
        switched_off,
        provenance.novelty,
        provenance.novelty_fingerprint,
    )
    item = build_item(sealed, confidence_sum=confidence_sum, live=live, provenance=provenance, inputs=inputs)
    write_json(item_path, item, own_checksum=True)
    return sealed


def _unseal(item_path: Path, domain: Domain, tile: Tile) -> None:
    """Creates the folder, and removes the tile's old item and unfinished files."""
    folder = item_path.parent
    with product_error(f"{folder}: tile {tile.name} of {domain} cannot be sealed there"):
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder, domain, tile)
        if item_path.exists():
            item_path.unlink()
            sync(folder)


def remove_unfinished(folder: Path, domain: Domain, tile: Tile | None = None) -> tuple[Path, ...]:
    """Removes the temporary files that this user's killed runs left of one tile of a domain, or of all.

    Other temporary files stay: a publish, which may be running, writes index, style and catalog to the same folder.

    Args:
        folder: of the domain's products; the caller owns its lock.
        domain: `D064_2021`.
        tile: of the domain; None for all.

    Returns:
        The files removed.
    """
    name = r"[0-9]+-[0-9]+" if tile is None else tile.name
    found = tuple(own_entries(folder, pattern=rf"\.{re.escape(domain)}-{name}[-.].*\.tmp", kind="file"))
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
    """Class counts and the sum of confidence; raises ProductError where a stack breaks the rules of `seal`."""
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
                f"{name}: confidence must be 0 exactly where land cover is no data; row {strip.row + row}, column "
                f"{col} has class {landcover[row, col]} with confidence {confidence[row, col]}"
            )
    class_pixels = as_class_pixels(counts)
    if alien := sorted(class_pixels.keys() - {legend.NODATA, *live}):
        raise ProductError(f"{name}: classes {alien} occur; expected only 0 and {list(live)}")
    return class_pixels, confidence_sum


def read_sealed(folder: Path, domain: Domain, tile: Tile, *, own_checksum: bool = True) -> SealedTile | None:
    """The tile as its item describes it, or None where it has no item. `matches` looks at the COGs.

    Args:
        folder: of the domain's products.
        domain: `D064_2021`.
        tile: name and window.
        own_checksum: compare the item with the checksum in it; False to find out what was changed.

    Raises:
        ProductError: the item cannot be read, lacks a field or belongs to another tile.
    """
    path = folder / f"{stem(domain, tile)}.json"
    with reading_item(path):
        try:
            item = read_checked(_Item, path, former=_KEYS) if own_checksum else read_model(_Item, path)
            return _from_item(item, path, domain, tile)
        except FileNotFoundError:
            return None


def _from_item(item: _Item, path: Path, domain: Domain, tile: Tile) -> SealedTile:
    about = item.properties
    found, pixels = (about.domain, about.tile), sum(about.class_pixels.values())
    if found != (domain, tile.name) or about.shape != tile.window.shape or pixels != tile.window.pixels:
        raise ValueError(
            f"expected {domain} {tile.name} of {tile.window.shape} px, got {found} of {about.shape} px with {pixels} "
            "counted"
        )
    files = []
    for layer in LAYERS:
        asset, name = item.assets[layer], f"{path.stem}-{layer}.tif"
        if asset.href.removeprefix("./") != name:
            raise ValueError(f"expected {name} as {layer}, got {asset.href}")
        files.append(FileFacts(path.with_name(name), asset.size, sha256_of(asset.checksum)))
    return SealedTile(
        domain,
        tile,
        about.fingerprint,
        tuple(files),
        about.class_pixels,
        path,
        about.crs,
        about.depends_on,
        about.switched_off,
        about.novelty,
        about.novelty_fingerprint,
    )


def list_sealed(folder: Path, domain: Domain, tile_size: int) -> tuple[SealedTile, ...]:
    """The sealed tiles of a domain in order of their names; empty if the folder is missing.

    Raises:
        ProductError: a damaged item, or one of another tile size.
        GridError: an item's name is not that of a tile of `tile_size` pixels.
    """
    sealed, damaged = list_readable(folder, domain, tile_size)
    if damaged:
        raise next(iter(damaged.values()))
    return sealed


def list_readable(
    folder: Path, domain: Domain, tile_size: int
) -> tuple[tuple[SealedTile, ...], dict[str, LandcoverError]]:
    """The sealed tiles of a domain in order of their names, and name → error of those with a damaged item."""
    sealed: list[SealedTile] = []
    damaged: dict[str, LandcoverError] = {}
    for name in sorted(p.stem.removeprefix(f"{domain}-") for p in folder.glob(f"{domain}-[0-9]*-[0-9]*.json")):
        try:
            found = read_sealed(folder, domain, Tile.named(name, tile_size))
        except (ProductError, GridError) as error:
            damaged[name] = error
        else:
            sealed += [found] if found else []
    return tuple(sealed), damaged


def matches(sealed: SealedTile) -> list[str]:
    """Problems that names and sizes show: COGs that are missing or of another size. Empty if there are none."""
    problems = []
    for facts in sealed.files:
        try:
            size = facts.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            problems.append(f"{facts.path}: missing; {sealed.item_path.name} lists it")
        else:
            if size != facts.size:
                problems.append(f"{facts.path}: {size} bytes, expected the {facts.size} of {sealed.item_path.name}")
    return problems
