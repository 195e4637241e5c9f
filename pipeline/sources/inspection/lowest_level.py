"""Reads the lowest resolution level of a tile's imagery while it is indexed, in little memory.

A tile of 25 000² px has about 800² cells there. Two things are kept: the uniform regions that touch its edge
(`nodata_fill` decides which of them are nodata), and sums that give means, deviations and correlations
(`model_card_limits`, `band_pairing`).
"""

import base64
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from scipy import ndimage

from pipeline.errors import DeliveryError, SourceError
from pipeline.sources.bit_depth import is_fill, to_levels
from pipeline.sources.gdal_open import environment, open_dataset

FILL_VALUES = (0, 255)
"""Black and white, with which IGN fills deliveries beyond the border."""

NEIGHBOURS = np.ones((3, 3), dtype=np.int8)
"""Structuring element of scipy: cells that touch at a corner are connected."""

_MAX_CELLS = 1024
"""Cells a side that are read of a file without such a low level."""

_BLOCK = 4
"""Side in cells of the blocks that are averaged to compare two files whose levels were made in different ways."""

Labels = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BandSums:
    """Sums of levels over the cells of a tile, or of a whole domain, that cannot be fill."""

    count: int
    """Number of cells."""
    first: Floats
    """(component,): sums of levels; three components of RVB, then three of IRC if it was read."""
    second: Floats
    """(component, component): sums of products of levels."""

    def __add__(self, other: "BandSums") -> "BandSums":
        return BandSums(self.count + other.count, self.first + other.first, self.second + other.second)

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
class LowestLevel:
    """What is kept of the lowest level of a tile's imagery."""

    cell_m: float
    """Side of a cell in metres."""
    shape: tuple[int, int]
    """(height, width) in cells."""
    packed: Mapping[int, bytes]
    """Value of `FILL_VALUES` → zlib of the labels of uniform regions with this value that touch the tile's edge; empty
    if there are none. Compressed because all tiles of a domain are in memory together."""
    sums: BandSums

    def labels(self, value: int) -> Labels:
        """Numbers of the regions with a value that has some: int32 (y, x), 0 outside of them."""
        return np.frombuffer(zlib.decompress(self.packed[value]), np.int32).reshape(self.shape)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values, for `from_json`."""
        return {
            "cell_m": self.cell_m,
            "shape": self.shape,
            "regions": {str(v): base64.b64encode(p).decode() for v, p in self.packed.items()},
            "count": self.sums.count,
            "first": self.sums.first.tolist(),
            "second": self.sums.second.tolist(),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "LowestLevel":
        """From the values of `to_json`."""
        shape = (int(entry["shape"][0]), int(entry["shape"][1]))
        packed = {int(v): base64.b64decode(p) for v, p in entry["regions"].items()}
        sums = BandSums(entry["count"], np.array(entry["first"]), np.array(entry["second"]))
        return cls(entry["cell_m"], shape, packed, sums)


def cache_key(rvb: str | None, irc: str | None) -> list[str | None]:
    """The key in the scan cache of the lowest level of files with these signatures."""
    return ["look", rvb, irc]


def read_lowest_level(rvb: Path, irc: Path | None) -> LowestLevel:
    """Reads the lowest resolution level of a tile's imagery.

    Args:
        rvb: file of three components, uint8 or deeper.
        irc: a second file on the same grid, if infrared is wanted.

    Raises:
        DeliveryError: a file cannot be read.
    """
    paths = [path for path in (rvb, irc) if path is not None]
    # If the files have different levels, the coarser of the lowest ones is used for both.
    factor = max(_lowest_factor(path) for path in paths)
    read = [_read_cells(path, factor) for path in paths]
    height, width = (min(cells.shape[axis] for cells, _, _ in read) for axis in (1, 2))
    pixels = np.concatenate([cells[:, :height, :width] for cells, _, _ in read])
    packed, data = {}, np.ones((height, width), np.bool_)
    for value in FILL_VALUES:
        labels = _touching_edge(np.all(is_fill(pixels, value), axis=0))
        packed[value] = zlib.compress(labels.tobytes(), 1) if labels.any() else b""
        data &= labels == 0
    comparable = len({averaged for _, _, averaged in read}) == 1
    sums = _sums(pixels, data) if comparable else _block_sums(pixels, data)
    return LowestLevel(read[0][1], (height, width), packed, sums)


def _sums(pixels: NDArray[Any], data: NDArray[np.bool_]) -> BandSums:
    levels = pixels[:, data].astype(np.float64)
    return BandSums(int(data.sum()), levels.sum(axis=1), levels @ levels.T)


def _block_sums(pixels: NDArray[np.uint8], data: NDArray[np.bool_]) -> BandSums:
    """Sums over averages of `_BLOCK`² cells: the cells of a wavelet and of an average lie up to half a cell apart."""
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


def read_lowest_cells(path: Path) -> NDArray[np.uint8]:
    """Reads a file's lowest level, at most about 1024² cells: uint8 (band, y, x), converted by `bit_depth`.

    Raises:
        DeliveryError: the file cannot be read.
    """
    return _read_cells(path, _lowest_factor(path))[0]


def _lowest_factor(path: Path) -> int:
    """Side in pixels of a cell of a file's lowest level, or of larger cells so that at most `_MAX_CELLS` are read."""
    with _opened(path) as file:
        levels, side = file.overviews(1), max(file.shape)
    factor: int = levels[-1] if levels else 1
    cells: int = -(-side // (factor * _MAX_CELLS))
    return factor * cells


def _read_cells(path: Path, factor: int) -> tuple[NDArray[np.uint8], float, bool]:
    """Reads a file in cells of `factor` pixels a side.

    From the level with exactly this factor; if there is none, whole cells as averages, so that two files can be
    compared.

    Returns:
        uint8 (band, y, x); the side of a cell in metres; and True if the cells are averages, False if they are a level
        of the file.
    """
    with _opened(path, georeference=True) as file:
        cell_m = factor * float(file.transform.a)
    with _opened(path) as file:
        levels = file.overviews(1)
        height, width = (max(1, extent // factor) for extent in file.shape)
        if factor not in levels:
            window = ((0, min(file.height, height * factor)), (0, min(file.width, width * factor)))
            out = (file.count, height, width)
            averages = file.read(window=window, out_shape=out, resampling=Resampling.average)
            return to_levels(averages), cell_m, True
    with _opened(path, overview_level=levels.index(factor)) as file:
        if max(file.shape) > 2 * _MAX_CELLS:
            raise DeliveryError(
                f"{path}: its level {factor} has {file.height} × {file.width} px, which do not fit those of the file, "
                f"{height * factor} × {width * factor}; download the file again"
            )
        return to_levels(file.read()), cell_m, False


@contextmanager
def _opened(path: Path, *, georeference: bool = False, **options: Any) -> Iterator[Any]:
    try:
        with environment([path], georeference=georeference), open_dataset(path, **options) as file:
            yield file
    except SourceError as error:
        raise DeliveryError(str(error)) from error
    except RasterioIOError as error:
        cause = error.__cause__ or error
        raise DeliveryError(f"{path}: its lowest level cannot be read: {cause}; download the file again") from error
