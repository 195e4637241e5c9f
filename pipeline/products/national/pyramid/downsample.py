"""Counts the classes in coarser cells, and takes their mode and mean: pure arithmetic on integers.

The counts of a coarser level are sums of a finer level's counts, so every level is exact, as if it was counted from
level 0. A mode of modes or a mean of rounded means would not be exact.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import legend

CLASSES = 1 + max(legend.BY_VALUE)
"""Number of product values, 0..19 with no data: the length of every class axis."""


@dataclass(frozen=True, eq=False)
class CellCounts:
    """Counts of the classes, and sums of the confidence, in square cells of a class map."""

    values: NDArray[np.uint8]
    """(class,): the product values that occur, ascending."""
    counts: NDArray[np.unsignedinteger]
    """(class, y, x): pixels of each of these values in each cell."""
    confidence: NDArray[np.unsignedinteger]
    """(y, x): the sum of confidence over the pixels with data."""

    def coarser(self, factor: int) -> "CellCounts":
        """Counts in cells `factor` times as wide; `factor` must divide both sides."""
        if factor == 1:
            return self
        return CellCounts(self.values, _block_sums(self.counts, factor), _block_sums(self.confidence, factor))

    @property
    def dense(self) -> NDArray[np.uint32]:
        """uint32 (class, y, x) over all values 0..19."""
        full: NDArray[np.uint32] = np.zeros((CLASSES, *self.counts.shape[1:]), np.uint32)
        full[self.values] = self.counts
        return full

    def of(self, layer: legend.Layer) -> NDArray[np.uint8]:
        """uint8 (y, x): the cells of a layer, the mode of the classes or the mean of the confidence."""
        return self.mode if layer == "landcover" else self.mean

    @property
    def mode(self) -> NDArray[np.uint8]:
        """uint8 (y, x): the most frequent class, the lowest value of equals; 0 only where all pixels are no data."""
        live = self.values != legend.NODATA
        if not live.any():
            return np.zeros(self.counts.shape[1:], np.uint8)
        counts = self.counts[live]
        # argmax takes the first of equals, and the values ascend.
        winner: NDArray[np.uint8] = self.values[live][counts.argmax(axis=0)]
        winner[~counts.any(axis=0)] = legend.NODATA
        return winner

    @property
    def mean(self) -> NDArray[np.uint8]:
        """uint8 (y, x): mean confidence of the pixels with data, rounded half up; 0 only where all are no data.

        Pixels with data have a confidence of at least 1, and so do their cells. Where foreign data break this rule the
        mean is still 1, because 0 is no data.
        """
        pixels: NDArray[np.uint64] = self.counts[self.values != legend.NODATA].sum(axis=0, dtype=np.uint64)
        # 64 bits, because twice the sum over a cell can be 2 · 255 · cell².
        twice = 2 * self.confidence.astype(np.uint64)
        rounded = np.maximum((twice + pixels) // np.maximum(2 * pixels, 1), 1)
        return np.where(pixels > 0, rounded, legend.NODATA).astype(np.uint8)


def count_cells(classes: NDArray[np.uint8], confidence: NDArray[np.uint8], *, factor: int) -> CellCounts:
    """Counts cells of `factor` × `factor` pixels.

    Args:
        classes: uint8 (y, x), 0..19, at least one pixel; 0 is no data.
        confidence: uint8 (y, x); ignored where there is no data.
        factor: divides both sides.

    Raises:
        ValueError: `factor` does not divide both sides, or a value is not a class.
    """
    if classes.shape[0] % factor or classes.shape[1] % factor:
        raise ValueError(f"{classes.shape} pixels (y, x) are not whole cells of {factor} px a side")
    low, high = int(classes.min()), int(classes.max())
    if high >= CLASSES:
        raise ValueError(f"value {high} is not a class: expected 0..{CLASSES - 1}")
    found = [(value, mask) for value in range(low, high + 1) if (mask := classes == value).any()]
    counts = [_block_sums(mask.view(np.uint8), factor, largest=1) for _, mask in found]
    sure = confidence if low > legend.NODATA else np.where(classes != legend.NODATA, confidence, 0)
    return CellCounts(
        np.array([value for value, _ in found], np.uint8),
        np.stack(counts),
        _block_sums(sure, factor, largest=255),
    )


def _block_sums(
    array: NDArray[np.unsignedinteger], side: int, *, largest: int | None = None
) -> NDArray[np.unsignedinteger]:
    """Sums over blocks of `side`² of the last two axes.

    Args:
        array: unsigned (…, y, x).
        side: divides both.
        largest: of the array's values, which decides the smallest type for the sums; None for 32 bits, enough for
            the confidences of cells of 4 096 px, or for the array's own 64 bits.
    """
    *rest, height, width = array.shape
    dtype = np.result_type(np.uint32, array.dtype) if largest is None else np.min_scalar_type(largest * side**2)
    rows = array.reshape(*rest, height // side, side, width).sum(axis=-2, dtype=dtype)
    # Strided sums: a reduction over an axis of 5 is an order of magnitude slower.
    total: NDArray[np.unsignedinteger] = rows[..., ::side].copy()
    for offset in range(1, side):
        total += rows[..., offset::side]
    return total
