"""Confidence intervals of scores, by bootstrap over zones or patches.

Pixels of one patch, and patches of one zone, are alike: resampling pixels would give intervals far too narrow, so whole
units are drawn with replacement (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import EvaluationError
from pipeline.evaluation.metrics import BY_CLASS, MEANS, Mode, scores

Interval = tuple[float, float]
"""(low, high) of 95 %."""

_LEVEL = (2.5, 97.5)
FEW_UNITS = 10
"""Below this number a bootstrap says little: it knows no zone but those few."""


@dataclass(frozen=True)
class Intervals:
    """95 % percentile intervals, shares 0..1."""

    units: int
    """Zones or patches that were drawn from."""
    means: dict[str, Interval]
    """By the name of a figure of `Scores`."""
    by_class: dict[str, tuple[Interval, ...]]
    """By the name of a figure, in the order of `live`; over the draws in which the figure exists, else NaN."""


def bootstrap(
    matrices: NDArray[np.int64],
    *,
    live: Sequence[int],
    mode: Mode = "legacy",
    draws: int = 1000,
    seed: int = 2022,
) -> Intervals:
    """Intervals of the scores of the sum of `matrices`.

    Args:
        matrices: int64 (unit, n, n): one confusion matrix for each zone or patch.
        live: network indices of the classes to score.
        mode: as in `scores`.
        draws: resamples.
        seed: of the draws; the same gives the same intervals.

    Raises:
        EvaluationError: there are fewer than two units.
    """
    if matrices.ndim != 3 or len(matrices) < 2:
        raise EvaluationError(
            f"expected confusion matrices (unit, n, n) of two or more zones or patches, got {matrices.shape}"
        )
    units, n, _ = matrices.shape
    rng = np.random.default_rng(seed)
    # Counts stay exact in float64 up to 2⁵³ pixels, and only floats are multiplied fast.
    flat = matrices.reshape(units, n * n).astype(np.float64)
    found = []
    for _ in range(draws):
        counts = rng.multinomial(units, np.full(units, 1 / units)).astype(np.float64)
        found.append(scores((counts @ flat).reshape(n, n), live=live, mode=mode))
    values = {name: np.stack([f[name] for f in found]) for name in (*MEANS, *BY_CLASS)}
    means = {name: percentiles(values[name]) for name in MEANS}
    by_class = {name: tuple(percentiles(values[name][:, k]) for k in range(len(live))) for name in BY_CLASS}
    return Intervals(units, means, by_class)


def bootstrap_gains(
    matrices: NDArray[np.int64],
    base: NDArray[np.int64],
    *,
    live: Sequence[int],
    mode: Mode = "legacy",
    draws: int = 1000,
    seed: int = 2022,
) -> dict[str, Interval]:
    """Intervals of the differences between the mean scores of two maps of the same units, drawn together.

    Args:
        matrices: int64 (unit, n, n), of the map.
        base: the same units of the map that it is compared with.
        live: network indices of the classes to score.
        mode: as in `scores`.
        draws: resamples.
        seed: of the draws.

    Raises:
        EvaluationError: there are fewer than two units, or other units.
    """
    if matrices.shape != base.shape or len(matrices) < 2:
        raise EvaluationError(f"expected matrices of the same two or more units, got {matrices.shape}, {base.shape}")
    times = np.random.default_rng(seed).multinomial(len(base), np.full(len(base), 1 / len(base)), draws)
    pairs = [[scores(np.tensordot(t, m, axes=1), live=live, mode=mode) for m in (matrices, base)] for t in times]
    return {name: percentiles(np.array([one[name] - other[name] for one, other in pairs])) for name in MEANS}


def percentiles(values: NDArray[np.float64]) -> Interval:
    """The middle 95 % of draws; those in which the figure does not exist, NaN, are left out. NaN if no draw has it."""
    known = values[~np.isnan(values)]
    if not known.size:
        return (math.nan, math.nan)
    low, high = np.percentile(known, _LEVEL)
    return float(low), float(high)


def few_units(count: int, units: str) -> str:
    """A warning about intervals from few units; empty where there are enough.

    Args:
        count: of the units that were drawn from.
        units: what they are called.
    """
    if count >= FEW_UNITS:
        return ""
    return (
        f"The intervals come from a bootstrap over {count} {units}. Below {FEW_UNITS} they are too narrow, because "
        f"they know no other {units} than these: take them as the least uncertainty"
    )
