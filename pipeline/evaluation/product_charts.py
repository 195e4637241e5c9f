"""Charts of a product's quality report as plain geometry, which `templates/charts.html` draws; and small pictures.

Each bar and dot has a text of its own, which a browser shows where the pointer rests.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from pipeline import legend
from pipeline.html_page import Wording
from pipeline.legend import Language

_INK = "#3b6ea5"
_MOST_SERIES = 6
"""Names whose bars stand beside each other; more cannot be told apart."""
_RIGHT, _TOP = 12.0, 10.0
_AXIS = 44.0
"""Height below the plot for numbers and a label."""


@dataclass(frozen=True)
class Mark:
    """A bar or a dot."""

    shape: Literal["bar", "dot"]
    x: float
    """Of a bar its left edge, of a dot its centre."""
    y: float
    """Of a bar its upper edge, of a dot its centre."""
    width: float
    height: float
    colour: str
    text: str
    """What a browser shows of it."""
    opacity: float = 1.0


@dataclass(frozen=True)
class Chart:
    """A chart in units of its own, which are pixels where there is room."""

    name: str
    width: float
    height: float
    left: float
    """Of the plot."""
    bottom: float
    """Of the plot."""
    marks: tuple[Mark, ...]
    x_ticks: tuple[tuple[float, str], ...]
    """(place, label)."""
    y_ticks: tuple[tuple[float, str], ...]
    x_label: str = ""
    y_label: str = ""
    slanted: bool = False
    """Whether the labels below are slanted, because they are long."""
    series: tuple[tuple[str, float], ...] = ()
    """(name, opacity) of the bars beside each other."""
    band: tuple[float, float] | None = None
    """(left, right) of a grey band behind the dots."""

    @property
    def right(self) -> float:
        """Of the plot."""
        return self.width - _RIGHT

    @property
    def top(self) -> float:
        """Of the plot."""
        return _TOP


def class_bars(shares: Mapping[str, Mapping[int, float]], values: Sequence[int], *, language: Language = "en") -> Chart:
    """A group of bars for each class, one for each of the first names.

    Args:
        shares: name → FLAIR value → share, 0..1.
        values: the FLAIR values to show, in this order.
        language: of the texts.
    """
    say = Wording(language)
    shown = dict(list(shares.items())[:_MOST_SERIES])
    width, height, left, bottom = 840.0, 320.0, 58.0, 220.0
    top = max((own.get(v, 0.0) for own in shown.values() for v in values), default=0.0)
    group = (width - _RIGHT - left) / len(values)
    scale = _Scale(top, _TOP, bottom)
    opacities = [(name, round(0.62**k, 2)) for k, name in enumerate(shown)]
    bar = 0.8 * group / len(shown)
    marks = []
    for at, value in enumerate(values):
        entry = legend.BY_VALUE[value]
        for k, (name, opacity) in enumerate(opacities):
            share = shown[name].get(value, 0.0)
            y = scale.place(share)
            text = f"{name}, {entry.label(language)}: {say.percent(share)}"
            x = left + group * (at + 0.1) + k * bar
            marks.append(Mark("bar", x, y, bar, bottom - y, entry.colour, text, opacity))
    names = tuple((left + group * (k + 0.5), legend.BY_VALUE[v].label(language)) for k, v in enumerate(values))
    ticks = tuple((y, say.percent(share, _digits(scale.step))) for y, share in scale.ticks())
    return Chart(
        say("Class shares"),
        width,
        height,
        left,
        bottom,
        tuple(marks),
        names,
        ticks,
        y_label=say("share of the mapped area"),
        slanted=True,
        series=tuple(opacities),
    )


def confidence_bars(counts: NDArray[np.int64], *, language: Language = "en") -> Chart:
    """A histogram of confidence.

    Args:
        counts: int64 (256,): how often each value was seen; 0 is no data and left out.
        language: of the texts.
    """
    say = Wording(language)
    width, height, left, bottom = 620.0, 264.0, 58.0, 220.0
    # 255 values in 51 bins of five.
    binned = counts[1:].reshape(51, 5).sum(axis=1) / max(1, counts[1:].sum())
    scale, bar = _Scale(float(binned.max()), _TOP, bottom), (width - _RIGHT - left) / 51
    marks = []
    for k, share in enumerate(binned.tolist()):
        low, high = say.decimal((5 * k + 1) / 255), say.decimal((5 * k + 5) / 255)
        y = scale.place(share)
        text = f"{low} – {high}: {say.percent(share)}"
        marks.append(Mark("bar", left + k * bar, y, 0.92 * bar, bottom - y, _INK, text))
    across = tuple((left + share * 51 * bar, say.decimal(share, 1)) for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    return Chart(
        say("Confidence"),
        width,
        height,
        left,
        bottom,
        tuple(marks),
        across,
        tuple((y, say.percent(share, _digits(scale.step))) for y, share in scale.ticks()),
        x_label=say("confidence: probability of the class"),
        y_label=say("share of the pixels"),
    )


def tile_dots(offs: Mapping[str, Sequence[tuple[str, float]]], *, limit: float, language: Language = "en") -> Chart:
    """A row of dots for each band, one a tile: how far its mean lies off the training mean.

    Args:
        offs: band → (tile, training deviations).
        limit: beyond which a tile is outlying.
        language: of the texts.
    """
    say = Wording(language)
    width, row, left = 760.0, 46.0, 118.0
    bottom = _TOP + row * len(offs)
    reach = max(1.3 * limit, *(abs(v) * 1.1 for values in offs.values() for _, v in values))
    scale = _Scale(reach, width - _RIGHT, (left + width - _RIGHT) / 2)
    marks = []
    for k, values in enumerate(offs.values()):
        # Spread evenly, so that equal tiles do not hide each other.
        spread = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else np.zeros(1)
        for (tile, off), aside in zip(values, spread.tolist(), strict=True):
            y = _TOP + row * (k + 0.5 + aside)
            text = f"{tile}: {say.decimal(off, 2, '+')}"
            marks.append(Mark("dot", scale.place(off), y, 8, 8, _INK, text, 0.7))
    across = sorted({sign * v + 0.0 for _, v in scale.ticks() for sign in (-1, 1)})
    return Chart(
        say("Tiles beside the training images"),
        width,
        bottom + _AXIS,
        left,
        bottom,
        tuple(marks),
        tuple((scale.place(v), say.decimal(v, 1)) for v in across),
        tuple((_TOP + row * (k + 0.5), say.plain(band)) for k, band in enumerate(offs)),
        x_label=say("tile's mean − training mean, in training deviations"),
        band=(scale.place(-limit), scale.place(limit)),
    )


def tile_speeds(speeds: Sequence[tuple[str, float]], *, language: Language = "en") -> Chart:
    """Mpx/s of each tile.

    Args:
        speeds: (tile, Mpx/s) in the order in which they were sealed.
        language: of the texts.
    """
    say = Wording(language)
    width, height, left, bottom = 760.0, 244.0, 62.0, 200.0
    scale = _Scale(max(speed for _, speed in speeds), _TOP, bottom)
    step = (width - _RIGHT - left) / len(speeds)
    marks = [
        Mark("dot", left + step * (k + 0.5), scale.place(speed), 8, 8, _INK, f"{tile}: {say.decimal(speed, 3)} Mpx/s")
        for k, (tile, speed) in enumerate(speeds)
    ]
    numbers = [k for k in _round_values(len(speeds), most=8, integer=True) if 1 <= k <= len(speeds)]
    return Chart(
        say("Speed of the tiles"),
        width,
        height,
        left,
        bottom,
        tuple(marks),
        tuple((left + step * (k - 0.5), say.decimal(k, 0)) for k in numbers),
        tuple((y, say.decimal(speed, 2)) for y, speed in scale.ticks()),
        x_label=say("tiles, in the order of sealing"),
        y_label=say("Mpx/s of a tile"),
    )


@dataclass(frozen=True)
class _Scale:
    """Values from 0 on → places, from where 0 is to where `most` is."""

    most: float
    end: float
    start: float

    @property
    def step(self) -> float:
        """Between ticks."""
        values = _round_values(self.most or 1.0)
        return values[1] - values[0]

    def place(self, value: float) -> float:
        """Where a value lies."""
        return round(self.start + (self.end - self.start) * value / (self.most or 1.0), 2)

    def ticks(self) -> list[tuple[float, float]]:
        """(place, value) of round values."""
        values = _round_values(self.most or 1.0)
        return [(self.place(v), v) for v in values if v <= (self.most or 1.0)]


def _round_values(end: float, *, most: int = 4, **options: bool) -> list[float]:
    return [float(v) for v in MaxNLocator(most, **options).tick_values(0, end)]


def _digits(step: float) -> int:
    """Decimals of percents, so that ticks in these steps are exact."""
    return next((digits for digits in range(3) if round(100 * step, 6) == round(100 * step, digits)), 3)


def picture(rgb: NDArray[np.uint8]) -> bytes:
    """A picture pixel for pixel as PNG: uint8 (y, x, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def photo(rgb: NDArray[np.uint8]) -> bytes:
    """A picture of imagery as JPEG, a tenth of the size of a PNG: uint8 (y, x, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, format="JPEG", quality=88, subsampling=0)
    return buffer.getvalue()


def confidence_colours(confidence: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (y, x) → rgb (y, x, 3): dark is unsure, bright is sure, light grey is no data."""
    table = (colormaps["viridis"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    table[0] = 235
    coloured: NDArray[np.uint8] = table[confidence]
    return coloured


def confidence_bar() -> NDArray[np.uint8]:
    """The colours of confidence from 0 to 1, as a row of pixels: uint8 rgb (1, 255, 3)."""
    return confidence_colours(np.arange(1, 256, dtype=np.uint8)[None])
