"""The lattice, and tiles, blocks and windows on it, all in integers.

The lattice is the national 0.20 m pixel grid in EPSG:2154. Column c covers x from c / 5 to (c + 1) / 5 metres. Row r
covers y from -r / 5 down to -(r + 1) / 5. Rows increase southwards, as in an image, and are negative in France; nothing
depends on their sign. Windows are aligned to multiples of the stride from (0, 0). A territory overseas has its own
lattice in the UTM zone of its deliveries, with the same integers in metres of that CRS.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import GridError

CRS = "EPSG:2154"
"""CRS of the national lattice."""
PIXELS_PER_M = 5
"""The lattice's resolution as an integer: 0.20 m."""
RESOLUTION_M = 1 / PIXELS_PER_M

Affine6 = tuple[float, float, float, float, float, float]

_TILE_NAME = re.compile(r"([0-9]{4,6})-([0-9]{4,6})")


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels: rows [row, row + height), columns [col, col + width).

    Rows and columns are those of the lattice, except where a docstring says otherwise: `predict` of an array counts
    from the array's corner.

    Example:
        >>> Window(0, 0, 100, 100).intersect(Window(50, 60, 100, 100))
        Window(row=50, col=60, height=50, width=40)
    """

    row: int
    """First row, the northernmost."""
    col: int
    """First column, the westernmost."""
    height: int
    """Number of rows."""
    width: int
    """Number of columns."""

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise GridError(f"a window needs a height and a width of at least 0; got {self!r}")

    @classmethod
    def from_edges(cls, top: int, left: int, bottom: int, right: int) -> "Window":
        """Rows [top, bottom), columns [left, right); empty if top exceeds bottom or left exceeds right."""
        return cls(top, left, max(0, bottom - top), max(0, right - left))

    @classmethod
    def from_bounds(cls, bounds: tuple[float, float, float, float]) -> "Window":
        """The lattice window of bounds (left, bottom, right, top) in metres.

        Raises:
            GridError: an edge is more than 1 mm off the lattice.
        """
        scaled = [b * PIXELS_PER_M for b in bounds]
        left, bottom, right, top = (round(s) for s in scaled)
        off = max(abs(s - round(s)) for s in scaled) / PIXELS_PER_M
        if off > 0.001:
            raise GridError(
                f"bounds {bounds} are {off:.4f} m off the 0.20 m lattice: expected corners at multiples of 0.2 m"
            )
        return cls.from_edges(-top, left, -bottom, right)

    @property
    def bottom(self) -> int:
        """One past the last row."""
        return self.row + self.height

    @property
    def right(self) -> int:
        """One past the last column."""
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return (self.height, self.width)

    @property
    def pixels(self) -> int:
        """height × width."""
        return self.height * self.width

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in metres of the lattice's CRS."""
        p = PIXELS_PER_M
        return (self.col / p, -self.bottom / p, self.right / p, -self.row / p)

    @property
    def transform(self) -> Affine6:
        """Affine coefficients (a, b, c, d, e, f) of a raster over the window, in the lattice's CRS."""
        left, _, _, top = self.bounds
        return (RESOLUTION_M, 0.0, left, 0.0, -RESOLUTION_M, top)

    def intersect(self, other: "Window") -> "Window":
        """The part that both cover; its height or width is 0 if they do not meet."""
        return Window.from_edges(
            max(self.row, other.row),
            max(self.col, other.col),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def contains(self, other: "Window") -> bool:
        """True if `other` lies wholly inside."""
        return self.intersect(other) == other

    def grow(self, rows: int, cols: int | None = None) -> "Window":
        """The window with `rows` more above and below, and `cols` more left and right (by default as many)."""
        cols = rows if cols is None else cols
        return Window.from_edges(self.row - rows, self.col - cols, self.bottom + rows, self.right + cols)

    def within(self, outer: "Window") -> "Window":
        """This window in pixels from the first corner of `outer`."""
        return Window(self.row - outer.row, self.col - outer.col, self.height, self.width)

    def slices_in(self, outer: "Window") -> tuple[slice, slice]:
        """(rows, columns) of this window inside an array that covers `outer`."""
        return self.within(outer).slices

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, columns) in an array whose first pixel is (0, 0)."""
        return slice(self.row, self.bottom), slice(self.col, self.right)

    def strips(self, rows: int) -> Iterator["Window"]:
        """The parts of `rows` rows over all columns, from the north; the last may be lower."""
        for row in range(self.row, self.bottom, rows):
            yield Window.from_edges(row, self.col, min(row + rows, self.bottom), self.right)

    def split(self, size: int) -> Iterator["Window"]:
        """The parts of `size` × `size` from the north-west, row by row; smaller at the far edges."""
        for strip in self.strips(size):
            for col in range(self.col, self.right, size):
                yield Window.from_edges(strip.row, col, strip.bottom, min(col + size, self.right))


def union(windows: list[Window]) -> Window:
    """The smallest window that covers all of `windows`, of which there is at least one."""
    return Window.from_edges(
        min(w.row for w in windows),
        min(w.col for w in windows),
        max(w.bottom for w in windows),
        max(w.right for w in windows),
    )


@dataclass(frozen=True, order=True)
class Tile:
    """The unit that is delivered, sealed, resumed and published, named by its NORTH-WEST corner.

    Tiles of whole kilometres are named in km, `xxxx-yyyy`, as IGN names them. Others are named in hectometres (five
    digits) or decametres (six digits).

    Example:
        >>> Tile.named("0595-6890", 25_000).window.bounds
        (595000.0, 6885000.0, 600000.0, 6890000.0)
    """

    name: str
    """`0595-6890`: x = 595 km is the west edge, y = 6890 km the NORTH edge."""
    window: Window
    """The tile's pixels on the lattice."""

    @classmethod
    def at(cls, row: int, col: int, size: int) -> "Tile":
        """The tile of `size` pixels whose north-west corner is (row, col).

        Raises:
            GridError: the corner does not lie on a multiple of the unit of tile names.
        """
        unit, digits = name_unit(size)
        if row % unit or col % unit:
            raise GridError(f"no tile of {size} px starts at ({row}, {col}): expected multiples of {unit} px")
        name = f"{col // unit:0{digits}d}-{-row // unit:0{digits}d}"
        return cls(name, Window(row, col, size, size))

    @classmethod
    def named(cls, name: str, size: int) -> "Tile":
        """The tile of `size` pixels with this name.

        Raises:
            GridError: not a tile name, or not in the unit for tiles of `size`.
        """
        unit, digits = name_unit(size)
        match = _TILE_NAME.fullmatch(name)
        if not match or any(len(g) != digits for g in match.groups()):
            raise GridError(
                f"{name!r} is not a name of a tile of {size} px: expected its north-west corner as "
                f"x-y of {digits} digits each, in units of {unit // PIXELS_PER_M} m, such as "
                f"{'0595-6890' if digits == 4 else '05950-68900' if digits == 5 else '059500-689000'}. "
                "Index tiles of another size with `--tile-m`"
            )
        x, y = (int(g) for g in match.groups())
        return cls(name, Window(-y * unit, x * unit, size, size))


def name_unit(size: int) -> tuple[int, int]:
    """The unit of the names of tiles of `size` pixels: its pixels and its digits."""
    for unit_m, digits in ((1000, 4), (100, 5), (10, 6)):
        unit = unit_m * PIXELS_PER_M
        if size % unit == 0:
            return unit, digits
    raise GridError(f"the side of a tile must be a multiple of 50 px = 10 m; got {size} px")
