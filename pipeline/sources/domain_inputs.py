"""A domain in the input catalog as plain values: its tiles, the files behind them and their fill. Opens no raster."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pipeline.config import LimitName
from pipeline.domain import Domain
from pipeline.errors import CatalogError
from pipeline.fingerprint import digest, file_signature
from pipeline.grid import CRS, PIXELS_PER_M, RESOLUTION_M, Affine6, Tile, Window
from pipeline.sources.bit_depth import DEEP, RULE
from pipeline.sources.delivery.acquisition_dates import Days
from pipeline.sources.delivery.attribution import Origin
from pipeline.sources.delivery.names import Kind
from pipeline.sources.http_path import WebPath
from pipeline.sources.short_lists import first_names
from pipeline.sources.validity import Validity
from pipeline.untrusted.in_threads import map_in_threads

RVB = ("red", "green", "blue")
"""Bands of an RVB file, in its order."""
IMAGERY = (*RVB, "nir")
BANDS = (*IMAGERY, "elevation")
"""All bands that a domain can have; FLAIR's fifth band is a height."""

CELL = 250
"""Side in pixels (50 m) of the cells of the lattice in which elevation is resampled.

A cell is always the same request to GDAL, so its floats are the same whatever window is read.
"""

Ring = tuple[tuple[float, float], ...]
Bounds = tuple[float, float, float, float]
"""(left, bottom, right, top) in metres of the lattice's CRS."""


@dataclass(frozen=True, order=True)
class Asset:
    """One file behind a tile, with all that is needed to read it without its header."""

    kind: Kind
    path: Path
    """Absolute."""
    signature: str
    """`fingerprint.file_signature` of its content when it was indexed."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of its last change in nanoseconds when it was indexed."""
    transform: Affine6
    """Affine coefficients of the raster in the lattice's CRS, in metres; north-up."""
    shape: tuple[int, int]
    """(height, width) in the file's own pixels."""
    dtype: str
    """numpy's name of the sample type."""
    block: tuple[int, int]
    """(height, width) of the file's internal blocks."""
    nodata: str | None
    """Nodata value of an elevation file, as text because it may be `nan`; None where there is none."""
    validity: Validity | None = None
    """What a file of imagery states about which pixels are valid; None where all are."""

    @property
    def resolution_m(self) -> float:
        """Side of the file's pixels in metres."""
        return self.transform[0]

    @property
    def href(self) -> str:
        """The file's URL, or its path."""
        return self.path.url if isinstance(self.path, WebPath) else str(self.path)

    @cached_property
    def resampled(self) -> bool:
        """True where the pixels are not those of the lattice: elevation models, and imagery of another resolution."""
        return self.kind in ("dsm", "dtm") or abs(self.resolution_m - RESOLUTION_M) > 1e-6 * RESOLUTION_M

    @property
    def deep(self) -> bool:
        """True for imagery of more than 8 bits, which `bit_depth` converts."""
        return self.kind in ("rvb", "irc") and self.dtype == DEEP

    @cached_property
    def bounds(self) -> Bounds:
        """(left, bottom, right, top) in metres of the lattice's CRS."""
        a, _, left, _, e, top = self.transform
        return (left, top + e * self.shape[0], left + a * self.shape[1], top)

    def meets(self, window: Window) -> bool:
        """True where the file covers a part of the lattice window; a resampled file reaches one pixel further."""
        return self.meets_bounds(window.bounds)

    def meets_bounds(self, bounds: Bounds) -> bool:
        """The same for a window's bounds in metres."""
        left, bottom, right, top = bounds
        own_left, own_bottom, own_right, own_top = self._reached
        return own_left < right and own_right > left and own_bottom < top and own_top > bottom

    @cached_property
    def _reached(self) -> Bounds:
        # A hundredth of a pixel: corners in headers have an error of that order.
        slack = 0.01 / PIXELS_PER_M - (self.resolution_m if self.resampled else 0.0)
        left, bottom, right, top = self.bounds
        return (left + slack, bottom + slack, right - slack, top - slack)

    def __hash__(self) -> int:
        """Of the path alone: a nation's plan looks up each file several times."""
        return hash(self.path)

    @property
    def content(self) -> dict[str, object]:
        """All that the pixels depend on: everything but the file's place and date."""
        return {
            "kind": self.kind,
            "signature": self.signature,
            "transform": [round(c, 6) for c in self.transform],
            "shape": self.shape,
            "nodata": self.nodata,
            # Only where they apply: if a rule changes, nothing else is mapped again.
            **({"levels": RULE} if self.deep else {}),
            **({"validity": self.validity.to_json()} if self.validity else {}),
        }

    @cached_property
    def content_digest(self) -> str:
        """Digest of `content`, kept because a file is behind its neighbours' tiles too."""
        return digest(self.content)


@dataclass(frozen=True, order=True)
class Fill:
    """Area in which a tile's imagery may be fill: there, pixels with the fill's value are nodata."""

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
    """A tile of imagery and all files behind it."""

    tile: Tile
    assets: tuple[Asset, ...]
    """Sorted; elevation files within 100 m of the tile are among them."""
    fill: tuple[Fill, ...] = ()
    """At most one for each value."""
    acquired: Days | None = None
    """First and last day of acquisition, if the delivery states them."""
    hole_share: float | None = None
    """Share of the tile without elevation, 0..1, if `stage` counted it."""

    def files(self, kind: str) -> list[Asset]:
        """The files of a kind."""
        return [a for a in self.assets if a.kind == kind]


@dataclass(frozen=True)
class DomainInputs:
    """A domain as the input catalog describes it."""

    domain: Domain
    window: Window
    """The bounding window of all tiles of the domain, also where `tiles` is only a part of them."""
    tiles: tuple[InputTile, ...]
    """Sorted by name."""
    crs: str = CRS
    """`EPSG:…` of the lattice on which the tiles lie; overseas that of a UTM zone."""
    origin: Origin = field(default_factory=Origin)
    """Producer, licence and citation."""
    acquired: Days | None = None
    """First and last day of acquisition, if the delivery states them."""
    limits: tuple[LimitName, ...] = ()
    """Limits of the model card that the domain exceeds and that were accepted when it was indexed."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tiles."""
        return tuple(t.tile.name for t in self.tiles)

    @cached_property
    def assets(self) -> tuple[Asset, ...]:
        """All files of all tiles, each once, sorted."""
        return _distinct(a for t in self.tiles for a in t.assets)

    def tile(self, name: str) -> InputTile:
        """The tile with this name.

        Raises:
            CatalogError: the domain has no such tile.
        """
        for tile in self.tiles:
            if tile.tile.name == name:
                return tile
        some = first_names(self.names, 12)
        raise CatalogError(f"domain {self.domain} has no tile {name!r}; its {len(self.tiles)} tiles are {some}")

    def meeting(self, window: Window) -> tuple[InputTile, ...]:
        """The tiles that share at least one pixel with `window`, in their order."""
        return tuple(self.tiles[number] for number in self._numbers_meeting(window))

    def _numbers_meeting(self, window: Window) -> list[int]:
        if not (window.pixels and self.tiles):
            return []
        near = {number for square in self._squares_of(window) for number in self._in_squares.get(square, ())}
        top, left, bottom, right = _edges(window)
        return [
            number
            for number in sorted(near)
            if (own := self._tile_edges[number])[0] < bottom and own[2] > top and own[1] < right and own[3] > left
        ]

    @cached_property
    def _tile_edges(self) -> tuple[tuple[int, int, int, int], ...]:
        return tuple(_edges(t.tile.window) for t in self.tiles)

    @cached_property
    def _in_squares(self) -> dict[tuple[int, int], list[int]]:
        """The tiles by the squares in which they lie: a nation's plan needs the neighbours of every tile."""
        found: dict[tuple[int, int], list[int]] = {}
        for number, tile in enumerate(self.tiles):
            for square in self._squares_of(tile.tile.window):
                found.setdefault(square, []).append(number)
        return found

    def _squares_of(self, window: Window) -> Iterator[tuple[int, int]]:
        """The squares as large as a tile that a window meets, by row and column."""
        side = self.tiles[0].tile.window.height
        for row in range(window.row // side, (window.bottom - 1) // side + 1):
            for col in range(window.col // side, (window.right - 1) // side + 1):
                yield row, col

    def behind(self, window: Window) -> tuple[Asset, ...]:
        """The files on which the pixels of `window` depend, each once, sorted."""
        cells = whole_cells(window)
        inside, around = window.bounds, cells.bounds
        found: set[int] = set()
        for number in self._numbers_meeting(cells):
            files = zip(self.tiles[number].assets, self._places[number], strict=True)
            found.update(place for a, place in files if a.meets_bounds(around if a.resampled else inside))
        return tuple(self.assets[place] for place in sorted(found))

    @cached_property
    def _places(self) -> tuple[tuple[int, ...], ...]:
        """For each tile, the places of its files among `assets`: comparing paths would take most of a plan's time."""
        place = {asset: number for number, asset in enumerate(self.assets)}
        return tuple(tuple(place[asset] for asset in tile.assets) for tile in self.tiles)

    def around(self, window: Window) -> "DomainInputs":
        """The same domain with only the tiles and files behind `window`, which makes it small to send to a worker."""
        behind = frozenset(self.behind(window))
        tiles = tuple(
            replace(t, assets=tuple(a for a in t.assets if a in behind)) for t in self.meeting(whole_cells(window))
        )
        return replace(self, tiles=tiles)

    def changes(self, assets: Iterable[Asset]) -> dict[Asset, str]:
        """The files that are missing or have changed since they were indexed, with one sentence each.

        Only a file whose time differs is opened: a nation has 66 000. Headers are compared where pixels are read: see
        `silent_failures.check_header`. Threads check each file once, because a shared file system takes a millisecond.
        """
        distinct = list(dict.fromkeys(assets))
        found = map_in_threads(_change, distinct)
        return {asset: sentence for asset, sentence in zip(distinct, found, strict=True) if sentence}

    @staticmethod
    def purged(asset: Asset) -> str | None:
        """One sentence if the file no longer exists; None if it exists, readable or not."""
        try:
            asset.path.stat()
        except FileNotFoundError:
            return _missing(asset)
        except OSError:
            return None
        return None

    def inputs_digest(self, window: Window) -> str:
        """32 hexadecimal digits over everything on which the pixels of `window` depend.

        That is the files behind it, the tiles and fill that it meets, and its part inside the domain, because the image
        is reflected beyond the domain's edge. Paths and dates do not count.
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
        return _missing(asset)
    except OSError as error:
        return f"{asset.href}: cannot be read: {error.strerror or error}; restore it, or index the domain again"
    return f"{asset.href}: has changed since it was indexed; index the domain again"


def _missing(asset: Asset) -> str:
    return (
        f"{asset.href}: cannot be read because it is missing: since it was indexed it was purged (scratch disks remove "
        "old files), moved or deleted. Copy it back to its place, or index the domain again from where it is"
    )
