"""One look at the pixels of a tile's imagery while indexing: its lowest resolution level, in small memory.

A tile of 25 000² px has some 800² there. What is kept of it: which uniform regions touch its edge (`fill`
says what of that is no data), and sums from which means, deviations and correlations follow (`limits`).
"""

import base64
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.windows import Window as RasterWindow
from scipy import ndimage

from pipeline.errors import DeliveryError
from pipeline.sources.bit_depth import as_levels
from pipeline.sources.http_path import gdal_headers

FILL_VALUES = (0, 255)
"""Black and white: what IGN's deliveries are filled with beyond the border."""

FILL_TOLERANCE = 2
"""Levels by which lossy compression lets a uniform field ring."""

NEIGHBOURS = np.ones((3, 3), dtype=np.int8)
"""Cells that touch at a corner are connected."""

_CELLS = 1024
"""At most so many cells a side are read, where a file has no level so low."""

_BLOCK = 4
"""Cells a side over which two files are averaged that have levels of unlike making."""

Labels = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Regions:
    """Numbered regions of a tile's cells, compressed: a domain's tiles are held at once."""

    shape: tuple[int, int]
    packed: bytes
    """zlib of int32 (y, x); 0 = none, others number the regions. Empty where there are none."""

    @classmethod
    def of(cls, labels: Labels) -> "Regions":
        """Packs int32 (y, x)."""
        height, width = labels.shape
        return cls((height, width), zlib.compress(labels.tobytes(), 1) if labels.any() else b"")

    @property
    def any(self) -> bool:
        """True where there is a region."""
        return bool(self.packed)

    @property
    def labels(self) -> Labels:
        """int32 (y, x)."""
        if not self.packed:
            return np.zeros(self.shape, np.int32)
        return np.frombuffer(zlib.decompress(self.packed), np.int32).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over cells that are no candidate for fill, of the components of a tile or of a whole domain."""

    count: int
    """Cells."""
    first: Floats
    """(component,): sums of levels; three components of RVB, then three of IRC where it was looked at."""
    second: Floats
    """(component, component): sums of products of levels."""

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.count + other.count, self.first + other.first, self.second + other.second)

    @property
    def mean(self) -> Floats:
        """(component,) in levels."""
        return self.first / max(1, self.count)

    @property
    def covariance(self) -> Floats:
        """(component, component)."""
        return self.second / max(1, self.count) - np.outer(self.mean, self.mean)

    @property
    def std(self) -> Floats:
        """(component,) in levels."""
        return np.sqrt(np.maximum(0.0, np.diag(self.covariance)))


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen of a tile."""

    cell_m: float
    """Metres of a cell's side."""
    regions: Mapping[int, Regions]
    """Value of `FILL_VALUES` → uniform regions of it that touch the tile's edge."""
    sums: Sums

    def as_json(self) -> dict[str, Any]:
        """JSON-able; `of_json` reads it back."""
        return {
            "cell_m": self.cell_m,
            "shape": next(iter(self.regions.values())).shape,
            "regions": {str(v): base64.b64encode(r.packed).decode() for v, r in self.regions.items()},
            "count": self.sums.count,
            "first": self.sums.first.tolist(),
            "second": self.sums.second.tolist(),
        }

    @classmethod
    def of_json(cls, entry: Mapping[str, Any]) -> "Look":
        """What `as_json` wrote."""
        shape = (int(entry["shape"][0]), int(entry["shape"][1]))
        regions = {int(v): Regions(shape, base64.b64decode(p)) for v, p in entry["regions"].items()}
        sums = Sums(entry["count"], np.array(entry["first"]), np.array(entry["second"]))
        return cls(entry["cell_m"], regions, sums)


def look_key(rvb: str | None, irc: str | None) -> list[str | None]:
    """Under which a journal keeps the look at files of these signatures."""
    return ["look", rvb, irc]


def look(rvb: Path, irc: Path | None) -> Look:
    """Reads the lowest resolution level of a tile's imagery.

    Args:
        rvb, irc: files of three components on one grid, uint8 or deeper; `irc` where infrared is wanted.

    Raises:
        DeliveryError: a file cannot be read.
    """
    paths = [path for path in (rvb, irc) if path is not None]
    # Files of one tile may have other levels; the coarser one's is taken of both.
    factor = max(_lowest_factor(path) for path in paths)
    read = [_cells(path, factor) for path in paths]
    height, width = (min(r.pixels.shape[axis] for r in read) for axis in (1, 2))
    pixels = np.concatenate([r.pixels[:, :height, :width] for r in read])
    regions, data = {}, np.ones((height, width), np.bool_)
    for value in FILL_VALUES:
        difference = pixels if value == 0 else 255 - pixels
        labels = _touching_edge(np.all(difference <= FILL_TOLERANCE, axis=0))
        regions[value] = Regions.of(labels)
        data &= labels == 0
    alike = len({r.averaged for r in read}) == 1
    return Look(factor * read[0].resolution_m, regions, _sums(pixels, data) if alike else _blocked(pixels, data))


def _sums(pixels: NDArray[Any], data: NDArray[np.bool_]) -> Sums:
    levels = pixels[:, data].astype(np.float64)
    return Sums(int(data.sum()), levels.sum(axis=1), levels @ levels.T)


def _blocked(pixels: NDArray[np.uint8], data: NDArray[np.bool_]) -> Sums:
    """Sums over averages of `_BLOCK`² cells: a wavelet's cell lies up to half a cell beside an average's."""
    height, width = (extent // _BLOCK * _BLOCK for extent in data.shape)
    parts = (height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    whole = np.all(data[:height, :width].reshape(parts), axis=(1, 3))
    return _sums(pixels[:, :height, :width].reshape(-1, *parts).mean(axis=(2, 4)), whole)


def _touching_edge(uniform: NDArray[np.bool_]) -> Labels:
    if not uniform.any():
        return np.zeros(uniform.shape, np.int32)
    labels: Labels
    labels, _ = ndimage.label(uniform, structure=NEIGHBOURS, output=np.int32)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    labels[~np.isin(labels, edge)] = 0
    return labels


def lowest_level(path: Path) -> NDArray[np.uint8]:
    """A file's lowest level, at most some 1024² cells: uint8 (band, y, x), see `depth`.

    Raises:
        DeliveryError: the file cannot be read.
    """
    return _cells(path, _lowest_factor(path)).pixels


def _lowest_factor(path: Path) -> int:
    """Pixels a cell's side on a file's lowest level, or so many that `_CELLS` hold it."""
    with _opened(path) as file:
        levels, side = file.overviews(1), max(file.shape)
    factor: int = levels[-1] if levels else 1
    cells: int = -(-side // (factor * _CELLS))
    return factor * cells


@dataclass(frozen=True, eq=False)
class _Level:
    """A file, seen in cells."""

    pixels: NDArray[np.uint8]
    """uint8 (band, y, x)."""
    resolution_m: float
    """Metres of the file's own pixel."""
    averaged: bool
    """True where the cells are averages of pixels, False where they are a level of the file."""


def _cells(path: Path, factor: int) -> _Level:
    """A file in cells of `factor` pixels a side.

    From the level of just this factor; where there is none, whole cells as averages, so that two files
    can be compared.
    """
    with _opened(path) as file:
        levels, resolution = file.overviews(1), float(file.transform.a)
        height, width = (max(1, extent // factor) for extent in file.shape)
        if factor not in levels:
            window = RasterWindow(0, 0, min(file.width, width * factor), min(file.height, height * factor))
            out = (file.count, height, width)
            averages = file.read(window=window, out_shape=out, resampling=Resampling.average)
            return _Level(as_levels(averages), resolution, averaged=True)
    with _opened(path, overview_level=levels.index(factor)) as file:
        return _Level(as_levels(file.read()), resolution, averaged=False)


@contextmanager
def _opened(path: Path, **options: Any) -> Iterator[Any]:
    try:
        with (
            rasterio.Env(GDAL_NUM_THREADS=1, GDAL_DISABLE_READDIR_ON_OPEN="TRUE", **gdal_headers()),
            rasterio.open(path, **options) as file,
        ):
            yield file
    except RasterioIOError as error:
        cause = error.__cause__ or error
        raise DeliveryError(f"{path}: its lowest level cannot be read: {cause}; deliver the file again") from error
