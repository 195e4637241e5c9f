"""`halo`: how much maps in windows differ from one forward of the whole image, and what the overlap costs.

The image is made of mirrored patches. The forward of the whole image sees it with the default halo reflected around it,
as windows do. The default windows are compared over the whole image. The curve over halos is taken on a single core in
its middle, whose four edges lie inside the image: a small image has few such edges otherwise.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from pipeline.bench.chart import line_chart
from pipeline.bench.imagery import Imagery, mirrored
from pipeline.bench.machine import cores
from pipeline.bench.report import BenchReport
from pipeline.errors import ConfigError
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference import Engine, Predictor, predictor_for
from pipeline.inference.array_source import ArraySource
from pipeline.inference.block_mapping import map_block, read_reflected
from pipeline.inference.memory_projection import window_bytes
from pipeline.progress import OnMessage

_ENGINE = Engine("openvino", "fp32")


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Compares the default windows over the whole image, then draws the curve; both aligned and not."""
    scale, default = imagery.scale, imagery.scale.layout
    predictor = predictor_for(imagery.model, _ENGINE, threads=cores())
    side, notes = _side(imagery)
    everywhere = Window(0, 0, side, side)
    pixels = mirrored(imagery.patches, everywhere)
    whole = _whole_forward(pixels, default, predictor)
    on_message(f"halo: one forward of {side}² px is done")

    def differing(part: Window, layout: Layout) -> dict[str, float]:
        shifts = {"aligned": 0, "unaligned": default.stride // 2}
        return {
            name: _differing(pixels, whole, part, layout=layout, shift=shift, predictor=predictor)
            for name, shift in shifts.items()
        }

    defaults = differing(everywhere, default)
    on_message(f"halo: default windows, {defaults}")
    # The smallest window for a halo depends on where cores start, so this core starts where a core of its size may.
    step = math.gcd(default.core, default.stride)
    start = (side - default.core) // 2 // step * step
    middle = Window(start, start, default.core, default.core)
    curve = []
    for halo in sorted({*scale.halos, default.halo}):
        layout = Layout.for_core(default.core, halo, default.stride)
        point: dict[str, Any] = {"halo": halo, "window": layout.window, "overlap": layout.overlap_factor}
        point |= differing(middle, layout)
        curve.append(point)
        on_message(f"halo: {halo} px, {point['aligned']:.5f} aligned, {point['unaligned']:.5f} unaligned")
    figures = {"halo.disagreement_default": defaults["aligned"], "halo.overlap_default": default.overlap_factor}
    raw = {
        "image": side,
        "core": default.core,
        "unaligned_by": default.stride // 2,
        "default": defaults,
        "middle_core": curve,
    }
    return BenchReport(figures, raw, _chart(curve, default), (*imagery.notes, *notes))


def _side(imagery: Imagery) -> tuple[int, tuple[str, ...]]:
    """Side of the image in pixels: the scale's, or the largest multiple of the stride that fits into memory."""
    wanted, layout = imagery.scale.whole_image, imagery.scale.layout
    available = psutil.virtual_memory().available
    side = wanted
    while side > layout.core and window_bytes(side + 2 * _padding(layout), _ENGINE) > available:
        side -= layout.stride
    if side <= layout.core:
        raise ConfigError(
            f"halo: one forward of more than {layout.core}² px needs "
            f"{window_bytes(layout.core, _ENGINE) / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are free"
        )
    if side == wanted:
        return side, ()
    return side, (f"the image is {side}² px instead of {wanted}², because {available / 1e9:.1f} GB of memory are free",)


def _padding(layout: Layout) -> int:
    """The halo rounded up to whole strides, so that the image's corner stays aligned."""
    return -(-layout.halo // layout.stride) * layout.stride


def _whole_forward(pixels: NDArray[np.uint8], layout: Layout, predictor: Predictor) -> NDArray[np.uint8]:
    """Classes (y, x) from one forward of the whole image, with the halo reflected around it."""
    window = Window(0, 0, *pixels.shape[1:])
    padding = _padding(layout)
    read = read_reflected(ArraySource.all_valid(pixels, window), window.grow(padding))
    return predictor(read.bands[None], read.valid[None])[0, 0, padding:-padding, padding:-padding]


def _differing(
    pixels: NDArray[np.uint8],
    whole: NDArray[np.uint8],
    part: Window,
    *,
    layout: Layout,
    shift: int,
    predictor: Predictor,
) -> float:
    """Share of a part's pixels whose class in windows differs from that of the whole forward.

    Args:
        shift: pixels by which the image is moved off the alignment of the windows.
    """
    window = Window(shift, shift, *whole.shape)
    source = ArraySource.all_valid(pixels, window)
    block = Window(part.row + shift, part.col + shift, *part.shape)
    classes = map_block(source, block, layout=layout, predictor=predictor)[0]
    return float((classes != whole[part.slices_in(Window(0, 0, *whole.shape))]).mean())


def _chart(curve: Sequence[dict[str, Any]], default: Layout) -> bytes:
    shifts = ("aligned", "unaligned")
    lines = {f"{name} to the stride": [(p["halo"], 100 * p[name], "") for p in curve] for name in shifts}
    title = f"Difference from one forward of the whole image, core {default.core} px (default halo {default.halo} px)"
    return line_chart(title, lines, x_label="halo, px", y_label="differing pixels, %")
