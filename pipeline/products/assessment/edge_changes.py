"""Counts class changes across the edges of windows, blocks, tiles and domains, beside lines in sealed products.

Only the pixels beside the edges are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.domain import Domain
from pipeline.evaluation.seams import Crossings, Cuts, SeamRatio, border_crossings
from pipeline.grid import Tile, Window
from pipeline.products.national.edition_record import Edition
from pipeline.products.national.zarr_store import read_zarr
from pipeline.products.tile.cog import open_cog, read_cog
from pipeline.products.tile.seal import SealedTile
from pipeline.progress import SILENT, Progress

_BORDER_SIDE = 2_000
"""Pixels a side of the parts in which the national store is searched for borders."""


@dataclass(frozen=True, eq=False)
class Seams:
    """Changes across each kind of edge; an edge counts as its coarsest kind only."""

    window: Crossings = field(default_factory=Crossings)
    """Edges of cores inside blocks."""
    block: Crossings = field(default_factory=Crossings)
    """Edges of blocks inside tiles."""
    tile: Crossings = field(default_factory=Crossings)
    """Between tiles of one domain."""

    def __add__(self, other: "Seams") -> "Seams":
        return Seams(self.window + other.window, self.block + other.block, self.tile + other.tile)

    @property
    def ratios(self) -> dict[str, SeamRatio | None]:
        """`window`, `block`, `tile` → ratio; None where there is no such edge."""
        return {kind: getattr(self, kind).seam_ratio for kind in ("window", "block", "tile")}


def tile_seams(sealed: SealedTile, *, cuts: Cuts, progress: Progress = SILENT) -> Seams:
    """Changes across the edges inside one tile; `progress` counts the tile's pixels.

    Raises:
        ProductError: its land cover cannot be read.
    """
    size, reach, found = sealed.tile.window.height, cuts.reach, Seams()
    if not cuts.beside:
        return found
    with open_cog(sealed.file("landcover").path) as cog:
        for edge in range(cuts.core, size, cuts.core):
            columns = cog.read(Window(0, edge - reach, size, 2 * reach)).T
            rows = cog.read(Window(edge - reach, 0, 2 * reach, size))
            changes = cuts.crossings(columns) + cuts.crossings(rows)
            found += Seams(window=changes) if edge % cuts.block else Seams(block=changes)
            progress.advance(size * min(cuts.core, size - edge))
    return found


def between_tiles(first: SealedTile, second: SealedTile, *, cuts: Cuts) -> Seams:
    """Changes across the edge between two tiles of one domain.

    Args:
        first: the western or the northern one.
        second: its neighbour in the east or the south.

    Raises:
        ProductError: a land cover cannot be read.
    """
    own, reach = second.tile.window, cuts.reach
    east = first.tile.window.right == own.col
    if east:
        band = Window(own.row, own.col - reach, own.height, 2 * reach)
    else:
        band = Window(own.row - reach, own.col, 2 * reach, own.width)
    windows = [(s, s.tile.window) for s in (first, second)]
    read = [read_cog(s.file("landcover").path, w.intersect(band).within(w)) for s, w in windows]
    return Seams(tile=cuts.crossings(np.concatenate([p.T if east else p for p in read])))


def neighbours(sealed: Sequence[SealedTile]) -> list[tuple[SealedTile, SealedTile]]:
    """Pairs of neighbouring tiles: each tile with its eastern, then with its southern neighbour."""
    at = {(s.tile.window.row, s.tile.window.col): s for s in sealed}
    return [
        (one, at[place])
        for (row, col), one in sorted(at.items())
        for place in ((row, one.tile.window.right), (one.tile.window.bottom, col))
        if place in at
    ]


def border_seams(edition: Edition, tiles: Mapping[Domain, Sequence[Tile]], *, cuts: Cuts) -> Crossings:
    """Changes across borders of domains in the national store, where neighbouring pixels have different owners.

    Only tiles where two domains meet, inside or at the northern or western edge, are read.

    Args:
        edition: complete, see `zarr_store.check_shards`.
        tiles: domain → its sealed tiles, of the edition's size; those outside its extent are left out.
        cuts: distances of the lines beside a border.
    """
    here: dict[tuple[int, int], set[str]] = {}
    for domain, own in tiles.items():
        for tile in (t for t in own if edition.grid.extent.contains(t.window)):
            here.setdefault(edition.grid.tile_index(tile), set()).add(domain)
    found = []
    for row, col in sorted(here):
        near = (here.get(place, set()) for place in ((row, col), (row - 1, col), (row, col - 1)))
        if len(set[str]().union(*near)) > 1:
            size = edition.grid.tile
            window = Window(row * size, col * size, size, size)
            found += [_border(edition, part, cuts) for part in window.split(min(_BORDER_SIDE, size))]
    return sum(found, Crossings())


def _border(edition: Edition, part: Window, cuts: Cuts) -> Crossings:
    """Changes between pairs whose second pixel lies in `part`, in pixels of the store."""
    reach = cuts.reach
    owners = read_zarr(edition.store / "domain", part.grow(reach))
    if len(np.unique(owners[owners != 0])) < 2:
        return Crossings()
    classes = read_zarr(edition.store / "landcover", part.grow(reach))
    rows, cols = slice(reach, reach + part.height), slice(reach, reach + part.width)
    return border_crossings(classes[rows], owners[rows], beside=cuts.beside, inner=cols) + border_crossings(
        classes[:, cols].T, owners[:, cols].T, beside=cuts.beside, inner=rows
    )
