"""Reads the lowest resolution level of a tile's imagery while it is indexed, in little memory.

A tile of 25 000² px has about 800² cells there. Two things are kept: the uniform regions that touch its edge
(`nodata_fill` decides which of them are nodata), and sums that give means, deviations and correlations
(`model_card_limits`, `band_pairing`).
"""

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError

from pipeline.errors import DeliveryError, SourceError
from pipeline.sources.bit_depth import is_fill, to_levels
from pipeline.sources.gdal_open import environment, open_dataset
from pipeline.sources.validity import Validity

FILL_VALUES = (0, 255)
"""Black and white, with which IGN fills deliveries beyond the border."""

NEIGHBOURS = np.ones((3, 3), dtype=np.int8)
"""Structuring element of scipy: cells that touch at a corner are connected."""

_MAX_CELLS = 1024
"""Cells a side that are read of a file without such a low level."""

_BLOCK = 4
"""Side in cells of the blocks that are averaged to compare two files whose levels were made in different ways."""

_AVERAGE = Resampling.average
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

    @classmethod
    def of(cls, levels: NDArray[Any]) -> "BandSums":
        """Sums over (component, cell)."""
        samples = levels.astype(np.float64)
        return cls(samples.shape[1], samples.sum(axis=1), samples @ samples.T)

    def select(self, components: Sequence[int]) -> "BandSums":
        """The sums of some components, in this order."""
        at = list(components)
        return BandSums(self.count, self.first[at], self.second[np.ix_(at, at)])

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


def cache_key(rvb: str | None, irc: str | None, *, stated: bool = False) -> list[str | None]:
    """The key in the scan cache of the lowest level of files with these signatures.

    Args:
        rvb: signature of the file of colours.
        irc: signature of the file of infrared.
        stated: whether a file states which of its pixels are valid; others do not count since version 0.3.
    """
    return ["look, valid" if stated else "look", rvb, irc]


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
    height, width = (min(r.levels.shape[axis] for r in read) for axis in (1, 2))
    pixels = np.concatenate([r.levels[:, :height, :width] for r in read])
    packed, data = {}, np.all([r.valid[:height, :width] for r in read], axis=0)
    for value in FILL_VALUES:
        labels = _touching_edge(np.all(is_fill(pixels, value), axis=0))
        packed[value] = zlib.compress(labels.tobytes(), 1) if labels.any() else b""
        data &= labels == 0
    comparable = len({r.averaged for r in read}) == 1
    sums = BandSums.of(pixels[:, data]) if comparable else _block_sums(pixels, data)
    return LowestLevel(read[0].cell_m, (height, width), packed, sums)


def _block_sums(pixels: NDArray[np.uint8], data: NDArray[np.bool_]) -> BandSums:
    """Sums over averages of `_BLOCK`² cells: the cells of a wavelet and of an average lie up to half a cell apart."""
    height, width = (extent // _BLOCK * _BLOCK for extent in data.shape)
    parts = (height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    whole = np.all(data[:height, :width].reshape(parts), axis=(1, 3))
    return BandSums.of(pixels[:, :height, :width].reshape(-1, *parts).mean(axis=(2, 4))[:, whole])


def _touching_edge(uniform: NDArray[np.bool_]) -> Labels:
    if not uniform.any():
        return np.zeros(uniform.shape, np.int32)
    from scipy import ndimage

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
    return _read_cells(path, _lowest_factor(path)).levels


def _lowest_factor(path: Path) -> int:
    """Side in pixels of a cell of a file's lowest level, or of larger cells so that at most `_MAX_CELLS` are read."""
    with _opened(path) as file:
        levels, side = file.overviews(1), max(file.shape)
    factor: int = levels[-1] if levels else 1
    cells: int = -(-side // (factor * _MAX_CELLS))
    return factor * cells


@dataclass(frozen=True, eq=False)
class _Cells:
    levels: NDArray[np.uint8]
    """uint8 (band, y, x), without transparency."""
    valid: NDArray[np.bool_]
    """bool (y, x): False where the file states nodata."""
    cell_m: float
    """Side of a cell in metres."""
    averaged: bool
    """True if the cells are averages, False if they are a level of the file."""


def _read_cells(path: Path, factor: int) -> _Cells:
    """Reads a file in cells of `factor` pixels a side.

    From the level with exactly this factor; if there is none, whole cells as averages, so that two files can be
    compared.
    """
    with _opened(path, georeference=True) as file:
        cell_m, stated = factor * float(file.transform.a), Validity.of(file)
        bands = [i for i in file.indexes if i != stated.alpha]
    with _opened(path) as file:
        levels = file.overviews(1)
        height, width = (max(1, extent // factor) for extent in file.shape)
        window = ((0, min(file.height, height * factor)), (0, min(file.width, width * factor)))
        place: dict[str, Any] = {"window": window, "out_shape": (height, width)}
        valid = _valid_cells(path, file, stated, place)
        if factor not in levels:
            averages = file.read(bands, **place | {"out_shape": (len(bands), height, width)}, resampling=_AVERAGE)
            return _Cells(to_levels(averages), valid & _not_nodata(averages, stated, bands), cell_m, averaged=True)
    with _opened(path, overview_level=levels.index(factor)) as file:
        if max(file.shape) > 2 * _MAX_CELLS:
            raise DeliveryError(
                f"{path}: its level {factor} has {file.height} × {file.width} px, which do not fit those of the file, "
                f"{height * factor} × {width * factor}; download the file again"
            )
        cells = file.read(bands)
        if stated.stated:
            height, width = min(height, cells.shape[1]), min(width, cells.shape[2])
            cells, valid = cells[:, :height, :width], valid[:height, :width]
        else:
            valid = np.ones(cells.shape[1:], np.bool_)
        return _Cells(to_levels(cells), valid & _not_nodata(cells, stated, bands), cell_m, averaged=False)


def _valid_cells(path: Path, file: Any, stated: Validity, place: dict[str, Any]) -> NDArray[np.bool_]:
    """bool (y, x): True where mask and transparency leave most of a cell."""
    valid = np.ones(place["out_shape"], np.bool_)
    if stated.masks:
        valid &= file.read_masks(stated.masks[0], **place) >= 128
    if stated.alpha is not None:
        alpha = to_levels(file.read(stated.alpha, **place))
        check_transparency(path, stated.alpha, alpha)
        valid &= alpha >= 128
    return valid


def check_transparency(path: Path, band: int, alpha: NDArray[np.uint8]) -> None:
    """Refuses a band of transparency that has the levels of imagery, as infrared does that a program declared so.

    Raises:
        DeliveryError: more than a twentieth of its values is neither transparent nor opaque.
    """
    if alpha.size and alpha.max() == 1:
        raise DeliveryError(f"{path}: its band {band} is transparency of 0 and 1; expected 0 and 255: write it so")
    between = float(((alpha > 32) & (alpha < 223)).mean())
    if between > 0.05:
        raise DeliveryError(
            f"{path}: its band {band} is declared as transparency, and {between:.0%} of it are levels between; if "
            "it is infrared, declare it so: `rio edit-info --colorinterp red,green,blue,undefined FILE`"
        )


def _not_nodata(levels: NDArray[Any], stated: Validity, bands: Sequence[int]) -> NDArray[np.bool_]:
    """bool (y, x): False where a band has its nodata value, or all are 0 and blocks were never written."""
    valid = np.ones(levels.shape[1:], np.bool_)
    if stated.unwritten:
        valid &= levels.any(axis=0)
    for i, band in enumerate(bands):
        if stated.nodata and stated.nodata[band - 1] is not None:
            valid &= levels[i] != stated.nodata[band - 1]
    return valid


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
