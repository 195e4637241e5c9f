"""Estimates that use the map everywhere: independent formulas, no harm without information, coverage in simulations."""

import numpy as np
import pytest

from pipeline.bench.development.sampling.areas import MAPS, ZONES, simulate_map, simulate_zones
from pipeline.errors import EvaluationError
from pipeline.evaluation.area_estimation import estimate, plan_units
from pipeline.evaluation.model_assisted import LEAST_FOR_SLOPE, composite_areas, regression_estimates

AREAS = (600.0, 300.0, 100.0)


def drawn(seed: int = 0, each: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mapped = np.repeat(range(3), each)
    confidence = rng.beta(3, 1, len(mapped))
    right = rng.random(len(mapped)) < confidence
    return mapped, np.where(right, mapped, (mapped + 1) % 3), confidence


def test_regression_is_least_squares_at_the_known_mean_of_each_stratum() -> None:
    mapped, reference, confidence = drawn()
    means = (0.7, 0.8, 0.72)
    found = regression_estimates(mapped, reference, confidence, means=means, areas=AREAS)
    for k in range(3):
        value = variance = 0.0
        for h in range(3):
            own = mapped == h
            y, x = (reference[own] == k).astype(float), confidence[own]
            design = np.stack([np.ones_like(x), x], axis=1)
            fitted, *_ = np.linalg.lstsq(design, y, rcond=None)
            value += AREAS[h] * float(fitted @ (1, means[h]))
            # Calibrated weights of the points: they give the known mean of the confidence exactly.
            weight = np.linalg.solve(design.T @ design, (1, means[h])) @ design.T
            assert weight @ x == pytest.approx(means[h])
            n = len(y)
            variance += AREAS[h] ** 2 * float(((weight * (y - design @ fitted)) ** 2).sum()) * n / (n - 2)
        assert found.areas[k].value == pytest.approx(value)
        # g / n are these weights, so Σ (g e)² / (n (n − 2)) is their sum with n / (n − 2).
        assert found.areas[k].standard_error == pytest.approx(variance**0.5)
    assert sum(e.value for e in found.areas) == pytest.approx(sum(AREAS))
    assert all(e.low <= e.value <= e.high for e in found.areas)


def test_a_constant_confidence_and_few_points_give_the_stratified_estimate() -> None:
    for each, constant in ((60, True), (LEAST_FOR_SLOPE - 1, False)):
        mapped, reference, confidence = drawn(each=each)
        confidence = np.full_like(confidence, 0.5) if constant else confidence
        counts = np.zeros((3, 3), np.int64)
        np.add.at(counts, (mapped, reference), 1)
        plain = estimate(counts, AREAS)
        found = regression_estimates(mapped, reference, confidence, means=(0.5, 0.5, 0.5), areas=AREAS)
        for one, other in zip((found.overall, *found.areas), (plain.overall, *plain.areas), strict=True):
            assert (one.value, *one.interval) == pytest.approx((other.value, *other.interval))
    with pytest.raises(EvaluationError, match=r"strata \[2\] have area and fewer than two"):
        regression_estimates(mapped % 2, reference, confidence, means=(0.5,) * 3, areas=AREAS)


def test_simulated_samples_are_covered_and_regression_is_sharper() -> None:
    rng = np.random.default_rng(3)
    found = simulate_map(MAPS[0], 150, rng)
    assert found["regression"]["covered"] > 0.94
    assert found["regression"]["width"] < 0.98 * found["stratified"]["width"]
    assert found["regression"]["error"] < found["stratified"]["error"]
    nothing = simulate_map(MAPS[4], 100, rng)
    assert nothing["regression"]["covered"] > 0.94
    assert nothing["regression"]["width"] < 1.03 * nothing["stratified"]["width"]


def test_zones_alike_get_the_synthetic_estimate_and_others_move_to_their_points() -> None:
    whole = np.array([[80, 20], [10, 90]])
    mapped = np.tile((30.0, 70.0), (12, 1))
    alike = np.tile(np.array([[8, 2], [1, 9]]), (12, 1, 1))
    found = composite_areas(alike, mapped, whole, [0])
    assert found.alike == 0
    assert [e.value for e in found.estimates] == pytest.approx([30 * 0.8 + 70 * 0.1] * 12)
    # Half of the zones have all points in class 0, the others none: ρ is 1 and only their own points count.
    extreme = np.zeros((12, 2, 2), np.int64)
    extreme[:6, :, 0], extreme[6:, :, 1] = 10, 10
    own = composite_areas(extreme, mapped, np.array([[60, 60], [60, 60]]), [0])
    assert own.alike == pytest.approx(1)
    assert [e.value for e in own.estimates] == pytest.approx([100.0] * 6 + [0.0] * 6)
    # In between: best linear prediction of a beta-binomial's mean is (a + hits) / (a + b + n).
    mixed = alike.copy()
    mixed[::2, 0], mixed[1::2, 0] = (10, 0), (5, 5)
    found = composite_areas(mixed, mapped, whole, [0])
    prior = 1 / found.alike - 1
    beta = [
        (0.8 * prior + row[0, 0]) / (prior + 10) * 30 + (0.1 * prior + row[1, 0]) / (prior + 10) * 70 for row in mixed
    ]
    assert 0 < found.alike < 1
    assert [e.value for e in found.estimates] == pytest.approx(beta)


def test_the_composite_model_covers_and_says_where_it_cannot() -> None:
    rng = np.random.default_rng(4)
    for design in ZONES[1:3]:
        found = simulate_zones(design, 15, rng)["composite"]
        assert found["covered"] > 0.92
        assert found["known"] == 1
    one = np.tile(np.array([[1, 0], [0, 1]]), (12, 1, 1))
    whole, mapped = np.array([[80, 20], [10, 90]]), np.tile((30.0, 70.0), (12, 1))
    with pytest.raises(EvaluationError, match="0 zones have two or more sampled points of one mapped class"):
        composite_areas(one, mapped, whole, [0])
    with pytest.raises(EvaluationError, match=r"map classes \[1\] have no point in the sample"):
        composite_areas(10 * one, mapped, np.array([[80, 20], [0, 0]]), [0])


def test_a_planned_sample_has_the_half_width_that_it_promises() -> None:
    mapped, expected = {1: 100.0, 2: 900.0}, {1: 0.8, 2: 0.05}
    plan = plan_units(mapped, expected, half_width=0.02, least=10)
    rng, size = np.random.default_rng(5), 4_000
    area = sum(mapped[k] / 1_000 * rng.binomial(plan.units[k], expected[k], size) / plan.units[k] for k in mapped)
    assert 1.96 * np.std(area) == pytest.approx(plan.half_width, rel=0.05)
    assert 0.0195 < plan.half_width <= 0.02
    # Any other division of as many points is wider: Neyman's allocation.
    total, spread = (
        sum(plan.units.values()),
        {k: mapped[k] / 1_000 * (expected[k] * (1 - expected[k])) ** 0.5 for k in mapped},
    )
    other = min(spread[1] ** 2 / n + spread[2] ** 2 / (total - n) for n in range(10, total - 10))
    assert plan.half_width <= 1.96 * other**0.5 * 1.01
    assert sum(plan_units(mapped, expected, half_width=0.01, least=10).units.values()) == pytest.approx(
        4 * total, rel=0.02
    )
    wider = plan_units(mapped, expected, half_width=0.02, least=10, confidence=0.9)
    assert sum(wider.units.values()) == pytest.approx(total * (1.645 / 1.96) ** 2, rel=0.03)
    with pytest.raises(EvaluationError, match="more than 100000 points"):
        plan_units(mapped, expected, half_width=1e-5, least=10)
    with pytest.raises(EvaluationError, match=r"60000 points of each of 2 classes are more than .* \(--least\)"):
        plan_units(mapped, expected, half_width=0.02, least=60_000)
    few = plan_units(mapped, expected, half_width=0.02, least=10, most={1: 5, 2: 10**6})
    assert few.units[1] == 5, "all there are: only the other class adds to the width"
    assert few.half_width == pytest.approx(1.96 * 0.9 * (0.05 * 0.95 / few.units[2]) ** 0.5, rel=1e-4)
    assert plan_units(mapped, expected, half_width=0.0, least=10, most={1: 5, 2: 40}).units == {1: 5, 2: 40}
