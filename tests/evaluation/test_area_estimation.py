"""Area-adjusted accuracy: the paper's example, an independent formula, and intervals that never vanish."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipeline.errors import EvaluationError
from pipeline.evaluation.area_estimation import Estimate, allocate, area_of, estimate, few_points

PAPER = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
"""Olofsson et al. 2014, table 8: deforestation, forest gain, stable forest, stable non-forest; rows are the map."""
PAPER_HA = tuple(0.09 * pixels for pixels in (200_000, 150_000, 3_200_000, 6_450_000))


def rounded(estimates: tuple[Estimate, ...], digits: int) -> list[tuple[float, float]]:
    """Values and the paper's half widths, 1.96 standard errors."""
    return [(round(e.value, digits), round(1.96 * e.standard_error, digits)) for e in estimates]


def test_the_worked_example_of_the_paper() -> None:
    found = estimate(PAPER, PAPER_HA)
    assert rounded((found.overall,), 2) == [(0.95, 0.02)]
    assert rounded(found.users, 2) == [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    assert [round(p.value, 2) for p in found.producers] == [0.75, 0.85, 0.93, 0.96]
    assert found.areas[0].value == pytest.approx(21_158, abs=1)
    assert 1.96 * found.areas[0].standard_error == pytest.approx(6_158, abs=1)
    assert [round(e.value) for e in found.areas] == [21_158, 11_686, 285_770, 581_386]
    assert [round(1.96 * e.standard_error) for e in found.areas] == [6_158, 3_756, 15_510, 16_282]
    assert sum(e.value for e in found.areas) == pytest.approx(sum(PAPER_HA))


@given(npst.arrays(np.int64, (3, 3), elements=st.integers(0, 30)), st.tuples(*[st.floats(1, 1e6)] * 3))
@settings(max_examples=25)
def test_areas_and_overall_accuracy_are_stratified_means_of_indicators(counts: np.ndarray, area: tuple[float]) -> None:
    counts = counts + 2 * np.eye(3, dtype=np.int64)
    found = estimate(counts, area)
    # Cochran 1977: ȳ = Σ W ȳ_h and v = Σ W² s²_h / n_h, s² being the sample variance of 0 and 1.
    weights = np.array(area) / sum(area)
    units = [np.repeat(range(3), row) for row in counts]
    for k in range(3):
        means = [np.mean(u == k) for u in units]
        errors = [np.var(u == k, ddof=1) / len(u) for u in units]
        assert found.areas[k].value == pytest.approx(sum(area) * float(weights @ means))
        assert found.areas[k].standard_error == pytest.approx(sum(area) * float(weights**2 @ errors) ** 0.5)
    right = [np.mean(u == k) for k, u in enumerate(units)]
    assert found.overall.value == pytest.approx(float(weights @ right))


def test_the_producers_variance_is_that_of_the_delta_method() -> None:
    shares, weights = PAPER / PAPER.sum(axis=1, keepdims=True), np.array(PAPER_HA) / sum(PAPER_HA)
    found = estimate(PAPER, PAPER_HA)
    for k in range(4):

        def accuracy(shares: np.ndarray, k: int = k) -> float:
            return float(weights[k] * shares[k, k] / (weights @ shares[:, k]))

        variance = 0.0
        for i, n in enumerate(PAPER.sum(axis=1)):
            covariance = (np.diag(shares[i]) - np.outer(shares[i], shares[i])) / (n - 1)
            gradient = np.zeros(4)
            for j in range(4):
                moved = shares.copy()
                moved[i, j] += 1e-6
                gradient[j] = (accuracy(moved) - accuracy(shares)) / 1e-6
            variance += float(gradient @ covariance @ gradient)
        assert found.producers[k].value == pytest.approx(accuracy(shares))
        assert found.producers[k].standard_error == pytest.approx(variance**0.5, rel=1e-3)


def test_a_stratum_without_area_needs_no_sample_and_one_with_area_does() -> None:
    counts = np.array([[9, 1, 0], [2, 8, 0], [0, 0, 0]])
    found = estimate(counts, (10, 10, 0))
    assert found.areas[2].value == 0
    assert np.isnan([found.producers[2].value, *found.producers[2].interval]).all()
    assert np.isnan([found.users[2].value, *found.users[2].interval]).all()
    assert f"{found.users[2]:.1f}" == "–"
    with pytest.raises(EvaluationError, match=r"strata \[2\] have area and fewer than two"):
        estimate(counts, (10, 10, 1))
    with pytest.raises(EvaluationError, match="counts"):
        estimate(counts, (10, 10))


def test_allocation_gives_each_class_its_least_and_the_rest_by_area() -> None:
    units = allocate({1: 900.0, 2: 90.0, 3: 10.0, 7: 0.0}, 250, least=50)
    assert units == {1: 140, 2: 59, 3: 51}
    assert allocate({5: 1.0, 2: 1.0, 9: 1.0}, 11, least=3) == {2: 4, 5: 4, 9: 3}
    with pytest.raises(EvaluationError, match="100 units are too few: expected at least 50 for each of the 3"):
        allocate({1: 1.0, 2: 1.0, 3: 1.0}, 100)


def test_a_class_with_few_pixels_gets_all_of_them_and_its_errors_are_then_known() -> None:
    pixels = {1: 600, 2: 399, 3: 1}
    mapped = {k: float(n) for k, n in pixels.items()}
    assert allocate(mapped, 101, least=50, most=pixels) == {1: 50, 2: 50, 3: 1}
    assert allocate(mapped, 900, least=50, most=pixels) == {1: 530, 2: 369, 3: 1}
    assert allocate({1: 5.0, 2: 1.0}, 8, least=2, most={1: 3, 2: 50}) == {1: 3, 2: 5}, "what one lacks, others get"
    with pytest.raises(EvaluationError, match="1001 units are more than the 1000 that there are"):
        allocate(mapped, 1001, least=50, most=pixels)
    counts = np.array([[48, 2, 0], [5, 45, 0], [1, 0, 0]])
    with pytest.raises(EvaluationError, match=r"strata \[2\] have area and fewer than two"):
        estimate(counts, (600, 399, 1))
    found, without = estimate(counts, (600, 399, 1), complete=[2]), estimate(counts[:2, :2], (600, 399))
    assert found.areas[0].value == pytest.approx(without.areas[0].value + 1)
    assert found.areas[0].standard_error == pytest.approx(without.areas[0].standard_error)
    assert area_of(counts, (600, 399, 1), [0], complete=[2]) == found.areas[0]


def test_the_area_of_classes_together_is_that_of_a_map_that_never_told_them_apart() -> None:
    found = estimate(PAPER, PAPER_HA)
    assert area_of(PAPER, PAPER_HA, [2]).value == pytest.approx(found.areas[2].value)
    assert area_of(PAPER, PAPER_HA, [2]) == found.areas[2]
    stable = area_of(PAPER, PAPER_HA, [2, 3])
    assert stable.value == pytest.approx(found.areas[2].value + found.areas[3].value)
    # Errors between the two cancel: the interval is narrower than either's, far from their sum.
    assert stable.high - stable.low < found.areas[2].high - found.areas[2].low
    everything = area_of(PAPER, PAPER_HA, [0, 1, 2, 3])
    assert (everything.value, everything.standard_error) == (pytest.approx(sum(PAPER_HA)), 0)


def test_eight_points_without_an_error_leave_an_interval() -> None:
    """A stratum whose eight points are all right gave 2.45 ± 0.00 ha."""
    found = estimate(np.diag([8, 8]), (2.45, 2.45))
    assert [round(u.low, 3) for u in found.users] == [0.631, 0.631], "Clopper and Pearson: 0.025 ** (1 / 8)"
    for one in (*found.users, *found.producers, *found.areas, found.overall):
        assert one.standard_error == 0
        assert one.low < one.value
    assert all(0 <= e.low <= e.high <= 4.9 for e in found.areas)


@settings(max_examples=25)
@given(npst.arrays(np.int64, (3, 3), elements=st.integers(0, 9)), st.tuples(*[st.floats(1e-3, 1e3)] * 3))
def test_every_interval_holds_its_value_and_stays_within_the_area(counts: np.ndarray, area: tuple[float]) -> None:
    counts = counts + np.diag([2, 2, 2])
    for clustered in (counts, np.stack([counts, counts.T + np.diag([1, 0, 3])])):
        found, whole = estimate(clustered, area), sum(area)
        for one, most in [(e, 1.0) for e in (found.overall, *found.users, *found.producers)] + [
            (e, whole) for e in found.areas
        ]:
            assert -1e-9 * most <= one.low <= one.value + 1e-9 * most
            assert one.value - 1e-9 * most <= one.high <= most * (1 + 1e-9)
            assert one.high > one.low


def test_clusters_of_one_point_are_a_simple_sample_and_alike_points_widen() -> None:
    simple = np.array([[40, 10], [5, 45]])
    alone = np.zeros((100, 2, 2), np.int64)
    cells = np.repeat(np.arange(4), simple.ravel())
    alone[np.arange(100), cells // 2, cells % 2] = 1
    one, other = estimate(simple, (3, 1)), estimate(alone, (3, 1))
    assert other.overall.value == one.overall.value
    assert other.overall.standard_error == pytest.approx(one.overall.standard_error, rel=1e-6)
    assert other.overall.low == pytest.approx(one.overall.low, abs=0.01)
    # All ten points of a cluster are right, or all are wrong: as good as ten points, not a hundred.
    alike = np.zeros((10, 2, 2), np.int64)
    alike[:4, 0, 0] = alike[4, 0, 1] = 10
    alike[5:9, 1, 1] = alike[9, 1, 0] = 10
    wide = estimate(alike, (3, 1)).overall
    assert wide.high - wide.low > 2.5 * (one.overall.high - one.overall.low)
    with pytest.raises(EvaluationError, match=r"strata \[1\] have sampled units in one cluster only"):
        estimate(alike[:6], (3, 1))


def test_few_points_are_named_and_what_they_mean_is_true() -> None:
    assert few_points(["water", "vineyard"], [30, 400]) == ""
    said = few_points(["water", "vineyard"], [8, 400])
    assert "water (8)" in said
    assert "vineyard" not in said
    low = estimate(np.diag([8, 400]), (1, 1)).users[0].low
    assert f"{100 * low:.0f} %" in said
