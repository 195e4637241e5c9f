"""Figures of an evaluation, drawn with matplotlib: the card's two confusion matrices, reliability, curves."""

import io
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.evaluation.calibration import BINS, Reliability

_DPI = 110
_DARK = 0.55
"""Share above which a cell is dark enough for white figures."""

By = Literal["precision", "recall"]
BY: tuple[By, By] = ("precision", "recall")


def confusion(matrix: NDArray[np.int64], names: Sequence[str], *, by: By) -> bytes:
    """A confusion matrix in percent as PNG, as the model cards show it twice.

    Args:
        matrix: int64 (class, class), rows truth, columns prediction.
        names: of the classes.
        by: `precision`: columns sum to 100 % and the diagonal is precision; `recall`: rows do, and it is recall.
    """
    axis = 0 if by == "precision" else 1
    whole = matrix.sum(axis=axis, keepdims=True)
    shares = np.divide(matrix, whole, out=np.zeros(matrix.shape), where=whole > 0)
    side = 2.6 + 0.62 * len(names)
    figure, axes = panel(side, side * 0.94)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    line = "columns sum to 100 %" if by == "precision" else "rows sum to 100 %"
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion, {line}: {by} on the diagonal, %")
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.0005:
            colour = "white" if share > _DARK else "black"
            axes.text(column, row, f"{100 * share:.1f}", ha="center", va="center", fontsize=8, color=colour)
    return as_png(figure)


def reliability(curves: Mapping[str, Reliability]) -> bytes:
    """Accuracy over confidence as PNG, a line for each name; below, how many pixels have which confidence."""
    figure = Figure(figsize=(6, 6.6), dpi=_DPI, layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.plot((0, 1), (0, 1), color="0.7", linestyle="--", linewidth=1)
    centres = (np.arange(BINS) + 0.5) / BINS
    for k, (name, found) in enumerate(curves.items()):
        seen = found.pixels > 0
        label = f"{name}: ECE {100 * found.ece:.2f} %"
        upper.plot(found.mean_confidence[seen], found.accuracy[seen], marker="o", color=f"C{k}", label=label)
        lower.step(centres, 100 * found.pixels / found.pixels.sum(), where="mid", color=f"C{k}")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that comes true", title="Reliability of the confidence")
    upper.legend(loc="upper left")
    lower.set(xlabel="confidence", ylabel="pixels, %")
    lower.set_ylim(bottom=0)
    return as_png(figure)


def curves(history: Mapping[str, Sequence[tuple[float, float]]], panels: Mapping[str, Sequence[str]]) -> bytes:
    """Figures over epochs as PNG.

    Args:
        history: name → (epoch, value) pairs.
        panels: title of a panel → names that it shows; names without values are left out.
    """
    figure = Figure(figsize=(4.8 * len(panels), 3.8), dpi=_DPI, layout="constrained")
    for k, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), k)
        for name in names:
            if points := history.get(name, ()):
                axes.plot(*zip(*points, strict=True), marker=".", label=name)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="0.9")
        if axes.lines:
            axes.legend()
    return as_png(figure)


def panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one panel; width and height in inches."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    return figure, figure.add_subplot()


def as_png(figure: Figure) -> bytes:
    """A figure as PNG."""
    # Without pyplot, which keeps every figure until it is closed and may need a screen.
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
