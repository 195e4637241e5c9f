"""What stands on disk of the nation: its grid, its editions, and which of them is current.

::

    <national>/current                          → editions/000002
    <national>/editions/000002/edition.json     number, parent, grid, domains, a digest of each shard
    <national>/editions/000002/product.zarr     the store: see `store`
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, ProductError
from pipeline.grid import CRS, Tile, Window

LAYERS = ("landcover", "confidence", "domain")
"""The store's sharded arrays."""

OUTSIDE, MAPPED, FAILED, MISSING = range(4)
"""Values of `coverage`. A tile with several owners shows the worst: failed, then missing, then mapped."""

Index = tuple[int, int]
"""(row, column) of a shard or of a tile in the national grid, from the north-west."""


@dataclass(frozen=True)
class NationalGrid:
    """The national store's extent and how it is cut, in pixels of one lattice."""

    extent: Window
    """Whole tiles."""
    tile: int
    shard: int
    """A whole part of the tile: one file a layer."""
    chunk: int
    """A whole part of the shard: what a reader decodes at once."""
    crs: str = CRS
    """`EPSG:…` of the lattice."""

    def __post_init__(self) -> None:
        if min(self.tile, self.shard, self.chunk) < 1 or self.tile % self.shard or self.shard % self.chunk:
            raise ConfigError(f"chunk {self.chunk} must divide shard {self.shard}, and that the tile {self.tile} px")
        e = self.extent
        if not e.pixels or any(v % self.tile for v in (e.row, e.col, e.height, e.width)):
            raise ConfigError(f"the national extent {e} is no rectangle of whole tiles of {self.tile} px")

    @property
    def tiles_shape(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return (self.extent.height // self.tile, self.extent.width // self.tile)

    def tile_index(self, tile: Tile) -> Index:
        """Where a tile lies.

        Raises:
            ProductError: outside the extent.
        """
        if not self.extent.contains(tile.window):
            raise ProductError(
                f"tile {tile.name} lies outside the national extent {self.extent.bounds} (left, bottom, right, top "
                f"in metres of {self.crs}); enlarge output.extent_km"
            )
        return ((tile.window.row - self.extent.row) // self.tile, (tile.window.col - self.extent.col) // self.tile)

    def shards_of(self, tile: Index) -> Iterator[Index]:
        """The shards of a tile, row by row."""
        n = self.tile // self.shard
        for row in range(tile[0] * n, (tile[0] + 1) * n):
            for col in range(tile[1] * n, (tile[1] + 1) * n):
                yield (row, col)

    def shard_window(self, shard: Index) -> Window:
        """A shard on the lattice."""
        row, col = self.extent.row + shard[0] * self.shard, self.extent.col + shard[1] * self.shard
        return Window(row, col, self.shard, self.shard)

    def to_json(self) -> dict[str, Any]:
        """Plain content, as `edition.json` keeps it."""
        e = self.extent
        return {
            "extent": [e.row, e.col, e.height, e.width],
            "tile": self.tile,
            "shard": self.shard,
            "chunk": self.chunk,
            "crs": self.crs,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "NationalGrid":
        """What `to_json` gave."""
        extent, crs = Window(*content["extent"]), content.get("crs", CRS)
        return cls(extent, content["tile"], content["shard"], content["chunk"], crs)


@dataclass(frozen=True)
class Edition:
    """A finished edition, as its `edition.json` says."""

    path: Path
    number: int
    grid: NationalGrid
    metadata: str
    """Hash of what is in the store besides shards: domain table and coverage."""
    digests: Mapping[Index, str] = field(hash=False)
    """Shard → hash of what went into it."""

    @property
    def store(self) -> Path:
        """The Zarr."""
        return self.path / "product.zarr"


def current_edition(national: Path) -> Edition | None:
    """The edition that `<national>/current` names, or None before the first publish.

    Raises:
        ProductError: the pointer names nothing, or the edition's record is damaged.
    """
    pointer = national / "current"
    if not pointer.is_symlink() and not pointer.exists():
        return None
    path = pointer.resolve() / "edition.json"
    try:
        content = json.loads(path.read_bytes())
        return Edition(
            path.parent,
            int(content["number"]),
            NationalGrid.from_json(content["grid"]),
            str(content["metadata"]),
            {_parse_index(k): str(v) for k, v in content["shards"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProductError(f"{path}: the current edition's record cannot be read: {error}") from error


def _parse_index(text: str) -> Index:
    row, col = text.split("/")
    return (int(row), int(col))


def present_shards(store: Path, layer: str) -> set[Index]:
    """Shards of one layer whose files are there."""
    return {
        (int(row.name), int(file.name))
        for row in (store / layer / "c").glob("*")
        if row.name.isdigit()
        for file in row.iterdir()
        if file.name.isdigit()
    }


def next_number(national: Path) -> int:
    """The number of the next edition: above all that there are, current or not."""
    names = (p.name for p in (national / "editions").glob("*"))
    return max((int(n) for n in names if n.isdigit()), default=0) + 1
