"""Draws maps side by side, with titles and a legend."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline import legend
from pipeline.durable import replacing

_MARGIN, _TITLE, _LINE, _SWATCH = 16, 34, 26, 18
_COLUMN = 210
"""Width of a legend entry in pixels."""
_TEXT = (30, 30, 30)


def side_by_side(path: Path, panels: Sequence[tuple[str, NDArray[np.uint8]]], legend_values: Sequence[int]) -> None:
    """Writes a PNG of panels in a row, with titles above and a legend below.

    Args:
        panels: (title, RGB as uint8 (y, x, 3)), at least one and all of one shape.
        legend_values: FLAIR values in the legend, in this order.

    Raises:
        StorageError: `path` cannot be written.
    """
    height, width, _ = panels[0][1].shape
    total = _MARGIN + len(panels) * (width + _MARGIN)
    across = max(1, (total - 2 * _MARGIN) // _COLUMN)
    lines = -(-len(legend_values) // across)
    sheet = Image.new("RGB", (total, _TITLE + height + _MARGIN + lines * _LINE + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (title, rgb) in enumerate(panels):
        left = _MARGIN + k * (width + _MARGIN)
        draw.text((left, 8), title, fill=_TEXT, font=ImageFont.load_default(18))
        sheet.paste(Image.fromarray(np.ascontiguousarray(rgb)), (left, _TITLE))
    for k, c in enumerate(legend.classes(legend_values)):
        left = _MARGIN + k % across * _COLUMN
        top = _TITLE + height + _MARGIN + k // across * _LINE
        draw.rectangle((left, top, left + _SWATCH, top + _SWATCH), fill=c.rgb, outline=_TEXT)
        draw.text((left + _SWATCH + 8, top), c.name, fill=_TEXT, font=ImageFont.load_default(15))
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")
