"""Square tiles of the map page on the campaign's lattice, at 0.2 m, 0.4 m, … 12.8 m, which are cut when asked for."""

import re
from dataclasses import dataclass

from pipeline.grid import Tile, Window

SIDE = 512
"""Pixels a side of a tile of the page."""
FACTORS = tuple(1 << k for k in range(7))
"""Pixels of the lattice a side of a pixel, from fine to coarse."""
_ADDRESS = re.compile(r"([0-9])/([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class LatticeTile:
    """A tile of the page."""

    window: Window
    """On the lattice."""
    factor: int

    @classmethod
    def parse(cls, address: str, corner: Window) -> "LatticeTile | None":
        """The tile of an address `level/column/row`, counted from the north-west corner of a window; None if not one.

        Level 0 is the coarsest.
        """
        match = _ADDRESS.fullmatch(address)
        if match is None or int(match[1]) >= len(FACTORS):
            return None
        factor = FACTORS[-1 - int(match[1])]
        side = SIDE * factor
        window = Window(corner.row + int(match[3]) * side, corner.col + int(match[2]) * side, side, side)
        return cls(window, factor) if window.intersect(corner).pixels else None

    def product_tiles(self, size: int) -> list[Tile]:
        """The tiles of a product, of `size` pixels, that it meets."""
        w = self.window
        rows = range(w.row // size * size, w.bottom, size)
        cols = range(w.col // size * size, w.right, size)
        return [Tile.at(row, col, size) for row in rows for col in cols]

    def slices(self, part: Window) -> tuple[slice, slice]:
        """Where a part of the window lies in the page's pixels: all that it touches."""
        row, col = part.row - self.window.row, part.col - self.window.col
        down, across = -(-(row + part.height) // self.factor), -(-(col + part.width) // self.factor)
        return slice(row // self.factor, down), slice(col // self.factor, across)
