"""The benches' charts, as PNG: bars, and lines over a logarithmic axis.

Matplotlib is imported when one is drawn: on a machine with a GPU the bench `gpu` does without.
"""

from collections.abc import Mapping, Sequence

_DPI = 110


def bar_chart(title: str, values: Sequence[tuple[str, float]], *, unit: str) -> bytes:
    """Draws horizontal bars, each with its name and number.

    Args:
        title: above the bars.
        values: (name, number), from top to bottom.
        unit: follows each number.
    """
    from matplotlib.figure import Figure

    from pipeline.evaluation.figures import as_png

    figure = Figure(figsize=(8.2, 1.1 + 0.4 * len(values)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot(title=title)
    bars = axes.barh([name for name, _ in values], [value for _, value in values])
    axes.bar_label(bars, [f"{value:.3g} {unit}" for _, value in values], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.get_xaxis().set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    return as_png(figure)


def line_chart(
    title: str, lines: Mapping[str, Sequence[tuple[float, float, str]]], *, x_label: str, y_label: str
) -> bytes:
    """Draws lines over a logarithmic y axis; points at y = 0 lie on its lower end.

    Args:
        title: above the lines.
        lines: name → (x, y, label) of its points, with ascending x, y of at least 0, and an empty label for none.
        x_label: below the x axis.
        y_label: beside the y axis.
    """
    from matplotlib.figure import Figure

    from pipeline.evaluation.figures import as_png

    figure = Figure(figsize=(8.2, 4.4), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=x_label, ylabel=y_label)
    if any(y > 0 for points in lines.values() for _, y, _ in points):
        axes.set_yscale("log", nonpositive="clip")
    for name, points in lines.items():
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], marker="o", label=name)
        for x, y, label in points:
            axes.annotate(label, (x, y), (0, 6), textcoords="offset points", ha="center")
    axes.grid(color="0.9")
    axes.legend()
    return as_png(figure)
