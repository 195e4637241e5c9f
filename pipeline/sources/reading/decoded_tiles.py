"""Decodes each internal tile of an imagery file once in a process, and keeps it until the last read that needs it.

GDAL keeps the blocks that were used last, of each open file and in each thread for itself. Reads that overlap in two
directions need a block again long after, or in another thread, so it is decoded 1.4 times. Here the plan of the reads
says which tiles several of them need. Those are kept for all threads, in whatever order the reads come; the others go
straight into the result.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.gdal_open import open_dataset
from pipeline.sources.http_path import WebPath
from pipeline.sources.reading import vrt
from pipeline.sources.reading.openjpeg import (
    Codestream,
    can_select_components,
    first_component,
    tiles_are_alike,
)

_LEAST_SIDE, _MOST_PIXELS = 64, 1 << 22
"""Narrower blocks are strips of rows. Larger ones are whole files, or would leave room for few."""
_UNIT = 1_024
"""Smaller blocks are read together, up to this side: each read has a cost of its own."""

_Key = tuple[str, str, tuple[int, ...], Window]
_Levels = NDArray[np.uint8]


@dataclass(frozen=True)
class ReadPlan:
    """The reads that a process will probably make, in any order, and the memory for tiles that several of them need."""

    windows: tuple[Window, ...]
    """Positions on the lattice."""
    memory_bytes: int
    """For all plans of the process together."""


def has_tiles(asset: Asset) -> bool:
    """True for imagery on the lattice, in 8 bits and in internal tiles, which `read_tiles` can read.

    Raises:
        CatalogError: the catalog has no such blocks.
    """
    height, width = vrt.sides(asset, "block")
    tiled = min(height, width) >= _LEAST_SIDE and height * width <= _MOST_PIXELS
    return tiled and asset.dtype == "uint8" and not asset.resampled


def read_tiles(
    assets: Iterable[Asset], out: _Levels, window: Window, *, indexes: Sequence[int], plan: ReadPlan
) -> None:
    """Reads bands of imagery files in a lattice window; call it inside of `dataset_cache.gdal_options`.

    Args:
        assets: files for which `has_tiles` is true. Where they overlap, the last one is used.
        out: uint8 (band, y, x) over `window`; what no file covers is left as it is.
        window: position on the lattice.
        indexes: bands, counted from 1.
        plan: the other reads.

    Raises:
        rasterio.errors.RasterioIOError: a file cannot be opened or read.
        SourceError: a file has another shape than in the catalog.
    """
    for asset in assets:
        with _File(asset, tuple(indexes)) as file:
            elsewhere = []
            for tile in file.tiles(window):
                kept, own = _KEPT.claim(file.key(tile), tile, window, plan)
                if kept is None:
                    part = tile.intersect(window)
                    file.read(part, out=out[:, *part.slices_in(window)])
                elif own or kept.pixels.done():
                    _put(file, tile, kept, own=own, out=out, window=window, plan=plan)
                else:
                    elsewhere.append((tile, kept))
            # After all others, because threads that need the same tiles would wait for each other at each of them.
            for tile, kept in elsewhere:
                _put(file, tile, kept, own=False, out=out, window=window, plan=plan)


def _put(
    file: "_File", tile: Window, kept: "_KeptTile", *, own: bool, out: _Levels, window: Window, plan: ReadPlan
) -> None:
    if own:
        _KEPT.fill(file.key(tile), kept, file, tile, plan.memory_bytes)
    part = tile.intersect(window)
    out[:, *part.slices_in(window)] = kept.pixels.result()[:, *part.slices_in(tile)]
    _KEPT.release(file.key(tile), kept, window)


class _File:
    """A file of imagery that is opened when the first tile of it must be decoded, and closed with the block.

    GDAL forgets a file's blocks when it is closed, and they are needed no more.
    """

    def __init__(self, asset: Asset, indexes: tuple[int, ...]) -> None:
        self._asset, self._indexes = asset, indexes
        left, top = asset.transform[2], asset.transform[5]
        self._extent = Window(-round(top * PIXELS_PER_M), round(left * PIXELS_PER_M), *vrt.sides(asset, "shape"))
        self._opened: Any = None
        self._codestream: Codestream | None = None
        self._closing = ExitStack()

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def key(self, tile: Window) -> _Key:
        return str(self._asset.path), self._asset.signature, self._indexes, tile

    def tiles(self, window: Window) -> Iterator[Window]:
        """Positions on the lattice of the file's tiles that meet a window, whole, row by row."""
        part = window.intersect(self._extent).within(self._extent)
        height, width = _unit(vrt.sides(self._asset, "block"))
        for row in range(part.row // height * height, part.bottom if part.pixels else 0, height):
            for col in range(part.col // width * width, part.right, width):
                tile = Window(self._extent.row + row, self._extent.col + col, height, width)
                yield tile.intersect(self._extent)

    def read(self, part: Window, *, out: _Levels | None = None) -> _Levels:
        """The pixels of a part of the lattice inside the file: uint8 (band, y, x)."""
        if self._opened is None:
            self._opened = self._closing.enter_context(self._open())
            self._codestream = self._independent_components()
        place = part.within(self._extent)
        if self._codestream is None:
            pixels: _Levels = self._opened.read(list(self._indexes), window=place.slices, out=out)
            return pixels
        pixels = np.empty((1, *part.shape), np.uint8) if out is None else out
        height, width = self._codestream.tile
        for row in range(place.row // height, -(-place.bottom // height)):
            for col in range(place.col // width, -(-place.right // width)):
                tile = Window(row * height, col * width, height, width)
                common = tile.intersect(place)
                samples = first_component(self._asset.path, self._codestream, row=row, col=col)
                pixels[0][common.slices_in(place)] = samples[common.slices_in(tile)]
        return pixels

    def _independent_components(self) -> Codestream | None:
        """The codestream if only the first component is read, and can be decoded alone."""
        path = self._asset.path
        if self._indexes != (1,) or path.suffix.lower() != ".jp2" or isinstance(path, WebPath):
            return None
        found = _independent(path, self._asset.signature)
        # A single tile may be as large as the file: GDAL decodes parts of it.
        return found if found and (found.shape, found.tile) == (self._extent.shape, self._asset.block) else None

    def _open(self) -> Any:
        path = self._asset.path
        # A truncated codestream must be an error, not zeros.
        options: dict[str, Any] = {"STRICT": "YES"} if path.suffix.lower() == ".jp2" else {}
        file = open_dataset(path, **options)
        if file.shape != self._extent.shape:
            file.close()
            raise SourceError(
                f"{path}: has {file.shape} px; expected {self._extent.shape}, as in the catalog; index the domain again"
            )
        return file


def _unit(block: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the blocks that are read together."""
    height, width = (side * max(1, _UNIT // side) for side in block)
    return (height, width) if height * width <= _MOST_PIXELS else block


@lru_cache(maxsize=64)
def _independent(path: Path, signature: str) -> Codestream | None:  # noqa: ARG001  (a replaced file is read again)
    found = Codestream.of(path) if can_select_components() else None
    return found if found and found.independent and tiles_are_alike(path, found) else None


@dataclass(eq=False)
class _KeptTile:
    """A tile that several reads need."""

    pixels: Future[_Levels] = field(default_factory=Future)
    to_come: set[Window] = field(default_factory=set)
    """The planned reads that need it still."""
    known: set[Window] = field(default_factory=set)
    """All reads that were planned for it so far: a later plan adds to them."""


class _KeptTiles:
    """The kept tiles of a process, for all threads; the least recently used first."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tiles: OrderedDict[_Key, _KeptTile] = OrderedDict()

    def claim(self, key: _Key, tile: Window, window: Window, plan: ReadPlan) -> tuple[_KeptTile | None, bool]:
        """The kept tile for a read, and whether the caller must `fill` it; None if no other read needs it."""
        needed = {w for w in plan.windows if w.intersect(tile).pixels}
        with self._lock:
            kept, own = self._tiles.get(key), False
            if kept is None:
                if not plan.memory_bytes or not needed - {window}:
                    return None, False
                kept, own = self._tiles.setdefault(key, _KeptTile()), True
            kept.to_come |= needed - kept.known
            kept.known |= needed
            self._tiles.move_to_end(key)
        return kept, own

    def fill(self, key: _Key, kept: _KeptTile, file: _File, tile: Window, memory_bytes: int) -> None:
        """Decodes a claimed tile, and forgets those that were not used for the longest time if there are too many."""
        try:
            pixels = file.read(tile)
        except BaseException as error:
            with self._lock:
                self._tiles.pop(key, None)
            kept.pixels.set_exception(error)
            raise
        pixels.flags.writeable = False
        kept.pixels.set_result(pixels)
        with self._lock:
            sizes = {k: t.pixels.result().nbytes for k, t in self._tiles.items() if t.pixels.done()}
            excess = sum(sizes.values()) - memory_bytes
            for oldest, size in sizes.items():
                if excess <= 0:
                    break
                del self._tiles[oldest]
                excess -= size

    def release(self, key: _Key, kept: _KeptTile, window: Window) -> None:
        """Ends a read of a tile; after the last one it is forgotten."""
        with self._lock:
            kept.to_come.discard(window)
            if not kept.to_come and self._tiles.get(key) is kept:
                del self._tiles[key]


_KEPT = _KeptTiles()
