"""Charts of a product's quality report, drawn with matplotlib as PNG bytes."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from pipeline import legend
from pipeline.evaluation.figures import as_png, panel


def class_bars(shares: Mapping[str, Mapping[int, float]], values: Sequence[int]) -> bytes:
    """A group of bars for each class, one for each name; the first is filled with the class's colour.

    Args:
        shares: name → FLAIR value → share, 0..1.
        values: the FLAIR values to show, in this order.
    """
    figure, axes = panel(9.5, 3.4)
    width, at = 0.8 / len(shares), np.arange(len(values))
    hatches = ("", "///", "...", "xxx", "\\\\\\", "+++")
    for k, (name, own) in enumerate(shares.items()):
        colours = [legend.BY_VALUE[v].colour if k == 0 else "white" for v in values]
        heights = [100 * own.get(v, 0.0) for v in values]
        hatch = hatches[k % len(hatches)]
        left = at - 0.4 + (k + 0.5) * width
        axes.bar(left, heights, width, color=colours, edgecolor="0.25", linewidth=0.6, hatch=hatch, label=name)
    axes.set_xticks(at, [legend.BY_VALUE[v].name for v in values], rotation=30, ha="right", rotation_mode="anchor")
    axes.set_ylabel("% of the mapped area")
    axes.legend()
    return as_png(figure)


def confidence_bars(counts: NDArray[np.int64]) -> bytes:
    """A histogram of confidence.

    Args:
        counts: int64 (256,): how often each value was seen; 0 is no data and left out.
    """
    figure, axes = panel(6, 2.9)
    # 255 values in 51 bins of five.
    binned = counts[1:].reshape(51, 5).sum(axis=1) / max(1, counts[1:].sum())
    centres = (np.arange(51) * 5 + 3) / 255
    axes.bar(centres, 100 * binned, 5 / 255, color="#3b6ea5", edgecolor="white", linewidth=0.4)
    axes.set(xlim=(0, 1), xlabel="confidence: probability of the class", ylabel="pixels, %")
    return as_png(figure)


def tile_dots(offs: Mapping[str, Sequence[float]], *, limit: float) -> bytes:
    """A row of dots for each band, one a tile: how far its mean lies off the training mean.

    Args:
        offs: band → training deviations, one a tile.
        limit: beyond which a tile is outlying.
    """
    figure, axes = panel(7, 0.9 + 0.5 * len(offs))
    axes.axvspan(-limit, limit, color="0.92")
    axes.axvline(0, color="0.6", linewidth=1)
    for row, values in enumerate(offs.values()):
        # Spread evenly, so that equal tiles do not hide each other.
        spread = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(values, row + spread, linestyle="", marker="o", markersize=4, alpha=0.7, color="#3b6ea5")
    axes.set_yticks(range(len(offs)), list(offs))
    axes.invert_yaxis()
    reach = max(1.3 * limit, *(abs(v) * 1.1 for values in offs.values() for v in values))
    axes.set(xlim=(-reach, reach), xlabel="tile's mean − training mean, in training deviations")
    return as_png(figure)


def tile_speeds(speeds: Sequence[float]) -> bytes:
    """Mpx/s of each tile, in the order in which they were sealed."""
    figure, axes = panel(7, 2.6)
    axes.plot(range(1, len(speeds) + 1), speeds, marker=".", linewidth=1, color="#3b6ea5")
    axes.set(xlabel="tiles, in the order of sealing", ylabel="Mpx/s a tile")
    axes.set_ylim(bottom=0)
    return as_png(figure)


def picture(rgb: NDArray[np.uint8]) -> bytes:
    """A picture pixel for pixel as PNG: uint8 (y, x, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def confidence_colours(confidence: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (y, x) → rgb (y, x, 3): dark is unsure, bright is sure, light grey is no data."""
    table = (colormaps["viridis"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    table[0] = 235
    coloured: NDArray[np.uint8] = table[confidence]
    return coloured
