"""Class changes across edges against those beside them: counting, the ratio, and how sure it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.seams import (
    Crossings,
    Cuts,
    border_crossings,
    changes_across,
)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(2, 40), st.integers(1, 17))
def test_changes_and_pairs_are_those_of_a_plain_loop(seed: int, lines: int, along: int, segment: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.integers(0, 4, (2, lines, along), np.uint8)
    found = changes_across(before, after, segment=segment)
    assert found.shape == (lines, -(-along // segment), 2)
    for line in range(lines):
        for k in range(found.shape[1]):
            part = range(k * segment, min(along, (k + 1) * segment))
            pairs = [(before[line, i], after[line, i]) for i in part if before[line, i] and after[line, i]]
            assert found[line, k].tolist() == [sum(a != b for a, b in pairs), len(pairs)]


def random_segments(rng: np.random.Generator, count: int, *, seam: float = 1.0) -> np.ndarray:
    """Segments whose share of changes varies from one to the next, as fields and towns do; (segment, 4)."""
    rate = rng.gamma(2.0, 0.01, count)
    pairs = rng.integers(300, 500, count)
    return np.stack(
        [rng.binomial(pairs, np.minimum(1, seam * rate)), pairs, rng.binomial(6 * pairs, rate), 6 * pairs], 1
    )


def test_the_standard_error_is_that_of_a_jackknife_over_segments() -> None:
    segments = random_segments(np.random.default_rng(4), 200)

    def ratio(of: np.ndarray) -> float:
        changes, pairs, beside, pairs_beside = of.sum(axis=0)
        return float(changes / pairs / (beside / pairs_beside))

    found = Crossings.of(segments).seam_ratio
    assert found is not None
    assert found.standard_error is not None
    assert found.ratio == pytest.approx(ratio(segments))
    left_out = np.array([ratio(np.delete(segments, i, axis=0)) for i in range(200)])
    jackknife = np.sqrt(199 / 200 * ((left_out - left_out.mean()) ** 2).sum())
    assert found.standard_error == pytest.approx(jackknife, rel=0.03)


def test_three_standard_errors_hold_a_seamless_map_and_not_one_with_seams() -> None:
    seamless, seamed = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        for found, seam in ((seamless, 1.0), (seamed, 1.5)):
            ratio = Crossings.of(random_segments(rng, 80, seam=seam)).seam_ratio
            assert ratio is not None
            found.append(ratio.exceeds(1.0))
    assert sum(seamless) <= 4
    assert sum(seamed) >= 180


def test_counts_add_up_in_any_order_and_grouping() -> None:
    segments = random_segments(np.random.default_rng(1), 60)
    whole = Crossings.of(segments)
    parts = [Crossings.of(part) for part in np.array_split(segments[::-1], 7)]
    added = sum(reversed(parts[3:]), sum(parts[:3], Crossings()))
    assert added.segments == whole.segments
    np.testing.assert_array_equal(added.sums, whole.sums)
    np.testing.assert_array_equal(added.products, whole.products)


def test_without_an_edge_or_without_a_change_beside_one_there_is_no_ratio() -> None:
    assert Crossings().seam_ratio is None
    assert Crossings.of(np.array([[3, 100, 0, 600]])).seam_ratio is None
    assert Crossings.of(np.array([[3, 0, 2, 600], [3, 100, 2, 0]])).segments == 0
    one = Crossings.of(np.array([[3, 100, 9, 600]])).seam_ratio
    assert one is not None
    assert (one.ratio, one.standard_error) == (pytest.approx(2.0), None)
    assert one.exceeds(1.9)


@pytest.mark.parametrize(("core", "stride"), [(2500, 32), (250, 32), (125, 32), (30, 4), (64, 32), (5, 32)])
def test_lines_beside_an_edge_are_in_its_phase_and_nearer_to_it_than_to_the_next(core: int, stride: int) -> None:
    found = Cuts(block=core, core=core, stride=stride).beside
    assert found
    assert all(0 < 2 * d < core for d in found)
    if core > 2 * stride:
        assert all(d % stride == 0 for d in found)


def test_a_period_of_two_pixels_is_no_seam() -> None:
    """Labels of 2 × 2 px: all changes lie between an odd column and an even one, where every edge lies too."""
    pixels = np.random.default_rng(0).integers(1, 4, (400, 200), np.uint8).repeat(2, axis=1).T
    cuts = Cuts(block=100, core=100, stride=32)
    parts = [cuts.crossings(pixels[edge - 50 : edge + 50]) for edge in (100, 200, 300)]
    ratio = sum(parts, Crossings()).seam_ratio
    assert ratio is not None
    assert ratio.ratio == pytest.approx(1, abs=0.1)


def test_borders_are_pairs_of_two_owners_and_beside_them_pairs_of_one() -> None:
    owners = np.full((30, 60), 7, np.uint16)
    classes = np.ones((30, 60), np.uint8)
    for row in range(30):
        owners[row, 30 + row % 3 :] = 8
        classes[row, 30 + row % 3 :] = 2
    classes[:, 40:] = 3  # a field's edge that is no border, 8..10 px beside it
    classes[4] = 0
    owners[5, :] = 0
    found = border_crossings(classes, owners, beside=(9,), inner=slice(10, 50))
    assert found.sums.tolist() == [28, 28, sum(row % 3 == 1 for row in range(30) if row not in (4, 5)), 56]
