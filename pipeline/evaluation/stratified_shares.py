"""Shares of an area from a stratified sample, simple or in two stages, with the variance that their intervals need.

Points weigh W / n: the stratum's share of the area by its number of points. In two-stage samples clusters (blocks of
1 km, sheets) are drawn first, and points in them, all points of a stratum with the same probability. Points of one
cluster are alike, so its variance is that between totals of clusters (Taylor linearisation, ultimate clusters: Särndal,
Swensson and Wretman 1992, §4.3 and §5.5), and degrees of freedom are those of the clusters (Satterthwaite), as in Korn
and Graubard's intervals (1998, Survey Methodology 24).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtri, stdtrit

from pipeline.evaluation.share_interval import Floats, share_interval

Z_95 = float(ndtri(0.975))
"""Half width of a 95 % interval of a normal distribution in standard errors."""
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Shares:
    """Estimated shares; arrays of one shape."""

    value: Floats
    """0..1."""
    variance: Floats
    """Unbiased (Olofsson et al. 2014, eq. 5), or that between clusters."""
    spread: Floats
    """The variance that `share_interval` takes: with n equal points x (n − x) / n³."""
    unit: Floats
    """By how much one more point can raise the share."""

    def interval(self) -> tuple[Floats, Floats]:
        """(low, high) of 95 %."""
        return share_interval(self.value, self.spread, self.unit)


def simple_shares(hits: Counts, points: Counts, weights: Floats) -> Shares:
    """Shares from points that were drawn one by one.

    Args:
        hits: int64 (…, stratum).
        points: int64 (stratum,).
        weights: float64 (…, stratum), sum 1; 0 where a stratum has no points.
    """
    n = np.maximum(points, 1)
    p = hits / n
    variance = (weights**2 * p * (1 - p) / np.maximum(n - 1, 1)).sum(axis=-1)
    # 1 / this is the number of points that would do as well if all weighed the same (Kish).
    kish = (weights**2 / n).sum(axis=-1)
    return Shares((weights * p).sum(axis=-1), variance, variance * (1 - kish), (weights / n).max(axis=-1))


def two_stage_shares(hits: Counts, points: Counts, weights: Floats) -> Shares:
    """Shares from points that were drawn in clusters; strata may lie in the clusters or across them.

    Args:
        hits: int64 (…, cluster, stratum).
        points: int64 (cluster, stratum): two or more clusters have points of each stratum with a weight.
        weights: as for `simple_shares`.
    """
    simple = simple_shares(hits.sum(axis=-2), points.sum(axis=0), weights)
    n = np.maximum(points.sum(axis=0), 1)
    clusters = (points > 0).sum(axis=0)
    scale = weights / n * np.sqrt(clusters / np.maximum(clusters - 1, 1))
    p = hits.sum(axis=-2) / n
    totals = (scale[..., None, :] * (hits - points * p[..., None, :])).sum(axis=-1)
    drawn = (points * (weights > 0)[..., None, :]).sum(axis=-1)
    # Clusters that share a stratum vary together: one group, whose degrees of freedom are its clusters less one.
    groups, group = connected_components((points @ points.T) > 0, directed=False)
    member = (group[:, None] == np.arange(groups)).astype(np.float64)
    by_group, free = totals**2 @ member, np.maximum((drawn > 0) @ member - 1, 0)
    variance = by_group.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        satterthwaite = variance**2 / np.where(free > 0, by_group**2 / free, 0).sum(axis=-1)
        least = np.where(free > 0, free, np.inf).min(axis=-1)
        freedom = np.where(variance > 0, satterthwaite, np.broadcast_to(least, variance.shape))
        effect = np.where(simple.spread > 0, variance / simple.spread, 1)
    # How many points of a cluster a further one brings with it is not known where few points are hits: at least the
    # root of a cluster's points, a simulated compromise between 1 and all of them.
    alike = np.sqrt(drawn.sum(axis=-1) / np.maximum((drawn > 0).sum(axis=-1), 1))
    spread = np.maximum(variance, simple.spread) * (stdtrit(freedom, 0.975) / Z_95) ** 2
    return Shares(simple.value, variance, spread, simple.unit * np.maximum(effect, alike))
