"""How well a score finds errors: the area under the ROC curve, from counts of bytes."""

import numpy as np
from numpy.typing import NDArray


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
