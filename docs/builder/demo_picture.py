"""`python -m docs.builder.demo_picture`: the README's picture, from the demo's own: imagery beside its map."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.demo.comparison_figure import _MARGIN, _TITLE, side_by_side

_ROOT = Path(__file__).parents[2]
_PREVIEW = _ROOT / "build" / "demo" / "preview.png"
_PICTURE = _ROOT / "docs" / "assets" / "demo.png"
_PANELS = 3
"""Of the demo's picture: imagery, truth, map."""
_SIZE = (600, 360)
_COLOURS = 128
"""Keeps the file below 300 kB."""


def draw(preview: Path, picture: Path) -> None:
    """Writes the first and the last panel of the demo's picture, smaller, over a legend of the twelve classes."""
    sheet = Image.open(preview).convert("RGB")
    width = (sheet.width - _MARGIN) // _PANELS - _MARGIN
    height = round(width * _SIZE[1] / _SIZE[0])
    lefts = (_MARGIN, _MARGIN + (_PANELS - 1) * (width + _MARGIN))
    panels = [np.asarray(sheet.crop((x, _TITLE, x + width, _TITLE + height)).resize(_SIZE)) for x in lefts]
    titles = ("imagery (a made-up country)", "land cover, 12 classes")
    side_by_side(picture, list(zip(titles, panels, strict=True)), range(1, 13))
    Image.open(picture).quantize(_COLOURS).save(picture, optimize=True)


if __name__ == "__main__":
    draw(_PREVIEW, _PICTURE)
