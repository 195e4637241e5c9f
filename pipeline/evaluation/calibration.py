"""Reliability of confidences: how often they are right, expected calibration error, temperature.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from pipeline.errors import EvaluationError

BINS = 15
"""Guo et al. take 15."""
_STEPS = 1 << 24
"""A confidence is counted in steps of 1 / this: sums are integers, and no order of adding changes a digit."""
_RANGE = (0.05, 20.0)
"""Least and greatest temperature of the search."""


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
        EvaluationError: no pixels, or shapes that do not fit.
    """
    if logits.ndim != 2 or truth.shape != logits.shape[:1] or not truth.size:
        raise EvaluationError(f"expected logits (pixel, class) and truth (pixel,); got {logits.shape}, {truth.shape}")
    exact = logits.astype(np.float64)
    rows = np.arange(len(truth))

    def loss(inverse: float) -> float:
        return -float(log_softmax(exact * inverse, axis=1)[rows, truth].mean())

    found = minimize_scalar(loss, bounds=(1 / _RANGE[1], 1 / _RANGE[0]), method="bounded", options={"xatol": 1e-6})
    return float(1 / found.x)
