"""Areas of true change, from places that were drawn of what a map shows as stable and as changed.

The strata are the kinds of change on the map. As in `area_estimation`, counts are weighted by the strata's shares of
the area, so that neither the number of places of each stratum nor the map's own errors bias the areas.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.area_estimation import Estimate, estimate, found_areas
from pipeline.evaluation.stratified_shares import Counts

_STABLE, _CHANGED = 0, 1


@dataclass(frozen=True, eq=False)
class ChangeAreas:
    """Change of the land, estimated from interpreted places."""

    changed: Estimate
    """Area that truly changed, in the unit of the strata's areas."""
    right: Estimate
    """Share of the mapped land change that is true, 0..1."""
    found: Estimate
    """Share of the true change that is mapped as land change, 0..1."""
    by_class: dict[tuple[int, int], Estimate]
    """(class before, class after), of those that some place has → area."""


def change_areas(
    strata: NDArray[np.int64],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    areas: Sequence[float],
) -> ChangeAreas:
    """Estimates the change.

    Args:
        strata: int64 (place,): 0 stable, 1 land change, 2 map change.
        before: int64 (place,): true class at the first date.
        after: int64 (place,): at the second one.
        areas: of the three strata.

    Raises:
        EvaluationError: a stratum with area has fewer than two places.
    """
    truth = np.where(before == after, _STABLE, _CHANGED)
    counts = np.zeros((len(areas), len(areas)), np.int64)
    np.add.at(counts, (strata, truth), 1)
    whole = estimate(counts, areas)
    pairs = sorted({(a, b) for a, b in zip(before.tolist(), after.tolist(), strict=True) if a != b})
    hits: Counts = np.zeros((len(pairs), len(areas)), np.int64)
    for at, (a, b) in enumerate(pairs):
        hits[at] = np.bincount(strata[(before == a) & (after == b)], minlength=len(areas))
    by_class = dict(zip(pairs, found_areas(hits, counts.sum(axis=1), areas), strict=True))
    return ChangeAreas(whole.areas[_CHANGED], whole.users[_CHANGED], whole.producers[_CHANGED], by_class)
