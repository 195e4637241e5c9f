"""Areas of change from places: the formulas of stratified sampling, and how often intervals have the truth."""

import numpy as np
import pytest

from pipeline.errors import EvaluationError
from pipeline.evaluation.change_areas import change_areas

AREAS = (9_000.0, 800.0, 200.0)
STRATA = np.repeat([0, 1, 2], [40, 30, 10])


def test_areas_are_stratified_means_of_what_was_seen() -> None:
    before, after = np.full(80, 8), np.full(80, 8)
    after[[0, 1, 40, 41, 42, 43, 44, 45]] = [1, 2, 1, 1, 1, 1, 1, 2]
    found = change_areas(STRATA, before, after, AREAS)
    # Cochran 1977: the sum of a stratum's area times the share of its places; variances of shares of 0 and 1.
    shares, n = np.array([2 / 40, 6 / 30, 0]), np.array([40, 30, 10])
    assert found.changed.value == pytest.approx(shares @ AREAS)
    assert found.changed.standard_error == pytest.approx(
        np.sqrt((np.array(AREAS) ** 2 * shares * (1 - shares) / (n - 1)).sum())
    )
    assert found.right.value == pytest.approx(6 / 30)
    assert found.found.value == pytest.approx(800 * 6 / 30 / found.changed.value)
    assert {pair: e.value for pair, e in found.by_class.items()} == pytest.approx(
        {(8, 1): 9_000 / 40 + 800 * 5 / 30, (8, 2): 9_000 / 40 + 800 / 30}
    )


def test_no_change_at_any_place_has_an_interval_too() -> None:
    found = change_areas(STRATA, np.full(80, 8), np.full(80, 8), AREAS)
    assert found.changed.value == found.changed.low == 0 < found.changed.high < 2_000
    assert found.by_class == {}


def test_intervals_have_the_true_area_in_95_of_100_samples() -> None:
    rng, true_shares, hits = np.random.default_rng(3), (0.02, 0.6, 0.1), 0
    truth = float(np.dot(true_shares, AREAS))
    strata = np.repeat([0, 1, 2], 50)
    for _ in range(400):
        changed = rng.random(150) < np.array(true_shares)[strata]
        found = change_areas(strata, np.full(150, 3), np.where(changed, 5, 3), AREAS).changed
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 400 <= 0.995


def test_a_stratum_with_one_place_is_refused() -> None:
    with pytest.raises(EvaluationError, match="fewer than two"):
        change_areas(np.array([0, 0, 1]), np.full(3, 1), np.full(3, 1), AREAS)
