"""The benches' charts, as PNG: bars, and lines over a logarithmic axis."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from pipeline.evaluation.figures import as_png

_DPI = 110


@dataclass(frozen=True)
class Line:
    """A line of a chart."""

    name: str
    points: tuple[tuple[float, float], ...]
    """(x, y) with ascending x and y of at least 0."""
    labels: tuple[str, ...] = ()
    """One for each point, or none."""


def bar_chart(title: str, values: Sequence[tuple[str, float]], *, unit: str) -> bytes:
    """Draws horizontal bars, each with its name and number.

    Args:
        title: above the bars.
        values: (name, number), from top to bottom.
        unit: follows each number.
    """
    figure = Figure(figsize=(8.2, 1.1 + 0.4 * len(values)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot(title=title)
    bars = axes.barh([name for name, _ in values], [value for _, value in values])
    axes.bar_label(bars, [f"{value:.3g} {unit}" for _, value in values], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.get_xaxis().set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    return as_png(figure)


def line_chart(title: str, lines: Sequence[Line], *, x_label: str, y_label: str) -> bytes:
    """Draws lines over a logarithmic y axis; points at y = 0 lie on its lower end."""
    figure = Figure(figsize=(8.2, 4.4), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=x_label, ylabel=y_label)
    if any(y > 0 for line in lines for _, y in line.points):
        axes.set_yscale("log", nonpositive="clip")
    for line in lines:
        axes.plot(*zip(*line.points, strict=True), marker="o", label=line.name)
        for point, label in zip(line.points, line.labels, strict=False):
            axes.annotate(label, point, (0, 6), textcoords="offset points", ha="center")
    axes.grid(color="0.9")
    axes.legend()
    return as_png(figure)
