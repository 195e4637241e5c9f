"""Calibration: the error by a slow count, and a temperature that is known because the labels are drawn with it."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from scipy.special import softmax

from pipeline.errors import EvaluationError
from pipeline.evaluation.calibration import (
    BINS,
    RANGE,
    Reliability,
    TemperatureSpread,
    fit_temperature,
    temperature_spread,
)


def drawn(temperature: float, pixels: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits (pixel, 4), and labels that follow the softmax of logits / temperature."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (pixels, 4))
    share = softmax(logits / temperature, axis=1)
    return logits, (rng.random((pixels, 1)) > share.cumsum(axis=1)).sum(axis=1)


def test_the_calibration_error_is_that_of_a_slow_count_and_parts_add_up() -> None:
    rng = np.random.default_rng(0)
    confidence, right = rng.random((40, 50)), rng.random((40, 50)) < 0.6
    expected = 0.0
    for k in range(BINS):
        inside = (confidence >= k / BINS) & (confidence < (k + 1) / BINS)
        expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert Reliability.of(confidence, right).ece == pytest.approx(expected)
    halves = Reliability.of(confidence[:7], right[:7]) + Reliability.of(confidence[7:], right[7:])
    assert halves.ece == pytest.approx(expected)
    assert Reliability.of(np.ones(3), np.ones(3, bool)).ece == 0
    with pytest.raises(EvaluationError, match="no pixels"):
        _ = Reliability().ece


def test_no_order_of_parts_changes_a_digit() -> None:
    rng = np.random.default_rng(3)
    parts = [Reliability.of(rng.random(50), rng.random(50) < 0.6) for _ in range(40)]
    assert len({reduce(add, (parts[i] for i in rng.permutation(40))).ece for _ in range(20)}) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_by_which_labels_were_drawn_is_found(temperature: float) -> None:
    logits, truth = drawn(temperature)
    assert fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.03)


def test_the_fitted_temperature_lowers_the_error_on_other_labels() -> None:
    logits, truth = drawn(2.5)
    half = len(logits) // 2
    temperature = fit_temperature(logits[:half], truth[:half])

    def error(by: float) -> float:
        share = softmax(logits[half:] / by, axis=1)
        return Reliability.of(share.max(axis=1), share.argmax(axis=1) == truth[half:]).ece

    assert error(temperature) < 0.01 < error(1.0)


def test_nothing_to_fit_on_is_refused() -> None:
    with pytest.raises(EvaluationError, match="logits"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, int))


@pytest.mark.parametrize(
    ("logits", "truth", "said"),
    [
        # Logits that say nothing about the labels, and logits that are always right.
        (
            np.tile(np.eye(4) * 9, (50, 1)),
            np.arange(200) // 50,
            r"found the bound, 20, because the network says next to",
        ),
        (
            np.tile(np.eye(4), (50, 1)),
            np.arange(200) % 4,
            r"found the bound, 0\.05, because the network is right on nearly",
        ),
    ],
)
def test_a_temperature_at_the_bound_of_its_search_is_refused(logits: np.ndarray, truth: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        fit_temperature(logits, truth)


def test_the_interval_of_a_temperature_widens_with_the_spread_of_zones() -> None:
    alike, unlike = (
        temperature_spread([drawn(t, 2_000) for t in temperatures], drawn=6, draws=200)
        for temperatures in ([2.0] * 12, np.geomspace(0.7, 6, 12).tolist())
    )
    assert alike.low <= 2.1
    assert alike.high >= 1.9
    assert unlike.high - unlike.low > 3 * (alike.high - alike.low)
    assert not alike.warning
    assert "from draws of 6 of 12 zones" in str(unlike)


def test_few_zones_and_an_interval_at_the_bound_are_warned_of() -> None:
    flat = (np.zeros((4, 4)) + np.eye(4) * 9, np.array([1, 2, 3, 0]))
    found = temperature_spread([drawn(2.0, 500), *[flat] * 4], drawn=2, draws=100)
    assert found.high == pytest.approx(RANGE[1])
    assert "reaches the bound of the search, 20" in found.warning
    assert "bootstrap over 5 zones. Below 10 they are too narrow" in found.warning
    assert not TemperatureSpread(1.5, 2.5, 10, 5).warning
