"""Intervals of shares: limits by scipy, and how often they cover the truth; `landcover bench coverage` has all."""

import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.bench.development.sampling.coverage import DESIGNS, SimulatedDesign, simulate
from pipeline.evaluation.share_interval import part_interval, share_interval

BY_NAME = {design.name: design for design in DESIGNS}


@pytest.mark.parametrize("points", [1, 8, 30, 500])
def test_with_the_further_point_in_full_it_is_clopper_and_pearson(points: int) -> None:
    hits = np.arange(points + 1)
    share = hits / points
    low, high = share_interval(share, share * (1 - share) / points, 1 / points, further=1)
    exact = [binomtest(int(k), points).proportion_ci(0.95, method="exact") for k in hits]
    np.testing.assert_allclose(low, [e.low for e in exact], atol=1e-9)
    np.testing.assert_allclose(high, [e.high for e in exact], atol=1e-9)
    # The method's own interval lies inside, and is the same where nothing was found.
    own_low, own_high = share_interval(share, share * (1 - share) / points, 1 / points)
    assert (own_low >= low - 1e-12).all()
    assert (own_high <= high + 1e-12).all()
    assert own_high[0] == high[0]
    np.testing.assert_allclose(own_low, 1 - own_high[::-1], atol=1e-9)


def test_half_of_the_further_point_is_mid_p() -> None:
    """The limits by their definition: P(X > 3) + P(X = 3) / 2 = 0.025, and the same below."""
    (low,), (high,) = share_interval([3 / 20], [3 / 20 * 17 / 20 / 20], [1 / 20], further=0.5)
    for limit, alternative in ((low, "greater"), (high, "less")):
        with_three = binomtest(3, 20, limit, alternative=alternative).pvalue
        beyond = binomtest(4 if alternative == "greater" else 2, 20, limit, alternative=alternative).pvalue
        assert (with_three + beyond) / 2 == pytest.approx(0.025, abs=1e-6)


def test_a_share_that_does_not_exist_has_no_interval() -> None:
    assert np.isnan(share_interval(np.nan, 0.1, 0.1)).all()
    zero = np.zeros(1)
    assert np.isnan(part_interval((zero, zero, zero + 0.1), (zero, zero, zero + 0.1))).all()


@pytest.mark.parametrize(
    ("design", "rarity"),
    [
        ("user's accuracy, 8 points", (0.002, 0.05, 0.2)),
        ("12 equal strata, 8 points each", (0.002, 0.05, 0.3)),
        ("W .99 .01, 8 points each", (0.002, 0.1, 0.3)),
        ("W .99 .01, 100 points each", (0.002, 0.05, 0.3)),
        ("producer's, W .01 .99, 30 points each", (0.002, 0.1, 0.5)),
        ("two stages, 20 × 10 points, ρ .3", (0.02, 0.1, 0.5)),
        ("two stages, 4 strata of 10 × 5, ρ .1", (0.002, 0.1, 0.5)),
    ],
)
def test_intervals_cover_the_truth_and_are_not_much_wider_than_exact(design: str, rarity: tuple[float, ...]) -> None:
    found = simulate(BY_NAME[design], rarity, runs=2000, rng=np.random.default_rng(0))
    ours, wald = found["ours"], found["wald"]
    assert min(ours["covered"]) >= 0.93
    assert 0.94 <= np.mean(ours["covered"]) <= 0.995
    assert min(wald["covered"]) < 0.93, "the design is a hard one"
    assert np.mean(ours["width"]) <= np.mean(found["exact"]["width"])


def test_points_of_a_cluster_that_are_not_alike_count_as_single_ones() -> None:
    rng = np.random.default_rng(1)
    clustered = simulate(SimulatedDesign("", (1,), (10,), clusters=30, alike=1e-4), (0.2,), runs=500, rng=rng)
    simple = simulate(SimulatedDesign("", (1,), (300,)), (0.2,), runs=500, rng=rng)
    assert 1 < clustered["ours"]["width"][0] / simple["ours"]["width"][0] < 1.25
