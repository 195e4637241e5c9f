"""The layer on disk, its record, and which of its tiles a change of the edition can reach.

::

    <edition>/generalised/landcover.zarr     `landcover` (y, x) in the shards of level 0, `y`, `x`, `spatial_ref`
    <edition>/generalised/pyramid.zarr       coarser levels of it: see `pyramid.store`
    <edition>/generalised/zarr.json          makes the folder one Zarr tree of both
    <edition>/generalised/generalised.json   units; for each tile the shards that it was made of, and what changed
    <edition>/generalised/SHA256SUMS         and MANIFEST.json: see `products.manifest`
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.errors import ProductError, product_error
from pipeline.legend import Layer
from pipeline.products.manifest import BOTH, changed_if_sealed, has_manifest, read_manifest
from pipeline.products.national.edition_record import Edition, edition_numbers, read_edition
from pipeline.products.national.grid import GridIndex, present_files
from pipeline.products.national.publish_plan import Target
from pipeline.products.national.pyramid.levels import pyramid_of
from pipeline.untrusted.documents import Document, DocumentError, parse_model, read_bytes, read_model

GENERALISED_FOLDER = "generalised"
STAGING, PARTS, REPLACED = ".generalised.tmp", ".generalised.parts.tmp", ".generalised.old.tmp"
"""Folders beside it: the layer while it is made, a record of each tile that is ready, and a layer that is replaced."""
LAYER_STORE, LAYER_RECORD = "landcover.zarr", "generalised.json"
GENERALISED_LAYERS: tuple[Layer, ...] = ("landcover",)
"""The layers that have coarser levels."""
GENERALISED_VERSION = 1
"""Raised by hand when the same level 0 and units give other bytes."""
REMAKE = "`landcover generalise --recheck` makes it again"
_MOST_BYTES = 1 << 30

_Value = Annotated[str, Field(pattern=r"^[0-9]{1,2}$")]
_Units = dict[_Value, Annotated[int, Field(ge=0)]]
_Index = Annotated[str, Field(pattern=r"^[0-9]{1,7}/[0-9]{1,7}$")]
_Pair = Annotated[str, Field(pattern=r"^[0-9]{1,2}/[0-9]{1,2}$")]


@dataclass(frozen=True)
class GeneralisedTile:
    """How a tile of the layer was made."""

    inputs: Mapping[_Index, str] = field(hash=False)
    """Shard of level 0, `row/column` → SHA-256 of its file when it was read; empty where there was none."""
    pixels: Mapping[_Value, int] = field(hash=False)
    """FLAIR value → its pixels in the tile of the map itself."""
    moved: Mapping[_Pair, int] = field(hash=False)
    """`from/to`, FLAIR values → pixels of the tile that changed class."""


class _Part(Document):
    """A tile that is ready, while others are not."""

    version: int
    units: _Units
    tile: GeneralisedTile


class _Record(Document):
    """The content of `generalised.json`."""

    version: int
    units: _Units
    fingerprint: str
    tiles: dict[_Index, GeneralisedTile]


@dataclass(frozen=True, eq=False)
class GeneralisedLayer:
    """The finished layer of an edition."""

    folder: Path
    version: int
    units: Mapping[str, int]
    """FLAIR value → smallest pixels of a patch."""
    fingerprint: str
    """Hash of everything that its bytes depend on."""
    tiles: Mapping[GridIndex, GeneralisedTile]

    @property
    def mapped(self) -> dict[int, int]:
        """FLAIR value → its pixels in the map itself, over all tiles."""
        total: Counter[int] = Counter()
        for tile in self.tiles.values():
            total.update({int(value): pixels for value, pixels in tile.pixels.items()})
        return dict(sorted(total.items()))

    @property
    def moved(self) -> dict[tuple[int, int], int]:
        """(from, to), FLAIR values → pixels that changed class, over all tiles."""
        total: Counter[tuple[int, int]] = Counter()
        for tile in self.tiles.values():
            for pair, pixels in tile.moved.items():
                one, _, other = pair.partition("/")
                total[int(one), int(other)] += pixels
        return dict(sorted(total.items()))


def class_balance(moved: Mapping[tuple[int, int], int]) -> dict[int, tuple[int, int]]:
    """FLAIR value → pixels that the class gained, and that it lost, for classes that did either.

    Args:
        moved: (from, to), FLAIR values → pixels.
    """
    gained, lost = Counter[int](), Counter[int]()
    for (one, other), pixels in moved.items():
        lost[one] += pixels
        gained[other] += pixels
    return {value: (gained[value], lost[value]) for value in sorted(gained.keys() | lost.keys())}


def pixels_of(units: NDArray[np.int64]) -> dict[str, int]:
    """The units as records have them: FLAIR value → pixels, without the classes that have no minimum."""
    return {str(value): int(pixels) for value, pixels in enumerate(units) if pixels}


def read_layer(edition: Path) -> GeneralisedLayer | None:
    """The layer in an edition's folder, or None where there is none.

    Raises:
        ProductError: its record cannot be read.
    """
    return _layer(edition / GENERALISED_FOLDER)


def _layer(folder: Path) -> GeneralisedLayer | None:
    path = folder / LAYER_RECORD
    if not folder.is_dir():
        return None
    with product_error(f"{path}: cannot be read; {REMAKE}", DocumentError):
        record = parse_model(_Record, read_bytes(path, most=_MOST_BYTES))
    return GeneralisedLayer(
        folder, record.version, record.units, record.fingerprint, {_parse(k): v for k, v in record.tiles.items()}
    )


def _parse(text: str) -> GridIndex:
    row, col = text.split("/")
    return (int(row), int(col))


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """Which tiles of an edition's layer are made, and which are the same elsewhere."""

    edition: Edition
    units: NDArray[np.int64]
    shards: Mapping[GridIndex, str]
    """SHA-256 of each shard of level 0."""
    kept: Mapping[GridIndex, tuple[Path, GeneralisedTile]]
    """Tiles that are made already: the layer's folder that has their files, and their record."""
    write: tuple[GridIndex, ...]
    """The other tiles."""
    former: Path | None
    """Folder of a layer whose coarser levels are whole, so that those of tiles that are kept from it can be linked."""
    nothing_to_do: bool
    """Whether the edition has this layer, undamaged."""

    @property
    def staging(self) -> Path:
        """The folder in which the layer is made."""
        return self.edition.path / STAGING

    @property
    def store(self) -> Path:
        """The Zarr that is being written."""
        return self.staging / LAYER_STORE

    @property
    def target(self) -> Target:
        """What writes the coarser levels."""
        return Target(self.store, self.edition.grid, None, GENERALISED_LAYERS)

    def shards_sealed(self, indices: Iterable[GridIndex]) -> dict[str, str]:
        """The inputs of a tile, as its record has them."""
        return {f"{row}/{col}": self.shards.get((row, col), "") for row, col in sorted(indices)}


def plan_layer(edition: Edition, units: NDArray[np.int64], *, recheck: bool = False) -> LayerPlan:
    """Plans the layer of an edition. A tile is kept where none of the shards that it was made of has changed.

    Tiles are looked for in what a killed call left, in the edition's own layer and in that of the newest other one.

    Args:
        edition: finished.
        units: int64 (class,): smallest pixels of a patch, 0..19.
        recheck: reads all files of layers to find the damaged ones. Otherwise only those whose size or time of the last
            change differs from the manifest.

    Raises:
        ProductError: an older version wrote the edition, without checksums.
    """
    sealed = read_manifest(edition.path).files
    prefix = f"{edition.store.name}/landcover/c"
    shards = {(r, c): file.sha256 for r, c in edition.digests if (file := sealed.get(f"{prefix}/{r}/{c}"))}
    if not shards or len(shards) < len(edition.digests):
        raise ProductError(
            f"{edition.path}: its manifest does not have the checksums of all shards; `landcover publish --recheck` "
            "makes an edition that has them"
        )
    own = edition.path / GENERALISED_FOLDER
    kept: dict[GridIndex, tuple[Path, GeneralisedTile]] = {}
    for folder in (edition.path / STAGING, own, *_others(edition)):
        for tile, made in _usable(folder, edition, shards, pixels_of(units), recheck=recheck).items():
            kept.setdefault(tile, (folder, made))
    tiles = edition.grid.tiles_of(edition.digests)
    kept = {tile: found for tile, found in sorted(kept.items()) if tile in tiles}
    whole = bool(kept) and all(folder == own for folder, _ in kept.values()) and len(kept) == len(tiles)
    whole = whole and not changed_if_sealed(own, read_all=recheck) and len(_tiles_in(own)) == len(tiles)
    whole = whole and pyramid_of(own).is_dir()
    folders = [folder for folder, _ in kept.values() if folder == own or folder.parent != edition.path]
    former = next((f for f in dict.fromkeys(folders) if _levels_whole(f, read_all=recheck)), None)
    return LayerPlan(edition, units, shards, kept, tuple(sorted(tiles - kept.keys())), former, whole)


def _levels_whole(folder: Path, *, read_all: bool) -> bool:
    """Whether a layer's coarser levels are there, undamaged; those of the first versions had none."""
    pyramid = pyramid_of(folder)
    damaged = changed_if_sealed(folder, read_all=read_all)
    return pyramid.is_dir() and BOTH not in damaged and not any(n.startswith(f"{pyramid.name}/") for n in damaged)


def _tiles_in(folder: Path) -> Mapping[GridIndex, GeneralisedTile]:
    try:
        layer = _layer(folder)
    except ProductError:
        return {}
    return layer.tiles if layer else {}


def _others(edition: Edition) -> Iterator[Path]:
    """The layer of the newest other edition on the same grid that has one."""
    folder = edition.path.parent
    for number in reversed(edition_numbers(folder.parent)):
        other = folder / f"{number:06d}"
        if number != edition.number and has_manifest(other / GENERALISED_FOLDER):
            try:
                if read_edition(other).grid == edition.grid:
                    yield other / GENERALISED_FOLDER
                    return
            except ProductError:
                continue


def _usable(
    folder: Path, edition: Edition, shards: Mapping[GridIndex, str], units: Mapping[str, int], *, recheck: bool
) -> dict[GridIndex, GeneralisedTile]:
    """Tiles in a folder that are made of these shards with these units, and whose files are whole."""
    found = _parts(folder.with_name(PARTS), units) if folder.name == STAGING else _finished(folder, units)
    damaged = changed_if_sealed(folder, read_all=recheck) if found and folder.name != STAGING else {}
    there = present_files(folder / LAYER_STORE / "landcover" / "c") if found and BOTH not in damaged else set()
    there -= {_parse(name.partition("/landcover/c/")[2]) for name in damaged if "/landcover/c/" in name}
    return {
        tile: made
        for tile, made in found.items()
        if there.issuperset(edition.grid.shards_of(tile))
        and all(shards.get(_parse(name), "") == sha256 for name, sha256 in made.inputs.items())
    }


def _finished(folder: Path, units: Mapping[str, int]) -> Mapping[GridIndex, GeneralisedTile]:
    try:
        layer = _layer(folder)
    except ProductError:
        return {}
    same = layer is not None and layer.version == GENERALISED_VERSION and layer.units == units
    return layer.tiles if layer is not None and same else {}


def _parts(folder: Path, units: Mapping[str, int]) -> dict[GridIndex, GeneralisedTile]:
    """The tiles that a killed call finished."""
    found = {}
    for path in sorted(folder.glob("*-*.json")):
        try:
            part = read_model(_Part, path)
            row, col = path.stem.split("-")
            index = (int(row), int(col))
        except (OSError, ValueError):
            continue
        if part.version == GENERALISED_VERSION and part.units == units:
            found[index] = part.tile
    return found
