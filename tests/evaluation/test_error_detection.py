"""Scores that find errors, and gains of one map over another."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import EvaluationError
from pipeline.evaluation import scores
from pipeline.evaluation.intervals import bootstrap, bootstrap_gains
from pipeline.evaluation.metrics import auroc

BYTES = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@given(BYTES, BYTES)
def test_the_area_is_the_chance_that_a_wrong_pixel_scores_higher(wrong: list[int], right: list[int]) -> None:
    counted = [np.bincount(np.array(values), minlength=6) for values in (wrong, right)]
    pairs = [1.0 if w > r else 0.5 if w == r else 0.0 for w in wrong for r in right]
    assert math.isclose(auroc(*counted), sum(pairs) / len(pairs))


def test_without_errors_there_is_no_area() -> None:
    assert math.isnan(auroc(np.zeros(4, int), np.ones(4, int)))


def test_gains_are_of_the_same_draws_of_zones() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 50, (8, 3, 3)) + 80 * np.eye(3, dtype=np.int64)
    live = (0, 1, 2)
    same = bootstrap_gains(base, base, live=live, draws=50)
    assert same == dict.fromkeys(same, (0.0, 0.0))
    better = base + 40 * np.eye(3, dtype=np.int64)
    low, high = bootstrap_gains(better, base, live=live, draws=200)["oa"]
    gain = scores(better.sum(axis=0), live=live)["oa"] - scores(base.sum(axis=0), live=live)["oa"]
    assert 0 < low <= gain <= high
    alone = bootstrap(base, live=live, draws=200).means["oa"]
    assert high - low < alone[1] - alone[0], "what zones have in common cancels"
    with pytest.raises(EvaluationError, match="same two or more units"):
        bootstrap_gains(base[:1], base[:1], live=live)
