"""The grid of the national product: its extent in whole tiles, and how tiles are cut into shards and chunks."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, ProductError
from pipeline.grid import CRS, Tile, Window

GridIndex = tuple[int, int]
"""(row, column) of a shard or of a tile in the national grid, from the north-west."""


def present_files(chunks: Path) -> set[GridIndex]:
    """(row, column) of the files `<row>/<column>` that are in the folder of a Zarr array's chunks."""
    return {
        (int(row.name), int(file.name))
        for row in chunks.glob("*")
        if row.name.isdigit()
        for file in row.iterdir()
        if file.name.isdigit()
    }


def lost_files(arrays: Iterable[Path], wanted: Iterable[GridIndex]) -> list[str]:
    """Problems: files of shards that are lost. Empty if there are none. Zarr itself reads a lost file as no data.

    Args:
        arrays: folders of the chunks of Zarr arrays.
        wanted: the shards that each must have.
    """
    shards = set(wanted)
    return [
        f"{array / str(row) / str(col)}: shard is lost; publish again to write it"
        for array in arrays
        for row, col in sorted(shards - present_files(array))
    ]


@dataclass(frozen=True)
class NationalGrid:
    """The national store's extent, and the sides of its tiles, shards and chunks, in pixels of one lattice."""

    extent: Window
    """Whole tiles."""
    tile: int
    shard: int
    """Divides the tile: one file per layer."""
    chunk: int
    """Divides the shard: a reader decodes one chunk at once."""
    crs: str = CRS
    """`EPSG:…` of the lattice."""

    def __post_init__(self) -> None:
        if min(self.tile, self.shard, self.chunk) < 1 or self.tile % self.shard or self.shard % self.chunk:
            raise ConfigError(
                f"chunk {self.chunk} must divide shard {self.shard}, and the shard must divide tile {self.tile} px"
            )
        e = self.extent
        if not e.pixels or any(v % self.tile for v in (e.row, e.col, e.height, e.width)):
            raise ConfigError(f"the national extent {e} is not a rectangle of whole tiles of {self.tile} px")

    @property
    def tiles_shape(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return (self.extent.height // self.tile, self.extent.width // self.tile)

    def tile_index(self, tile: Tile) -> GridIndex:
        """(row, column) of a tile.

        Raises:
            ProductError: outside the extent.
        """
        if not self.extent.contains(tile.window):
            raise ProductError(
                f"tile {tile.name} lies outside the national extent {self.extent.bounds} (left, bottom, right, top "
                f"in metres of {self.crs}); enlarge output.extent_km"
            )
        return ((tile.window.row - self.extent.row) // self.tile, (tile.window.col - self.extent.col) // self.tile)

    def shards_of(self, tile: GridIndex) -> Iterator[GridIndex]:
        """The shards of a tile, row by row."""
        n = self.tile // self.shard
        for row in range(tile[0] * n, (tile[0] + 1) * n):
            for col in range(tile[1] * n, (tile[1] + 1) * n):
                yield (row, col)

    def tiles_of(self, shards: Iterable[GridIndex]) -> frozenset[GridIndex]:
        """The tiles that shards are part of."""
        n = self.tile // self.shard
        return frozenset((row // n, col // n) for row, col in shards)

    def shard_window(self, shard: GridIndex) -> Window:
        """A shard on the lattice."""
        row, col = self.extent.row + shard[0] * self.shard, self.extent.col + shard[1] * self.shard
        return Window(row, col, self.shard, self.shard)

    def to_json(self) -> dict[str, Any]:
        """JSON-able content, as in `edition.json`."""
        return asdict(self) | {"extent": list(astuple(self.extent))}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "NationalGrid":
        """The grid of `to_json`'s content."""
        return cls(**{**content, "extent": Window(*content["extent"])})
