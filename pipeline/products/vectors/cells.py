"""The cells of the lattice, and the blocks of cells that are merged step by step into one.

Cells begin at multiples of `CELL` from the lattice's origin, whatever the tiles are, because arcs are simplified in
cells. Blocks only say which cells one task works on; they do not change the result.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.grid import Window
from pipeline.products.vectors.coverage.blocks import Block, Finished, cell_block, merge
from pipeline.products.vectors.edition_pixels import PixelReader

CELL = 1_000
"""Side of a cell in pixels: 200 m. Another one gives other vertices where borders cross the sides of cells."""

BlockIndex = tuple[int, int, int]
"""(level, row, column) of a block: level 0 is made of cells, and level n of up to four blocks of level n - 1."""


@dataclass(frozen=True)
class BlockGrid:
    """Where blocks lie. The first one has the north-western cell that is needed."""

    row: int
    """First row of the first block."""
    col: int
    across: int
    """Cells on a side of a block of level 0."""
    levels: int
    """The only block of the highest level, `levels - 1`, covers everything."""
    cell: int = CELL

    @classmethod
    def of(cls, windows: Iterable[Window], *, tile: int, cell: int = CELL) -> "BlockGrid":
        """The blocks that cover windows.

        Args:
            windows: at least one.
            tile: side of a tile in pixels; blocks have about this size.
            cell: side of a cell.
        """
        found = list(windows)
        across = max(1, round(tile / cell))
        row, col = (min(v) // cell * cell for v in ([w.row for w in found], [w.col for w in found]))
        longest = max(max(w.bottom - row, w.right - col) for w in found)
        levels = 1
        while cell * across << (levels - 1) < longest:
            levels += 1
        return cls(row, col, across, levels, cell)

    def first_blocks(self, windows: Iterable[Window]) -> dict[BlockIndex, tuple[Window, ...]]:
        """The blocks of level 0 that windows reach, in order, each with its windows."""
        side, found = self.cell * self.across, dict[BlockIndex, tuple[Window, ...]]()
        for w in windows:
            for row in range((w.row - self.row) // side, (w.bottom - 1 - self.row) // side + 1):
                for col in range((w.col - self.col) // side, (w.right - 1 - self.col) // side + 1):
                    found[0, row, col] = (*found.get((0, row, col), ()), w)
        return dict(sorted(found.items()))

    def cells_of(self, block: BlockIndex, windows: Iterable[Window]) -> Iterator[tuple[tuple[int, int], Window]]:
        """The cells of a block of level 0 that windows reach: (row, column) in the block, and the cell's window."""
        side, near = self.cell * self.across, list(windows)
        corner = Window(self.row + block[1] * side, self.col + block[2] * side, side, side)
        for cell in corner.split(self.cell):
            if any(w.intersect(cell).pixels for w in near):
                yield ((cell.row - corner.row) // self.cell, (cell.col - corner.col) // self.cell), cell


def parents(blocks: Iterable[BlockIndex]) -> dict[BlockIndex, tuple[BlockIndex, ...]]:
    """The blocks of the next level, with the given ones that each is made of."""
    found: dict[BlockIndex, tuple[BlockIndex, ...]] = {}
    for level, row, col in sorted(blocks):
        parent = (level + 1, row // 2, col // 2)
        found[parent] = (*found.get(parent, ()), (level, row, col))
    return found


def read_cells(
    pixels: PixelReader, cells: Iterable[tuple[tuple[int, int], Window]], *, tolerance: float
) -> Iterator[tuple[tuple[int, int], Finished, Block]]:
    """The regions of cells: those that lie inside each, and the block of the others.

    Args:
        pixels: the raster.
        cells: as `BlockGrid.cells_of` gives them. Those without data are left out.
        tolerance: of the simplification, in pixels.

    Raises:
        ProductError: a shard cannot be read.
    """
    for place, cell in cells:
        around = pixels.read(cell.grow(1))
        if around.classes.any():
            inner = cell.slices_in(cell.grow(1))
            block = cell_block(
                around.classes,
                around.confidence[inner],
                around.domain[inner],
                corner=(cell.row, cell.col),
                tolerance=tolerance,
            )
            finished, left = merge({(0, 0): block}, across=1)
            yield place, finished, left
