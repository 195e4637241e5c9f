"""Agreement of two engines' class maps: overall, by class, and window by window."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.errors import ConfigError
from pipeline.evaluation import confusion_matrix

_VALUES = len(legend.FLAIR) + 1


@dataclass(frozen=True, eq=False)
class Agreement:
    """Agreement of class maps with reference maps over some windows."""

    confusion: NDArray[np.int64]
    """Pixels (reference, other), FLAIR values 0..19; row and column 0 are empty."""
    by_window: tuple[float, ...]
    """Share of each window's valid pixels that agree, 0..1, in the order of the windows."""

    @property
    def overall(self) -> float:
        """Share of all valid pixels that agree, 0..1."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def by_class(self) -> dict[int, float]:
        """FLAIR value → share of the reference's pixels of this class with the same class in the other map."""
        totals = self.confusion.sum(axis=1)
        return {int(v): float(self.confusion[v, v] / totals[v]) for v in np.flatnonzero(totals)}

    @property
    def worst(self) -> list[int]:
        """Positions of the windows, the one with the least agreement first."""
        return sorted(range(len(self.by_window)), key=self.by_window.__getitem__)


def agree(reference: Sequence[NDArray[np.uint8]], other: Sequence[NDArray[np.uint8]]) -> Agreement:
    """Compares class maps, window by window.

    Args:
        reference: uint8 (y, x) of FLAIR values for each window; 0 is no data and counts for nothing.
        other: the same windows by the other engine; what it has where the reference has 0 does not matter.

    Raises:
        ConfigError: no window has a valid pixel.
    """
    confusion = np.zeros((_VALUES, _VALUES), np.int64)
    shares = []
    for one, two in zip(reference, other, strict=True):
        valid = one != legend.NODATA
        counts = confusion_matrix(one[valid], two[valid], _VALUES)
        confusion += counts
        shares.append(float(np.trace(counts) / max(1, counts.sum())))
    if not confusion.any():
        raise ConfigError(f"nothing to compare: none of the {len(shares)} windows has a valid pixel")
    return Agreement(confusion, tuple(shares))
