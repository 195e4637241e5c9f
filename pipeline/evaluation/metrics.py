"""The confusion matrix and its scores: overall accuracy, IoU, F-score, precision, recall.

Classes are network indices here: FLAIR value − 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline import legend
from pipeline.errors import EvaluationError

IGNORED = (-1, 255)
"""Labels that count for nothing: no data (FLAIR value 0) minus one, in signed integers and in uint8."""

_LARGEST_N = 255
_STRIP = 1 << 22
"""Pixels counted at once: counting makes copies of eight bytes a pixel."""

Mode = Literal["legacy", "present"]
MODES: tuple[Mode, Mode] = ("legacy", "present")

Scores = Mapping[str, Any]
"""The result of `scores`."""
MEANS = {
    "oa": "overall accuracy",
    "miou": "mIoU",
    "mfscore": "mean F-score",
    "mprecision": "mean precision",
    "mrecall": "mean recall",
}
"""Key of `Scores` with one value → its name for people."""
BY_CLASS = {"iou": "IoU", "fscore": "F-score", "precision": "precision", "recall": "recall"}
"""Key of `Scores` with a value for each class → its name for people."""


def confusion_matrix(truth: ArrayLike, prediction: ArrayLike, n: int) -> NDArray[np.int64]:
    """Counts pixels by true and predicted class; matrices of parts add up to that of the whole.

    Args:
        truth: integers of any shape, network indices 0..n − 1, or one of `IGNORED`: such pixels count for nothing,
            whatever was predicted there.
        prediction: integers of the same shape, network indices 0..n − 1 wherever the truth counts.
        n: number of classes, 1..255.

    Returns:
        int64 (n, n): rows are the truth, columns the prediction.

    Raises:
        EvaluationError: other shapes or types, or a label that is neither a class nor ignored.
    """
    one, two = _labels(truth, "truth"), _labels(prediction, "prediction")
    if one.shape != two.shape:
        raise EvaluationError(f"expected truth and prediction of one shape, got {one.shape} and {two.shape}")
    if not 1 <= n <= _LARGEST_N:
        raise EvaluationError(f"expected 1..{_LARGEST_N} classes, got {n}")
    matrix = np.zeros(n * n, np.int64)
    one, two = one.ravel(), two.ravel()
    for start in range(0, one.size, _STRIP):
        part = one[start : start + _STRIP]
        counted = ~np.isin(part, IGNORED)
        rows = _within(part[counted], n, "truth")
        columns = _within(two[start : start + _STRIP][counted], n, "prediction")
        matrix += np.bincount(rows * n + columns, minlength=n * n)
    return matrix.reshape(n, n)


def _labels(given: ArrayLike, what: str) -> NDArray[Any]:
    labels = np.asarray(given)
    # An empty list has no type of its own.
    if labels.dtype.kind not in "iu" and labels.size:
        raise EvaluationError(f"expected {what} in integers, network indices; got {labels.dtype}")
    return labels


def _within(labels: NDArray[Any], n: int, what: str) -> NDArray[np.int64]:
    if labels.size and (labels.min() < 0 or labels.max() >= n):
        odd = np.unique(labels[(labels < 0) | (labels >= n)])[:10].tolist()
        raise EvaluationError(
            f"the {what} has labels {odd}; expected network indices 0..{n - 1} (FLAIR value − 1)"
            + (f", or {IGNORED[0]} or {IGNORED[1]} for what counts for nothing" if what == "truth" else "")
        )
    return labels.astype(np.int64)


def scores(matrix: ArrayLike, *, live: Sequence[int], mode: Mode = "legacy") -> Scores:
    """Accuracy figures of the live classes.

    In both modes rows and columns of other classes are deleted, as IGN's code does with classes of weight 0: a pixel of
    theirs, in truth or prediction, vanishes, from the overall accuracy too. `legacy` takes the plain mean over all live
    classes and counts a figure that does not exist as 0, as IGN's code does; `present` takes it over the figures that
    exist.

    Args:
        matrix: integers (n, n), rows truth, columns prediction, as `confusion_matrix` gives it.
        live: network indices of the classes to score, each once.
        mode: what a mean is over.

    Returns:
        All shares 0..1, and NaN where nothing is to be divided by: the precision of a class that was never mapped, the
        recall of one that never occurs, IoU and F-score of one that does neither. Overall accuracy `oa`; `iou`
        TP / (TP + FP + FN), `fscore` 2 TP / (2 TP + FP + FN), `precision` TP / (TP + FP), the user's accuracy, and
        `recall` TP / (TP + FN), the producer's, each float64 (class,) in the order of `live`; their means `miou`,
        `mfscore`, `mprecision`, `mrecall`; and `present`, bool (class,): True where the class occurs, in truth or
        prediction.

    Raises:
        EvaluationError: no such matrix, classes that it does not have, or an unknown mode.
    """
    full = np.asarray(matrix)
    if full.ndim != 2 or full.shape[0] != full.shape[1] or full.dtype.kind not in "iuf" or (full < 0).any():
        raise EvaluationError(f"expected a square matrix of counts, got {full.dtype} {full.shape}")
    index = list(live)
    if not index or len(set(index)) != len(index) or not all(0 <= i < len(full) for i in index):
        raise EvaluationError(f"expected live classes of 0..{len(full) - 1}, each once; got {index}")
    if mode not in MODES:
        raise EvaluationError(f"unknown mode {mode!r}: expected {' or '.join(MODES)}")
    kept = full[np.ix_(index, index)].astype(np.float64)
    hits, true, mapped = np.diag(kept), kept.sum(axis=1), kept.sum(axis=0)
    present = true + mapped > 0
    by_class = {
        "iou": _ratio(hits, true + mapped - hits),
        "fscore": _ratio(2 * hits, true + mapped),
        "precision": _ratio(hits, mapped),
        "recall": _ratio(hits, true),
    }
    means = {f"m{name}": _mean(values, mode) for name, values in by_class.items()}
    return {"oa": float(_ratio(hits.sum(), kept.sum())), "present": present} | means | by_class


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """Part over whole, and NaN where there is no whole."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    share: NDArray[np.float64] = np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
    return share


def _mean(values: NDArray[np.float64], mode: Mode) -> float:
    exist = ~np.isnan(values)
    return float(_ratio(values[exist].sum(), exist.sum() if mode == "present" else len(values)))


def as_ign(found: Scores, *, live: Sequence[int]) -> dict[str, Any]:
    """The content of `metrics.json` with the keys and in the units of IGN's code: percent.

    Args:
        found: of the same `live`.
        live: network indices, which name the classes.
    """
    percent = {name: (100 * found[name]).tolist() for name in BY_CLASS}
    means = ("miou", "oa", "mfscore", "mprecision", "mrecall")
    return {
        "Avg_metrics_name": ["mIoU", "Overall Accuracy", "Fscore", "Precision", "Recall"],
        "Avg_metrics": [100 * found[name] for name in means],
        "classes": [legend.BY_VALUE[i + 1].name for i in live],
        **{f"per_class_{name}": values for name, values in percent.items()},
    }


def auroc(wrong: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    """The chance that a wrong pixel has a higher score than a right one; equal scores count half.

    0.5 is a score that says nothing, 1 one that finds every error. It is the Mann–Whitney U statistic divided by the
    number of pairs (Hanley and McNeil, Radiology 143, 1982).

    Args:
        wrong: int64 (score,): number of wrong pixels of each score, in ascending order of the scores.
        right: the same of right pixels.

    Returns:
        The area; NaN where all pixels are right, or all are wrong.

    Example:
        >>> auroc(np.array([0, 1, 3]), np.array([4, 0, 0]))
        1.0
    """
    lower = np.cumsum(right) - right
    pairs = float(wrong.sum()) * float(right.sum())
    return float((wrong * (lower + right / 2)).sum() / pairs) if pairs else float("nan")
