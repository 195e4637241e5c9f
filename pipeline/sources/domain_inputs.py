"""What the input catalogue says about a domain: tiles, files and fill. Plain values, no raster opened."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pipeline.config import LimitName
from pipeline.domain import Domain
from pipeline.errors import CatalogError
from pipeline.fingerprint import digest, file_signature
from pipeline.grid import CRS, PIXELS_PER_M, RESOLUTION_M, Affine6, Tile, Window
from pipeline.sources.bit_depth import DEEP, RULE
from pipeline.sources.delivery.attribution import UNKNOWN, Days, Origin
from pipeline.sources.delivery.names import Kind
from pipeline.sources.http_path import WebPath

RVB = ("red", "green", "blue")
"""Bands of an RVB file, in its order."""
IMAGERY = (*RVB, "nir")
BANDS = (*IMAGERY, "elevation")
"""All bands that a domain can have; FLAIR's fifth is a height."""

CELL = 250
"""Elevation is resampled in whole cells of the lattice of this many pixels a side (50 m).

A cell is always the same request to GDAL, so its floats are the same whatever window was asked for.
"""

_ASKERS = 16
"""Threads that ask the file system."""

Ring = tuple[tuple[float, float], ...]


@dataclass(frozen=True, order=True)
class Asset:
    """One file behind a tile, with what is needed to read it without looking at its header again."""

    kind: Kind
    path: Path
    """Absolute."""
    signature: str
    """`fingerprint.file_signature` of the content when it was indexed."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change in nanoseconds, when it was indexed."""
    transform: Affine6
    """Affine coefficients of the raster in the lattice's CRS, in metres; north-up."""
    shape: tuple[int, int]
    """(height, width) in the file's own pixels."""
    dtype: str
    """numpy's name of the samples' type."""
    block: tuple[int, int]
    """(height, width) of the file's internal blocks."""
    nodata: str | None
    """No-data value of an elevation file, as text because it may be `nan`; None where there is none."""

    @property
    def resolution_m(self) -> float:
        """Metres of a pixel of the file."""
        return self.transform[0]

    @property
    def href(self) -> str:
        """The file's URL, or its path."""
        return self.path.url if isinstance(self.path, WebPath) else str(self.path)

    @property
    def resampled(self) -> bool:
        """True where the file's pixels are not the lattice's: any elevation model, imagery of another resolution."""
        return self.kind in ("dsm", "dtm") or abs(self.resolution_m - RESOLUTION_M) > 1e-6 * RESOLUTION_M

    @property
    def deep(self) -> bool:
        """True for imagery of more than 8 bits, which is read as `depth.as_levels` has it."""
        return self.kind in ("rvb", "irc") and self.dtype == DEEP

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in metres of the lattice's CRS."""
        a, _, left, _, e, top = self.transform
        return (left, top + e * self.shape[0], left + a * self.shape[1], top)

    def meets(self, window: Window) -> bool:
        """True where the file, or one of its pixels beyond its edge, covers a part of the lattice window."""
        reach = self.resolution_m if self.resampled else 0.0
        left, bottom, right, top = window.bounds
        own = self.bounds
        # A hundredth of a pixel, because files state their corners with an error of that order.
        slack = 0.01 / PIXELS_PER_M - reach
        return own[0] + slack < right and own[2] - slack > left and own[1] + slack < top and own[3] - slack > bottom

    @property
    def content(self) -> dict[str, object]:
        """What pixels depend on: everything but the place and the date of the file."""
        return {
            "kind": self.kind,
            "signature": self.signature,
            "transform": [round(c, 6) for c in self.transform],
            "shape": self.shape,
            "nodata": self.nodata,
            # Only where it was applied: should the rule change, nothing else is mapped again.
            **({"levels": RULE} if self.deep else {}),
        }

    @cached_property
    def content_digest(self) -> str:
        """Of `content`; a file is behind its neighbours' tiles too."""
        return digest(self.content)


@dataclass(frozen=True, order=True)
class Fill:
    """Where a tile's imagery may be fill: there, a pixel of the fill's value is no data."""

    value: int
    """0 (black) or 255 (white)."""
    polygons: tuple[tuple[Ring, ...], ...]
    """MultiPolygon coordinates in metres of the lattice's CRS: polygons of rings, the outer ring first."""

    @property
    def geometry(self) -> dict[str, object]:
        """The GeoJSON MultiPolygon, in the lattice's CRS."""
        return {"type": "MultiPolygon", "coordinates": self.polygons}


@dataclass(frozen=True, order=True)
class InputTile:
    """A tile of imagery with all files behind it."""

    tile: Tile
    assets: tuple[Asset, ...]
    """Sorted; elevation files within 100 m of the tile are among them."""
    fill: tuple[Fill, ...] = ()
    """At most one of each value."""
    acquired: Days | None = None
    """First and last day of acquisition, where the delivery has them."""
    hole_share: float | None = None
    """0..1 of the tile without elevation, where `stage` counted it."""

    def has(self, kind: Kind) -> bool:
        """True where a file of this kind is behind the tile."""
        return any(a.kind == kind for a in self.assets)


@dataclass(frozen=True)
class DomainInputs:
    """A domain's tiles as the catalogue has them."""

    domain: Domain
    window: Window
    """The bounding window of all tiles of the domain, also where `tiles` is only a part of them."""
    tiles: tuple[InputTile, ...]
    """Sorted by name."""
    crs: str = CRS
    """`EPSG:…` of the lattice on which the tiles lie; overseas it is a UTM zone's."""
    origin: Origin = UNKNOWN
    """Whose data, under which licence, cited how."""
    acquired: Days | None = None
    """First and last day of acquisition, where the delivery has them."""
    limits: tuple[LimitName, ...] = ()
    """Limits of the model's card that the domain passes and that were accepted when it was indexed."""

    @property
    def attribution(self) -> str:
        """`IGN, BD ORTHO 2021`; empty where the catalogue has none."""
        return self.origin.attribution

    @property
    def licence(self) -> str:
        """SPDX identifier; empty where the catalogue has none."""
        return self.origin.licence

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tiles."""
        return tuple(t.tile.name for t in self.tiles)

    @cached_property
    def assets(self) -> tuple[Asset, ...]:
        """All files of all tiles, each once, sorted."""
        return _distinct(a for t in self.tiles for a in t.assets)

    def tile(self, name: str) -> InputTile:
        """The tile of this name.

        Raises:
            CatalogError: the domain has none.
        """
        for tile in self.tiles:
            if tile.tile.name == name:
                return tile
        some = ", ".join(self.names[:12]) + (" …" if len(self.tiles) > 12 else "")
        raise CatalogError(f"domain {self.domain} has no tile {name!r}; its {len(self.tiles)} tiles: {some}")

    def meeting(self, window: Window) -> tuple[InputTile, ...]:
        """The tiles that share a pixel with `window`, in their order."""
        if not window.pixels:
            return ()
        near = {i for cell in self._cells(window) for i in self._tiles_by_cell.get(cell, ())}
        return tuple(t for t in map(self.tiles.__getitem__, sorted(near)) if t.tile.window.intersect(window).pixels)

    @cached_property
    def _tiles_by_cell(self) -> dict[tuple[int, int], list[int]]:
        """Which of `tiles` touch each cell: a nation's plan asks for the neighbours of each of its tiles."""
        found: dict[tuple[int, int], list[int]] = {}
        for i, tile in enumerate(self.tiles):
            for cell in self._cells(tile.tile.window):
                found.setdefault(cell, []).append(i)
        return found

    def _cells(self, window: Window) -> Iterator[tuple[int, int]]:
        """Squares of the first tile's size that `window` touches, by row and column."""
        side = self.tiles[0].tile.window.height if self.tiles else 1
        for row in range(window.row // side, (window.bottom - 1) // side + 1):
            for col in range(window.col // side, (window.right - 1) // side + 1):
                yield row, col

    def behind(self, window: Window) -> tuple[Asset, ...]:
        """The files on which the pixels of `window` depend, each once, sorted."""
        cells = whole_cells(window)
        return _distinct(a for t in self.meeting(cells) for a in t.assets if a.meets(cells if a.resampled else window))

    def around(self, window: Window) -> "DomainInputs":
        """The same domain with only the tiles and files behind `window`: small to send to a worker."""
        behind = frozenset(self.behind(window))
        tiles = tuple(
            replace(t, assets=tuple(a for a in t.assets if a in behind)) for t in self.meeting(whole_cells(window))
        )
        return replace(self, tiles=tiles)

    def changed(self, assets: Iterable[Asset]) -> list[str]:
        """One sentence for each file that is gone or whose content is no longer what was indexed."""
        return list(self.changes(assets).values())

    def changes(self, assets: Iterable[Asset]) -> dict[Asset, str]:
        """The files that are gone or whose content is no longer what was indexed, with a sentence each.

        Each is asked once, by threads: a domain has up to twenty thousand files, and a shared file system
        answers after a millisecond.
        """
        asked = list(dict.fromkeys(assets))
        with ThreadPoolExecutor(_ASKERS) as pool:
            return {a: sentence for a, sentence in zip(asked, pool.map(_change, asked), strict=True) if sentence}

    @staticmethod
    def purged(asset: Asset) -> str | None:
        """A sentence where there is no file any more; None where one is there, readable or not."""
        try:
            asset.path.stat()
        except FileNotFoundError:
            return _gone(asset)
        except OSError:
            return None
        return None

    def inputs_digest(self, window: Window) -> str:
        """32 hexadecimal digits over all that the pixels of `window` depend on.

        The files behind it, the tiles and fill that meet it, and its part inside the domain, because
        beyond the domain's edge the image is reflected. Paths and dates do not count.
        """
        inside = window.intersect(self.window)
        tiles = [
            {"window": _edges(t.tile.window), "fill": [(f.value, f.polygons) for f in t.fill]}
            for t in self.meeting(window)
        ]
        assets = sorted(a.content_digest for a in self.behind(window))
        return digest({"inside": _edges(inside), "tiles": tiles, "assets": assets})


def whole_cells(window: Window) -> Window:
    """The smallest window of whole elevation cells that covers `window`."""
    return Window.from_edges(
        window.row // CELL * CELL,
        window.col // CELL * CELL,
        -(-window.bottom // CELL) * CELL,
        -(-window.right // CELL) * CELL,
    )


def _distinct(assets: Iterable[Asset]) -> tuple[Asset, ...]:
    return tuple(sorted(set(assets), key=lambda a: (a.kind, a.path)))


def _edges(window: Window) -> tuple[int, int, int, int]:
    return (window.row, window.col, window.bottom, window.right)


def _change(asset: Asset) -> str | None:
    try:
        stat = asset.path.stat()
        if (stat.st_size, stat.st_mtime_ns) == (asset.size, asset.mtime_ns):
            return None
        if stat.st_size == asset.size and file_signature(asset.path) == asset.signature:
            return None
    except FileNotFoundError:
        return _gone(asset)
    except OSError as error:
        return f"{asset.path}: cannot be read: {error.strerror or error}; restore it, or index the domain again"
    return f"{asset.path}: its content is no longer what was indexed; index the domain again"


def _gone(asset: Asset) -> str:
    return (
        f"{asset.path} cannot be read: No such file or directory. It was indexed, so it was purged (scratch disks "
        "remove what is old), moved or deleted: copy it back to its place, or index the domain again from where it is"
    )
