"""Two kinds of charts, drawn with what is installed anyway: bars and curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_TEXT, _GRID = (30, 30, 30), (215, 215, 215)
_COLOURS = ((38, 95, 160), (214, 102, 26), (62, 140, 75), (140, 70, 150))
_WIDTH, _HEIGHT = 900, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 30, 60, 60
_BAR, _NAMES = 30, 340
_TICK = 36
"""Pixels that an x's number takes: nearer ones are left out."""


@dataclass(frozen=True)
class Curve:
    """A line of a chart."""

    name: str
    points: tuple[tuple[float, float], ...]
    """(x, y), x ascending; y above 0."""
    labels: tuple[str, ...] = ()
    """Of the points; none, or one each."""


def bars(title: str, values: Sequence[tuple[str, float]], *, unit: str) -> Image.Image:
    """Horizontal bars from 0, each with its name and number.

    Args:
        title: above the bars.
        values: (name, number of at least 0), from top to bottom.
        unit: behind each number.
    """
    height = _TOP + len(values) * (_BAR + 12) + 20
    sheet = Image.new("RGB", (_WIDTH, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((20, 16), title, fill=_TEXT, font=ImageFont.load_default(20))
    longest = max((v for _, v in values), default=0.0) or 1.0
    for k, (name, value) in enumerate(values):
        top = _TOP + k * (_BAR + 12)
        right = _NAMES + round((_WIDTH - _NAMES - 150) * value / longest)
        draw.text((20, top + 6), name, fill=_TEXT, font=ImageFont.load_default(15))
        draw.rectangle((_NAMES, top, max(right, _NAMES + 1), top + _BAR), fill=_COLOURS[0])
        draw.text((right + 8, top + 6), f"{value:.3g} {unit}", fill=_TEXT, font=ImageFont.load_default(15))
    return sheet


def curves(title: str, lines: Sequence[Curve], *, x_name: str, y_name: str) -> Image.Image:
    """Lines over a linear x and a logarithmic y axis, whose grid is powers of ten; a y of 0 lies on the floor."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points if y > 0] or [1.0]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    high = max(high, low + 1)
    left, right = min(xs), max(*xs, min(xs) + 1)
    sheet = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(sheet)

    def place(x: float, y: float) -> tuple[float, float]:
        level = (math.log10(y) - low) / (high - low) if y > 0 else 0.0
        return (
            _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - level * (_HEIGHT - _TOP - _BOTTOM),
        )

    small = ImageFont.load_default(14)
    for power in range(low, high + 1):
        start, end = place(left, 10.0**power), place(right, 10.0**power)
        draw.line((start, end), fill=_GRID)
        draw.text((10, start[1] - 8), f"{10.0**power:g}", fill=_TEXT, font=small)
    free = 0.0
    for x in sorted(set(xs)):
        if (at := place(x, 10.0**low)[0] - 10) >= free:
            draw.text((at, _HEIGHT - _BOTTOM + 8), f"{x:g}", fill=_TEXT, font=small)
            free = at + _TICK
    for k, line in enumerate(lines):
        places = [place(x, y) for x, y in line.points]
        draw.line(places, fill=_COLOURS[k % len(_COLOURS)], width=3)
        for x, y in places:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_COLOURS[k % len(_COLOURS)])
        for (x, y), label in zip(places, line.labels, strict=False):
            # To the left, where the right half of the sheet begins to end.
            left_of = draw.textlength(label, font=small) + 12 if x > _WIDTH / 2 else -8
            draw.text((x - left_of, y - 22), label, fill=_COLOURS[k % len(_COLOURS)], font=small)
        draw.text((_WIDTH - 330, _TOP + 22 * k), line.name, fill=_COLOURS[k % len(_COLOURS)], font=small)
    draw.text((20, 14), title, fill=_TEXT, font=ImageFont.load_default(20))
    draw.text((20, 40), y_name, fill=_TEXT, font=small)
    draw.text((_WIDTH - 330, _HEIGHT - 28), x_name, fill=_TEXT, font=small)
    return sheet
