"""Areas from a sample that use the map everywhere: regression on its confidence, and composite areas of small zones.

`regression_estimates` is the separate regression estimator (Cochran, Sampling Techniques, 1977, §7; Särndal, Swensson
and Wretman, Model Assisted Survey Sampling, 1992, ch. 6; for maps McRoberts, Remote Sensing of Environment 115, 2011,
and Stehman, International Journal of Remote Sensing 30, 2009). In each stratum, a class of the map, being right is
regressed on the confidence, whose mean over all pixels is known. Where the sample's points happen to be surer than
the stratum, the estimate is corrected. With the map's class alone the difference estimator would be the stratified one
exactly, because the class is the same in a whole stratum. The design keeps the estimate nearly unbiased however wrong
confidences are; they only decide how much narrower the interval is.

`composite_areas` is for zones with too few points of their own. A model says how zones differ:

    true share of zone i  =  Σ W_ih p_ih,     p_ih ~ (p_h, ρ p_h (1 − p_h)), independent

W_ih is the share of map class h in the zone, known from the map, and p_ih the share of h there that truly is of the
searched classes; p_h is its mean, from the whole sample. ρ says how alike points of one zone and class are: with 0 all
zones are alike. It follows from the deviations of zones (moments: Kleinman, JASA 68, 1973; Fay and Herriot, JASA 74,
1979). The estimate lies between p_h, the synthetic part, and the zone's own points, n_ih ρ / (1 + (n_ih − 1) ρ) of the
way (best linear prediction: Rao and Molina, Small Area Estimation, 2015, §5 to §7). Where deviations of the classes
in a zone go together, the model is wrong; errors are then scaled up by how much more zones differ than it says.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from pipeline.errors import EvaluationError
from pipeline.evaluation.area_estimation import Estimate, check_strata
from pipeline.evaluation.share_interval import Floats, share_interval
from pipeline.evaluation.stratified_shares import Counts, Shares

LEAST_FOR_SLOPE = 20
"""Strata with fewer points have no slope, and keep their mean: it would be noise."""
LEAST_ZONES = 10
"""Zones with two or more points of one class, which tell how much zones differ. Fewer are too few for the model."""


@dataclass(frozen=True, eq=False)
class RegressionEstimates:
    """Estimates that use the map's confidence; tuples in the order of the classes."""

    overall: Estimate
    """Share of the area that is mapped correctly."""
    areas: tuple[Estimate, ...]
    """True area of each class, in the unit of the mapped areas; they sum to the mapped area."""


def regression_estimates(
    mapped: NDArray[np.int64],
    reference: NDArray[np.int64],
    confidence: Floats,
    *,
    means: Sequence[float],
    areas: Sequence[float],
    complete: Collection[int] = (),
) -> RegressionEstimates:
    """Overall accuracy and true areas by regression on the confidence.

    Args:
        mapped: int64 (point,): position of the map class, the point's stratum. Points were drawn one by one.
        reference: int64 (point,): position of the true class.
        confidence: float64 (point,): the map's, in any unit.
        means: of the confidence over all pixels of each map class, in the same unit.
        areas: of each map class, in any unit.
        complete: positions of map classes of which all pixels are points, be it a single one.

    Raises:
        EvaluationError: a stratum has area and fewer than two points.
    """
    area, classes = np.asarray(areas, np.float64), np.arange(len(areas))
    check_strata(np.bincount(mapped, minlength=len(area)), area, complete)
    hits = np.concatenate([[mapped == reference], reference == classes[:, None]])
    shares = regression_shares(hits, mapped, confidence, np.asarray(means, np.float64), area / area.sum())
    columns = (shares.value, *shares.interval(), np.sqrt(shares.variance))
    overall, *own = (Estimate(*row) for row in np.stack(columns, axis=-1).tolist())
    return RegressionEstimates(overall, tuple(e * float(area.sum()) for e in own))


def regression_shares(
    hits: NDArray[np.bool_], strata: NDArray[np.int64], auxiliary: Floats, means: Floats, weights: Floats
) -> Shares:
    """Shares of hits by separate regression in each stratum, with the variance of the g-weighted residuals.

    Args:
        hits: bool (figure, point).
        strata: int64 (point,).
        auxiliary: float64 (point,): what the hits are regressed on.
        means: float64 (stratum,): of it over the whole strata.
        weights: float64 (stratum,), sum 1; 0 where a stratum has no points.
    """
    value, variance = np.zeros(len(hits)), np.zeros(len(hits))
    kish, unit = 0.0, 0.0
    for h in np.flatnonzero(weights > 0).tolist():
        own = strata == h
        y, x, n = hits[:, own].astype(np.float64), auxiliary[own], int(own.sum())
        away = x - x.mean()
        square = float(away @ away)
        has_slope = n >= LEAST_FOR_SLOPE and square > 1e-12 * n
        slope = y @ away / square if has_slope else np.zeros(len(y))
        missing = means[h] - x.mean()
        rest = y - y.mean(axis=1, keepdims=True) - slope[:, None] * away
        g = 1 + n * missing * away / square if has_slope else np.ones(n)
        value += weights[h] * (y.mean(axis=1) + slope * missing)
        variance += weights[h] ** 2 * ((g * rest) ** 2).sum(axis=1) / (n * max(n - 1 - has_slope, 1))
        kish, unit = kish + weights[h] ** 2 / n, max(unit, weights[h] / n)
    return Shares(value.clip(0, 1), variance, variance * (1 - kish), np.full(len(hits), unit))


@dataclass(frozen=True, eq=False)
class CompositeAreas:
    """Areas of small zones by the composite model."""

    estimates: tuple[Estimate, ...]
    """True area in each zone, in the unit of the mapped areas; NaN where nothing is mapped."""
    alike: float
    """ρ, 0..1: how alike points of one zone and class are; 0 where zones do not differ."""


def composite_areas(counts: Counts, mapped: Floats, whole: Counts, members: Sequence[int]) -> CompositeAreas:
    """True areas in small zones, which borrow strength from the whole sample.

    Args:
        counts: int64 (zone, map class, reference class): sampled points in each zone; may be 0.
        mapped: float64 (zone, map class): area of each map class in each zone.
        whole: int64 (map class, reference class): all points of the sample.
        members: positions of the searched classes.

    Raises:
        EvaluationError: a zone has a map class without any point in the sample, or too few zones have points.
    """
    area, points = mapped.sum(axis=1), whole.sum(axis=1)
    if unknown := np.flatnonzero((mapped.sum(axis=0) > 0) & (points == 0)).tolist():
        raise EvaluationError(f"map classes {unknown} have no point in the sample, so nothing is known of them")
    hits, found = (c[..., list(members)].sum(axis=-1) for c in (counts, whole))
    share = found / np.maximum(points, 1)
    # Half a hit and half a miss more: the variance of a stratum without a hit is small, not 0.
    smooth = (found + 0.5) / (points + 1)
    single = smooth * (1 - smooth)
    weights = mapped / np.where(area > 0, area, 1)[:, None]
    n = counts.sum(axis=-1)
    deviation = np.where(n > 0, hits / np.maximum(n, 1) - share, 0)
    alike, doubt = _alike(deviation, n, single)
    own = _own_weight(n, alike)
    value = (weights * (share + own * deviation)).sum(axis=1).clip(0, 1)
    # One standard error more than estimated, because 0 is often estimated where zones differ a little.
    most = min(1.0, alike + doubt)
    errors = (weights**2 * single * most * (1 - _own_weight(n, most))).sum(axis=1)
    errors *= _going_together(weights, deviation, n, single, alike)
    errors += (weights**2 * (1 - own) ** 2 * single / np.maximum(points, 1)).sum(axis=1)
    scale = (weights * single).sum(axis=1)
    # Never surer than with all points of the sample in this zone.
    errors = np.maximum(errors, scale / max(int(points.sum()), 1))
    unit = np.minimum(1, errors / np.where(scale > 0, scale, 1))
    rows = np.stack([value, *share_interval(value, errors, unit), np.sqrt(errors)], axis=-1)
    rows[area <= 0] = np.nan
    estimates = (Estimate(*row) * whole_area for row, whole_area in zip(rows.tolist(), area.tolist(), strict=True))
    return CompositeAreas(tuple(estimates), alike)


def _own_weight(n: Counts, alike: float) -> Floats:
    weight: Floats = np.where(n > 0, n * alike / np.maximum(1 + (n - 1) * alike, 1e-9), 0.0)
    return weight


def _variance(n: Counts, single: Floats, alike: float) -> Floats:
    """Of the mean of n points of one zone and class around the mean of all zones."""
    variance: Floats = single * (alike + (1 - alike) / np.maximum(n, 1))
    return variance


def _alike(deviation: Floats, n: Counts, single: Floats) -> tuple[float, float]:
    """ρ, by which the squared deviations are 1 times their variance on average, and its standard error."""
    cells = n >= 2
    if (zones := int(cells.any(axis=1).sum())) < LEAST_ZONES:
        raise EvaluationError(
            f"{zones} zones have two or more sampled points of one mapped class; the model needs {LEAST_ZONES} to find "
            "out how much zones differ"
        )
    squared, several = deviation[cells] ** 2, n[cells]
    one = np.broadcast_to(single, n.shape)[cells]

    def excess(alike: float) -> float:
        return float((squared / _variance(several, one, alike)).mean()) - 1

    found = 0.0 if excess(0.0) <= 0 else 1.0 if excess(1.0) >= 0 else float(brentq(excess, 0.0, 1.0))
    ratios = squared / _variance(several, one, found)
    # Of normal deviations the variance of a ratio is 2; rare classes have more.
    spread = max(2.0, float(ratios.var())) / len(ratios)
    slope = ((1 - 1 / several) / (found + (1 - found) / several)).mean()
    return found, float(np.sqrt(spread) / slope)


def _going_together(weights: Floats, deviation: Floats, n: Counts, single: Floats, alike: float) -> float:
    """By how much more whole zones differ than independent deviations of their classes say; at least 1.

    What zones differ by beyond the chance of their points, as a multiple of what the model says.
    """
    inside = np.where(n > 0, weights, 0)
    seen = (inside * deviation).sum(axis=1) ** 2
    independent, by_chance = (inside**2 * part for part in (single * alike, single * (1 - alike) / np.maximum(n, 1)))
    if not independent.sum() > 0:
        return 1.0
    return max(1.0, float((seen.sum() - by_chance.sum()) / independent.sum()))
