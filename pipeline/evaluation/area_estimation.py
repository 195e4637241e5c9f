"""Accuracy and areas from a stratified sample (Olofsson et al. 2014, doi 10.1016/j.rse.2014.02.015).

The map's classes are the strata. A sample's counts are weighted by the strata's shares of the map, so that neither
the sample's allocation nor the map's own errors bias accuracy and areas. Values and standard errors are the paper's;
its intervals, ± 1.96 standard errors, have no width where a stratum has no errors, and are replaced by those of
`share_interval`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from pipeline.errors import EvaluationError
from pipeline.evaluation.share_interval import Floats, part_interval
from pipeline.evaluation.stratified_shares import Counts, Shares, simple_shares, two_stage_shares

FEW_POINTS = 30
"""Below this number of points a stratum's own figures say little: see `few_points`."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; `f"{estimate:.1f}"` gives `92.0 (81.1 – 97.3)`, or `–` for NaN."""

    value: float
    """NaN where there is nothing to estimate it from."""
    low: float
    high: float
    standard_error: float
    """By the formulas of the paper; 0 where no point of a stratum differs, however few there are."""

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high)."""
        return (self.low, self.high)

    def __mul__(self, factor: float) -> "Estimate":
        return Estimate(*(factor * x for x in (self.value, self.low, self.high, self.standard_error)))

    def __format__(self, spec: str) -> str:
        return "–" if math.isnan(self.value) else f"{self.value:{spec}} ({self.low:{spec}} – {self.high:{spec}})"


@dataclass(frozen=True, eq=False)
class AreaEstimates:
    """Accuracy and areas from a sample; tuples in the order of the sample's classes."""

    overall: Estimate
    """Share of the area that is mapped correctly."""
    users: tuple[Estimate, ...]
    """Share of the area mapped as a class that truly is this class; NaN for a class that is not on the map."""
    producers: tuple[Estimate, ...]
    """Share of a class's true area that is mapped as this class; NaN for a class that no sampled point has."""
    areas: tuple[Estimate, ...]
    """True area of each class, in the unit of `mapped`."""


def estimate(counts: NDArray[np.int64], mapped: Sequence[float], *, complete: Collection[int] = ()) -> AreaEstimates:
    """Area-adjusted accuracy and areas.

    Args:
        counts: int64 (map class, reference class): sampled units; rows are strata. Of a sample in two stages
            (cluster, map class, reference class).
        mapped: area of each stratum on the map, in any unit.
        complete: positions of strata of which all units were sampled, be it a single one.

    Raises:
        EvaluationError: shapes that do not fit, or a stratum with area and fewer than two units, or units in fewer
            than two clusters: its variance cannot be known.
    """
    found, area = _checked(counts, mapped, complete)
    weights, classes = area / area.sum(), range(len(area))
    own, column = np.eye(len(area)), weights[None, :].repeat(len(area), axis=0)
    elsewhere = column * (1 - own)
    hits = np.moveaxis(found, -1, 0)
    right = np.stack([hits[k][..., k] for k in classes], axis=-1)
    correct = _shares(right, found, weights)
    users = _shares(np.moveaxis(right[..., None] * own, -2, 0).astype(np.int64), found, own)
    areas = _shares(hits, found, column)
    rest = elsewhere.sum(axis=1)
    missed = _shares(hits, found, elsewhere / np.where(rest > 0, rest, 1)[:, None])
    unsampled = found.reshape(-1, len(area), len(area)).sum(axis=(0, 2)) == 0
    return AreaEstimates(
        overall=_estimates(correct)[0],
        users=_estimates(users, unknown=unsampled),
        producers=_producers(users, missed, weights, rest),
        areas=tuple(e * float(area.sum()) for e in _estimates(areas)),
    )


def _checked(counts: NDArray[np.int64], mapped: Sequence[float], complete: Collection[int]) -> tuple[Counts, Floats]:
    found, area = np.asarray(counts), np.asarray(mapped, np.float64)
    if found.ndim not in (2, 3) or found.shape[-2:] != (len(area), len(area)) or area.min() < 0 or area.sum() <= 0:
        raise EvaluationError(
            f"expected counts (class, class) or (cluster, class, class) and an area for each class; got {found.shape}"
        )
    points = found.sum(axis=-1)
    per_stratum = points if found.ndim == 2 else points.sum(axis=0)
    check_strata(per_stratum, area, complete)
    if found.ndim == 3 and (thin := np.flatnonzero((area > 0) & ((points > 0).sum(axis=0) < 2)).tolist()):
        raise EvaluationError(f"strata {thin} have sampled units in one cluster only; draw more clusters")
    return found, area


def check_strata(points: Counts, areas: Floats, complete: Collection[int]) -> None:
    """Raises EvaluationError for strata with area and fewer than two units, unless these are all of the stratum's.

    Args:
        points: int64 (stratum,): sampled units.
        areas: float64 (stratum,).
        complete: positions of strata of which all units were sampled.
    """
    few = np.flatnonzero((areas > 0) & (points < 2)).tolist()
    if thin := [k for k in few if not (points[k] and k in complete)]:
        raise EvaluationError(f"strata {thin} have area and fewer than two sampled units; sample them, or merge strata")


def _shares(hits: Counts, counts: Counts, weights: Floats) -> Shares:
    points = counts.sum(axis=-1)
    return simple_shares(hits, points, weights) if counts.ndim == 2 else two_stage_shares(hits, points, weights)


def _estimates(shares: Shares, *, unknown: NDArray[np.bool_] | None = None) -> tuple[Estimate, ...]:
    values = (shares.value, *shares.interval(), np.sqrt(shares.variance))
    return _rows(*(np.where(False if unknown is None else unknown, np.nan, v) for v in values))


def _rows(*columns: Floats) -> tuple[Estimate, ...]:
    return tuple(Estimate(*row) for row in np.stack([np.atleast_1d(c) for c in columns], axis=-1).tolist())


def _producers(users: Shares, missed: Shares, weights: Floats, rest: Floats) -> tuple[Estimate, ...]:
    """Producer's accuracy: of the class's area, what its own stratum has by what all others have (eq. 7)."""
    part = tuple(weights * v for v in (users.value, *users.interval()))
    other = tuple(rest * v for v in (missed.value, *missed.interval()))
    share, low, high = part_interval(part, other)  # type: ignore[arg-type]  # three each
    whole = np.where(np.isnan(share), np.nan, part[0] + other[0])
    variance = weights**2 * (1 - share) ** 2 * users.variance + share**2 * rest**2 * missed.variance
    return _rows(share, low, high, np.sqrt(variance) / whole)


def few_points(names: Sequence[str], points: Sequence[int], *, option: str = "--least") -> str:
    """What it means that some strata have fewer than `FEW_POINTS` points; empty where none has.

    Args:
        names: of the strata with area.
        points: of each.
        option: of the command that draws the sample, by which it draws more.
    """
    few = [f"{name} ({n})" for name, n in zip(names, points, strict=True) if n < FEW_POINTS]
    if not few:
        return ""
    return (
        f"Fewer than {FEW_POINTS} points were drawn of: {', '.join(few)}. Their intervals hold, but are wide, and the "
        "values in them may lie anywhere inside: with 8 points of 8 right, the user's accuracy can be as low as "
        "63 %. Where such a class covers much of the map, all areas are that uncertain. Draw more points of it "
        f"({option}) before you compare or publish figures of it."
    )


def area_of(
    counts: NDArray[np.int64], mapped: Sequence[float], members: Sequence[int], *, complete: Collection[int] = ()
) -> Estimate:
    """True area of several classes together; their errors among each other cancel, so intervals are not summed.

    Args:
        counts: int64 (map class, reference class) or (cluster, map class, reference class), as `estimate` takes them.
        mapped: area of each stratum on the map, in any unit.
        members: positions of the classes.
        complete: as `estimate` takes them.

    Raises:
        EvaluationError: as `estimate`.
    """
    found, area = _checked(counts, mapped, complete)
    shares = _shares(found[..., list(members)].sum(axis=-1), found, area / area.sum())
    return _estimates(shares)[0] * float(area.sum())


def found_areas(hits: NDArray[np.int64], points: NDArray[np.int64], areas: Sequence[float]) -> tuple[Estimate, ...]:
    """Area of each thing that was seen at points, which were drawn one by one.

    Args:
        hits: int64 (thing, stratum): points that have it.
        points: int64 (stratum,): all points.
        areas: of the strata, in any unit.
    """
    area = np.asarray(areas, np.float64)
    shares = simple_shares(hits, points, np.broadcast_to(area / area.sum(), hits.shape))
    return tuple(e * float(area.sum()) for e in _estimates(shares))


def allocate(
    mapped: Mapping[int, float], size: int, *, least: int = 50, most: Mapping[int, int] | None = None
) -> dict[int, int]:
    """Units for each stratum: `least` for each, the rest by area (section 5.1.2 of the paper).

    Args:
        mapped: class → its area on the map; classes without area get no unit.
        size: units in all; at least `least` for each class with area, or all that the class has.
        least: units that each class gets at least.
        most: class → units that there are of it, such as its pixels: a smaller class gets all of them.

    Raises:
        EvaluationError: too few units for that, or more than there are.
    """
    strata = {k: v for k, v in sorted(mapped.items()) if v > 0}
    there = {k: size if most is None else most[k] for k in strata}
    needed = {k: min(least, n) for k, n in there.items()}
    if not strata or size < sum(needed.values()):
        raise EvaluationError(
            f"{size} units are too few: expected at least {least} for each of the {len(strata)} mapped classes; "
            f"ask for {sum(needed.values())} or more, or for fewer of each"
        )
    if size > sum(there.values()):
        raise EvaluationError(f"{size} units are more than the {sum(there.values())} that there are; ask for fewer")
    whole: dict[int, int] = {}
    while True:
        rest = {k: v for k, v in strata.items() if k not in whole}
        spare = size - sum(whole.values()) - sum(needed[k] for k in rest)
        units = {k: needed[k] + n for k, n in _by_area(rest, spare).items()}
        scarce = {k: there[k] for k, n in units.items() if n > there[k]}
        if not scarce:
            return dict(sorted((whole | units).items()))
        whole |= scarce


def _by_area(strata: Mapping[int, float], size: int) -> dict[int, int]:
    """Divides units in proportion to areas; the largest remainders get those that are left."""
    whole = sum(strata.values())
    exact = {k: size * v / whole for k, v in strata.items()}
    units = {k: int(v) for k, v in exact.items()}
    for k in sorted(strata, key=lambda k: exact[k] % 1, reverse=True)[: size - sum(units.values())]:
        units[k] += 1
    return units


@dataclass(frozen=True)
class PlannedUnits:
    """Units that are expected to give an area with a wanted half width."""

    units: dict[int, int]
    """Class of the map → units."""
    half_width: float
    """Expected, as a share of the mapped area."""


MOST_UNITS = 100_000
"""Units that a plan has at most: more than people label."""


def plan_units(
    mapped: Mapping[int, float],
    expected: Mapping[int, float],
    *,
    half_width: float,
    least: int,
    confidence: float = 0.95,
    most: Mapping[int, int] | None = None,
) -> PlannedUnits:
    """The fewest units with which z · √Σ W² p (1 − p) / n is at most the wanted half width.

    This is the stratified variance of Cochran (Sampling Techniques, 1977, eq. 5.14, without its finite correction),
    as Olofsson et al. (eq. 10 and 13) take it; a class of which all units are drawn adds nothing. Beyond `least`,
    units are divided by W · √(p (1 − p)), which needs the fewest (Neyman's allocation, §5.5).

    Args:
        mapped: class → its area on the map.
        expected: class → share of it that is expected to be truly in the searched classes, 0 < share < 1.
        half_width: wanted, as a share of the mapped area.
        least: units that each class gets at least.
        confidence: of the interval.
        most: class → units that there are of it, such as its pixels.

    Raises:
        EvaluationError: more than `MOST_UNITS` would be needed.
    """
    whole, z = sum(mapped.values()), float(ndtri(0.5 + confidence / 2))
    spread = {k: area / whole * math.sqrt(expected[k] * (1 - expected[k])) for k, area in mapped.items() if area > 0}

    there = {k: MOST_UNITS if most is None else most[k] for k in spread}

    def planned(size: int) -> PlannedUnits:
        units = allocate(spread, size, least=least, most=most)
        variance = sum(spread[k] ** 2 / n for k, n in units.items() if most is None or n < most[k])
        return PlannedUnits(units, z * math.sqrt(variance))

    low, high = sum(min(least, n) for n in there.values()), min(MOST_UNITS, sum(there.values()))
    if low > high:
        raise EvaluationError(
            f"{least} points of each of {len(spread)} classes are more than {MOST_UNITS}; ask for fewer (--least)"
        )
    if planned(high).half_width > half_width:
        raise EvaluationError(
            f"a half width of {100 * half_width:.3f} % of the mapped area would take more than {high} points. "
            "Ask for a wider interval"
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if planned(middle).half_width <= half_width else (middle + 1, high)
    return planned(low)
