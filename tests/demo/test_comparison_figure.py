"""The figure shows each panel unchanged, and a legend of the given classes."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline import legend
from pipeline.demo.comparison_figure import side_by_side


def test_panels_are_side_by_side_above_the_legend(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    panels = [(name, rng.integers(0, 255, (40, 400, 3)).astype(np.uint8)) for name in ("image", "truth")]
    side_by_side(tmp_path / "map.png", panels, legend_values=range(1, 13))
    with Image.open(tmp_path / "map.png") as file:
        sheet = np.asarray(file)
    for k, (_, rgb) in enumerate(panels):
        np.testing.assert_array_equal(sheet[34:74, 16 + k * 416 : 16 + k * 416 + 400], rgb)
    below = {tuple(c) for c in sheet[90:].reshape(-1, 3).tolist()}
    assert {c.rgb for c in legend.classes(range(1, 13))} <= below
