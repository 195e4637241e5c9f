"""Accuracy and areas from a stratified sample (Olofsson et al. 2014, doi 10.1016/j.rse.2014.02.015).

The map's classes are the strata. A sample's counts are weighted by the strata's shares of the map, so that neither
the sample's allocation nor the map's own errors bias accuracy and areas. Equation numbers are the paper's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import EvaluationError

Z_95 = 1.96
"""Half width of a 95 % interval in standard errors, as the paper takes it."""


@dataclass(frozen=True)
class Estimate:
    """A value and half the width of its 95 % interval; `f"{estimate:.1f}"` gives `92.0 ± 10.9`, or `–` for NaN."""

    value: float
    half_width: float

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high)."""
        return (self.value - self.half_width, self.value + self.half_width)

    def __mul__(self, factor: float) -> "Estimate":
        return Estimate(self.value * factor, self.half_width * factor)

    def __format__(self, spec: str) -> str:
        return "–" if math.isnan(self.value) else f"{self.value:{spec}} ± {self.half_width:{spec}}"


@dataclass(frozen=True, eq=False)
class AreaEstimates:
    """Accuracy and areas from a sample; tuples in the order of the sample's classes."""

    overall: Estimate
    """Share of the area that is mapped correctly."""
    users: tuple[Estimate, ...]
    """Share of the area mapped as a class that truly is this class."""
    producers: tuple[Estimate, ...]
    """Share of a class's true area that is mapped as this class; NaN for a class that no sampled point has."""
    areas: tuple[Estimate, ...]
    """True area of each class, in the unit of `mapped`."""


def estimate(counts: NDArray[np.int64], mapped: Sequence[float]) -> AreaEstimates:
    """Area-adjusted accuracy and areas.

    Args:
        counts: int64 (map class, reference class): sampled units; rows are strata.
        mapped: area of each stratum on the map, in any unit.

    Raises:
        EvaluationError: shapes that do not fit, or a stratum with area and fewer than two units: its variance
            cannot be known.
    """
    counts, area = np.asarray(counts), np.asarray(mapped, np.float64)
    if counts.ndim != 2 or counts.shape != (len(area), len(area)) or area.min() < 0 or area.sum() <= 0:
        raise EvaluationError(f"expected counts (class, class) and an area for each class; got {counts.shape}")
    per_stratum = counts.sum(axis=1)
    if thin := np.flatnonzero((area > 0) & (per_stratum < 2)).tolist():
        raise EvaluationError(f"strata {thin} have area and fewer than two sampled units; sample them, or merge strata")
    weights = area / area.sum()
    shares = counts / np.maximum(per_stratum, 1)[:, None]
    # Estimated shares of the whole area (eq. 4).
    proportions = weights[:, None] * shares
    # n − 1 of a stratum without area is never 0 in what counts: its weight is 0.
    spare = np.maximum(per_stratum - 1, 1)
    users, uncertain = np.diag(shares), shares * (1 - shares) / spare[:, None]
    users_variance = np.diag(uncertain)
    column, column_variance = proportions.sum(axis=0), (weights[:, None] ** 2 * uncertain).sum(axis=0)
    # Producer's accuracy and its variance (eq. 7); without a reference of the class both are NaN.
    truth = np.where(column > 0, column, np.nan)
    producers = np.diag(proportions) / truth
    elsewhere = column_variance - weights**2 * users_variance
    producers_variance = (weights**2 * (1 - producers) ** 2 * users_variance + producers**2 * elsewhere) / truth**2
    return AreaEstimates(
        overall=_estimates([np.trace(proportions)], [(weights**2 * users_variance).sum()])[0],
        users=_estimates(users, users_variance),
        producers=_estimates(producers, producers_variance),
        areas=_estimates(column * area.sum(), column_variance * area.sum() ** 2),
    )


def _estimates(values: ArrayLike, variances: ArrayLike) -> tuple[Estimate, ...]:
    half_widths = Z_95 * np.sqrt(np.maximum(variances, 0))
    return tuple(Estimate(float(v), float(h)) for v, h in zip(np.asarray(values), half_widths, strict=True))


def area_of(counts: NDArray[np.int64], mapped: Sequence[float], members: Sequence[int]) -> Estimate:
    """True area of several classes together; their errors among each other cancel, so intervals are not summed.

    Args:
        counts: int64 (map class, reference class), as `estimate` takes them.
        mapped: area of each stratum on the map, in any unit.
        members: positions of the classes.

    Raises:
        EvaluationError: as `estimate`.
    """
    merged = np.zeros((len(mapped), len(mapped)), np.int64)
    merged[:, 0] = np.asarray(counts)[:, list(members)].sum(axis=1)
    merged[:, -1] += np.asarray(counts).sum(axis=1) - merged[:, 0]
    return estimate(merged, mapped).areas[0]


def allocate(mapped: Mapping[int, float], size: int, *, least: int = 50) -> dict[int, int]:
    """Units for each stratum: `least` for each, the rest by area (section 5.1.2 of the paper).

    Args:
        mapped: class → its area on the map; classes without area get no unit.
        size: units in all; at least `least` for each class with area.
        least: units that each class gets at least.

    Raises:
        EvaluationError: too few units for that.
    """
    strata = {k: v for k, v in sorted(mapped.items()) if v > 0}
    if not strata or size < least * len(strata):
        raise EvaluationError(
            f"{size} units are too few: expected at least {least} for each of the {len(strata)} mapped classes; "
            f"ask for {least * len(strata)} or more, or for fewer of each"
        )
    spare, whole = size - least * len(strata), sum(strata.values())
    exact = {k: spare * v / whole for k, v in strata.items()}
    units = {k: least + int(v) for k, v in exact.items()}
    for k in sorted(strata, key=lambda k: exact[k] % 1, reverse=True)[: size - sum(units.values())]:
        units[k] += 1
    return units
