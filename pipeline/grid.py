"""The lattice, and tiles, blocks and windows on it: integers in, integers out.

The lattice is the national 0.20 m pixel grid in EPSG:2154. Column c covers x from c / 5 to (c + 1) / 5
metres; row r covers y from -r / 5 down to -(r + 1) / 5. Rows grow southwards, as in an image, and are
negative in France; nothing depends on their sign. The phase origin of the windows is (0, 0). A territory overseas
has a lattice of its own in the UTM zone of its deliveries: the same integers in metres of another CRS.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ConfigError, GridError

CRS = "EPSG:2154"
"""Of the national lattice."""
PIXELS_PER_M = 5
"""The lattice's resolution as an integer: 0.20 m."""
RESOLUTION_M = 1 / PIXELS_PER_M

Affine6 = tuple[float, float, float, float, float, float]

_TILE_NAME = re.compile(r"([0-9]{4,6})-([0-9]{4,6})")


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels: rows [row, row + height), columns [col, col + width).

    On the lattice unless the place says otherwise (an array's own corner for `predict` of a raster).
    """

    row: int
    """First row (northmost)."""
    col: int
    """First column (westmost)."""
    height: int
    """Rows."""
    width: int
    """Columns."""

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise GridError(f"a window has height and width of at least 0; got {self!r}")

    @classmethod
    def from_edges(cls, top: int, left: int, bottom: int, right: int) -> "Window":
        """Rows [top, bottom), columns [left, right); empty where an edge passes its opposite."""
        return cls(top, left, max(0, bottom - top), max(0, right - left))

    @classmethod
    def from_bounds(cls, bounds: tuple[float, float, float, float]) -> "Window":
        """The lattice window of (left, bottom, right, top) in metres.

        Raises:
            GridError: an edge more than 1 mm off the lattice.
        """
        scaled = [b * PIXELS_PER_M for b in bounds]
        left, bottom, right, top = (round(s) for s in scaled)
        off = max(abs(s - round(s)) for s in scaled) / PIXELS_PER_M
        if off > 0.001:
            raise GridError(
                f"bounds {bounds} are {off:.4f} m off the 0.20 m lattice; expected corners at multiples of 0.2 m"
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
        """The six affine coefficients (a, b, c, d, e, f) of the window's raster in the lattice's CRS."""
        left, _, _, top = self.bounds
        return (RESOLUTION_M, 0.0, left, 0.0, -RESOLUTION_M, top)

    def intersect(self, other: "Window") -> "Window":
        """What both cover; height or width 0 where they do not meet."""
        return Window.from_edges(
            max(self.row, other.row),
            max(self.col, other.col),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def contains(self, other: "Window") -> bool:
        """True where `other` lies wholly inside."""
        return (
            self.row <= other.row
            and self.col <= other.col
            and self.bottom >= other.bottom
            and self.right >= other.right
        )

    def grow(self, rows: int, cols: int | None = None) -> "Window":
        """The window with `rows` more above and below and `cols` (by default as many) left and right."""
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
    """The smallest window that covers all of `windows` (at least one)."""
    return Window.from_edges(
        min(w.row for w in windows),
        min(w.col for w in windows),
        max(w.bottom for w in windows),
        max(w.right for w in windows),
    )


@dataclass(frozen=True, order=True)
class Tile:
    """The unit that is sealed, resumed, published and delivered, named by its NORTH-WEST corner.

    `name` is `xxxx-yyyy` in km as IGN does it; a tile that is no whole number of kilometres is named in
    hectometres (five digits) or decametres (six digits).
    """

    name: str
    """`0595-6890`: x 595 km is the west edge, y 6890 km the NORTH edge."""
    window: Window
    """The tile on the lattice."""

    @classmethod
    def at(cls, row: int, col: int, size: int) -> "Tile":
        """The tile of `size` pixels whose north-west corner is (row, col).

        Raises:
            GridError: the corner is on no multiple of the name's unit.
        """
        unit, digits = _name_unit(size)
        if row % unit or col % unit:
            raise GridError(f"({row}, {col}) is no multiple of {unit} px, so no tile of {size} px starts there")
        name = f"{col // unit:0{digits}d}-{-row // unit:0{digits}d}"
        return cls(name, Window(row, col, size, size))

    @classmethod
    def named(cls, name: str, size: int) -> "Tile":
        """The tile of `size` pixels of this name; `0595-6890` at 25 000 px is x 595..600, y 6885..6890 km.

        Raises:
            GridError: not a tile name, or one in another unit than a tile of `size` has.
        """
        unit, digits = _name_unit(size)
        match = _TILE_NAME.fullmatch(name)
        if not match or any(len(g) != digits for g in match.groups()):
            raise GridError(
                f"{name!r} is no name of a tile of {size} px: expected the north-west corner as "
                f"x-y of {digits} digits each, in units of {unit // PIXELS_PER_M} m, such as "
                f"{'0595-6890' if digits == 4 else '05950-68900' if digits == 5 else '059500-689000'}; "
                "tiles of another size are indexed with `--tile-m`"
            )
        x, y = (int(g) for g in match.groups())
        return cls(name, Window(-y * unit, x * unit, size, size))


def _name_unit(size: int) -> tuple[int, int]:
    """(pixels, digits) of the unit in which tiles of `size` pixels are named."""
    for unit_m, digits in ((1000, 4), (100, 5), (10, 6)):
        unit = unit_m * PIXELS_PER_M
        if size % unit == 0:
            return unit, digits
    raise GridError(f"a tile has a multiple of 10 m = 50 px a side; got {size} px")


@dataclass(frozen=True)
class Layout:
    """How blocks are cut into windows: the sizes in pixels that must fit each other.

    A window's read start is its core's start minus the halo, rounded down to a multiple of the stride
    from the phase origin; its size is `window` for a full core and the next multiple of the stride that
    keeps the halo for a smaller one at a ragged edge.
    """

    core: int = 2500
    """Pixels of a window that are kept, a side; divides the block."""
    halo: int = 160
    """Pixels around the core that the network sees and that are thrown away, at least."""
    window: int = 2848
    """What the network sees at once, a side; a multiple of the stride."""
    stride: int = 32
    """The network's stride: it commutes only with shifts of this many pixels."""

    def __post_init__(self) -> None:
        if self.core < 1 or self.halo < 0 or self.stride < 1:
            raise ConfigError(
                f"core and stride are at least 1 px and halo at least 0; got core {self.core}, "
                f"stride {self.stride}, halo {self.halo}"
            )
        if self.window % self.stride:
            lower = self.window // self.stride * self.stride
            raise ConfigError(
                f"window {self.window} px is not a multiple of the network's stride {self.stride}; "
                f"use {lower} or {lower + self.stride}"
            )
        if self.window < self.smallest_window:
            raise ConfigError(
                f"window {self.window} px is too small for core {self.core} + 2 × halo {self.halo}: aligned to the "
                f"stride {self.stride} it needs {self.smallest_window} px; enlarge the window or lessen core or halo"
            )

    @classmethod
    def fitted(cls, window: int, halo: int, stride: int = 32) -> "Layout":
        """The layout of this window and halo with the largest core that is a multiple of the stride.

        Raises:
            ConfigError: the window is no multiple of the stride, or leaves no core.
        """
        padded_halo = -(-halo // stride) * stride
        core = (window - 2 * padded_halo) // stride * stride
        if window % stride == 0 and core < stride:
            raise ConfigError(
                f"window {window} px leaves no core with halo {halo} on each side at stride {stride}; "
                f"use a window of at least {2 * padded_halo + stride} px"
            )
        return cls(core=max(core, 1), halo=halo, window=window, stride=stride)

    @property
    def smallest_window(self) -> int:
        """The least window that keeps core and halo wherever a core may start."""
        # Cores start at multiples of gcd(core, stride); rounding down then loses at most stride - gcd.
        step = math.gcd(self.core, self.stride)
        lead = max((s - self.halo) % self.stride for s in range(0, self.stride, step))
        return -(-(self.core + 2 * self.halo + lead) // self.stride) * self.stride

    @property
    def overlap_factor(self) -> float:
        """Pixels computed for each that is kept, of full windows."""
        return (self.window / self.core) ** 2

    @property
    def reach(self) -> int:
        """The most pixels beyond a block that its windows read, on any side."""
        return self.window - self.core

    def check_block(self, block: int, tile: int) -> None:
        """Raises ConfigError unless core divides block and block divides tile."""
        if block % self.core or tile % block:
            raise ConfigError(
                f"each size must divide the next: core {self.core}, block {block}, tile {tile} px "
                f"(block / core = {block / self.core:.3f}, tile / block = {tile / block:.3f})"
            )

    def read_of(self, core: Window) -> Window:
        """The window that the network sees for `core`: aligned, halo kept, may pass the domain's edge."""
        top = (core.row - self.halo) // self.stride * self.stride
        left = (core.col - self.halo) // self.stride * self.stride
        return Window(
            top, left, self._extent(top, core.bottom, core.height), self._extent(left, core.right, core.width)
        )

    def _extent(self, start: int, core_end: int, core_size: int) -> int:
        if core_size == self.core:
            return self.window
        return -(-(core_end + self.halo - start) // self.stride) * self.stride

    def windows_of(self, block: Window) -> list[tuple[Window, Window]]:
        """The (core, read) pairs of a block, row by row; the cores cover the block exactly once."""
        return [(core, self.read_of(core)) for core in block.split(self.core)]

    def read_of_block(self, block: Window) -> Window:
        """The one rectangle that holds the reads of all of a block's windows."""
        # Rows of reads depend on the rows of cores alone, and columns likewise: one column and one row tell all.
        column = Window(block.row, block.col, block.height, min(self.core, block.width))
        row = Window(block.row, block.col, min(self.core, block.height), block.width)
        return union([self.read_of(core) for strip in (column, row) for core in strip.split(self.core)])
