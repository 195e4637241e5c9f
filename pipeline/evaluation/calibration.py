"""Reliability of confidences: how often they are right, expected calibration error, temperature.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from pipeline.errors import EvaluationError
from pipeline.evaluation.intervals import few_units, percentiles

BINS = 15
"""Guo et al. take 15."""
_STEPS = 1 << 24
"""A confidence is counted in steps of 1 / this: sums are integers, and no order of adding changes a digit."""
RANGE = (0.05, 20.0)
"""Least and greatest temperature of the search; one that ends there is no result."""
_AT_BOUND = 0.01
"""Share of a bound's value within which a temperature counts as the bound."""
_GRID = 96
"""Temperatures of the grid: steps of 6 %."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Pixels by confidence, in bins of equal width over 0..1; sums add up over parts."""

    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """int64 (bin,)."""
    right: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """int64 (bin,): pixels whose class is the true one."""
    confidence: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """int64 (bin,): sum of their confidences, in `_STEPS`."""

    @classmethod
    def of(cls, confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> "Reliability":
        """Counts pixels.

        Args:
            confidence: floats 0..1 of any shape: probability of the predicted class.
            right: bool of the same shape: True where the predicted class is the true one.
        """
        flat, hits = confidence.ravel().astype(np.float64), right.ravel()
        bins = np.minimum((flat * BINS).astype(np.int64), BINS - 1)
        return cls(
            np.bincount(bins, minlength=BINS),
            np.bincount(bins[hits], minlength=BINS),
            # Exact in floats: a part has fewer than 2²⁹ pixels.
            np.bincount(bins, weights=np.rint(flat * _STEPS), minlength=BINS).astype(np.int64),
        )

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(self.pixels + other.pixels, self.right + other.right, self.confidence + other.confidence)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """float64 (bin,): share of pixels with the true class; NaN for an empty bin."""
        return _by_bin(self.right, self.pixels)

    @property
    def mean_confidence(self) -> NDArray[np.float64]:
        """float64 (bin,): NaN for an empty bin."""
        return _by_bin(self.confidence / _STEPS, self.pixels)

    @property
    def ece(self) -> float:
        """Expected calibration error, 0..1: mean over all pixels of |confidence − accuracy| of their bin.

        Raises:
            EvaluationError: no pixels.
        """
        total = int(self.pixels.sum())
        if not total:
            raise EvaluationError("no pixels to measure confidences on: no pixel has a label that counts")
        return float(np.abs(self.right - self.confidence / _STEPS).sum() / total)


def _by_bin(part: NDArray[Any], pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = np.divide(part, pixels, out=np.full(BINS, np.nan), where=pixels > 0)
    return share


def fit_temperature(logits: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """The temperature by which logits are divided so that the truth becomes most probable.

    The negative log likelihood is convex in 1 / T, so the bounded search finds its one minimum.

    Args:
        logits: floats (pixel, class) of the live classes.
        truth: integers (pixel,): position of the true class among them.

    Raises:
        EvaluationError: no pixels, or shapes that do not fit, or the search ended at its bound.
    """
    exact = _checked(logits, truth)
    bounds = (1 / RANGE[1], 1 / RANGE[0])
    found = minimize_scalar(lambda x: _loss(exact, truth, x), bounds=bounds, method="bounded", options={"xatol": 1e-6})
    temperature = float(1 / found.x)
    if not _inside(temperature):
        raise _no_temperature(flat=temperature > 1)
    return temperature


def _checked(logits: NDArray[np.floating], truth: NDArray[np.integer]) -> NDArray[np.float64]:
    if logits.ndim != 2 or truth.shape != logits.shape[:1] or not truth.size:
        raise EvaluationError(f"expected logits (pixel, class) and truth (pixel,); got {logits.shape}, {truth.shape}")
    return logits.astype(np.float64)


def _loss(logits: NDArray[np.float64], truth: NDArray[np.integer], inverse: float) -> float:
    """Mean negative log likelihood."""
    return -float(log_softmax(logits * inverse, axis=1)[np.arange(len(truth)), truth].mean())


def _inside(temperature: float) -> bool:
    return RANGE[0] * (1 + _AT_BOUND) < temperature < RANGE[1] * (1 - _AT_BOUND)


def _no_temperature(*, flat: bool) -> EvaluationError:
    low, high = RANGE
    why = "says next to nothing about these labels" if flat else "is right on nearly all of these labels"
    return EvaluationError(
        f"no temperature fits: expected one inside {low:g}..{high:g}, found the bound, {high if flat else low:g}, "
        f"because the network {why}. Check that labels and bands belong to this network, and calibrate on labelled "
        "patches of more zones that it was not trained on"
    )


@dataclass(frozen=True)
class TemperatureSpread:
    """How much a fitted temperature depends on the zones that it was fitted on: a 95 % bootstrap interval."""

    low: float
    """`RANGE[0]` or `RANGE[1]` where draws have no temperature inside the search."""
    high: float
    zones: int
    """All zones that were drawn from."""
    drawn: int
    """Zones of a draw: as many as the temperature was fitted on."""

    @property
    def warning(self) -> str:
        """What readers must know of it; empty where nothing."""
        ends = " and ".join(f"{end:g}" for end in (self.low, self.high) if not _inside(end))
        bound = f"The interval reaches the bound of the search, {ends}: some zones alone have no temperature"
        return ". ".join(text for text in (bound if ends else "", few_units(self.zones, "zones")) if text)

    def __str__(self) -> str:
        return f"95 % interval {self.low:.2f} – {self.high:.2f}, from draws of {self.drawn} of {self.zones} zones"


def temperature_spread(
    zones: Sequence[tuple[NDArray[np.floating], NDArray[np.integer]]],
    *,
    drawn: int,
    draws: int = 1000,
    seed: int = 2022,
) -> TemperatureSpread:
    """Draws zones with replacement and fits a temperature to each draw.

    The likelihood of a draw is the sum of its zones', so each zone's is computed once, on a grid of temperatures.

    Args:
        zones: logits (pixel, class) and truth (pixel,) of each of two or more zones, as for `fit_temperature`.
        drawn: zones of a draw.
        draws: resamples.
        seed: of the draws.

    Raises:
        EvaluationError: a zone without pixels, or shapes that do not fit.
    """
    inverse = np.geomspace(1 / RANGE[1], 1 / RANGE[0], _GRID)
    losses = [[len(truth) * _loss(_checked(logits, truth), truth, x) for x in inverse] for logits, truth in zones]
    times = np.random.default_rng(seed).multinomial(drawn, np.full(len(zones), 1 / len(zones)), draws)
    low, high = percentiles(1 / inverse[(times @ np.array(losses)).argmin(axis=1)])
    return TemperatureSpread(low, high, len(zones), drawn)
