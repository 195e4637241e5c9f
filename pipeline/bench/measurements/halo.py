"""`halo`: how far maps in windows differ from one forward of the whole image, and what the overlap costs.

The image is the mirrored patches; the whole forward sees it with the default halo reflected around it, as the windows
do. The default windows are compared over the whole image; the curve over halos is taken on one core in its middle,
all four of whose edges lie inside the image: more than an image of few windows shows.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.chart import Curve, curves
from pipeline.bench.imagery import Imagery, Say, mirrored
from pipeline.bench.machine import available_memory, cores
from pipeline.bench.report import Report
from pipeline.errors import ConfigError
from pipeline.grid import Layout, Window
from pipeline.inference import Engine, Predictor, predictor_for
from pipeline.inference.array_source import ArraySource
from pipeline.inference.halo import map_block, read_reflected
from pipeline.inference.memory_projection import window_bytes

NAME = "halo"
_ENGINE = Engine("openvino", "fp32")


def run(imagery: Imagery, *, say: Say) -> Report:
    """The default windows over the whole image, then the curve; aligned and not."""
    scale, default = imagery.scale, imagery.scale.layout
    predictor = predictor_for(imagery.model, _ENGINE, threads=cores())
    side, notes = _side(imagery)
    pixels = mirrored(imagery.patches, Window(0, 0, side, side))
    truth = _whole(pixels, default, predictor)
    say(f"halo: one forward of {side}² px is there")
    everywhere = Window(0, 0, side, side)
    shift = default.stride // 2
    defaults = {
        "aligned": _differing(pixels, truth, everywhere, layout=default, shift=0, predictor=predictor),
        "unaligned": _differing(pixels, truth, everywhere, layout=default, shift=shift, predictor=predictor),
    }
    say(f"halo: default windows, {defaults}")
    # Where cores of this size can start: the windows' sizes count on it.
    step = math.gcd(default.core, default.stride)
    start = (side - default.core) // 2 // step * step
    middle = Window(start, start, default.core, default.core)
    curve = []
    for halo in sorted({*scale.halos, default.halo}):
        layout = _layout(default, halo)
        point: dict[str, Any] = {"halo": halo, "window": layout.window, "overlap": layout.overlap_factor}
        for name, off in (("aligned", 0), ("unaligned", shift)):
            point[name] = _differing(pixels, truth, middle, layout=layout, shift=off, predictor=predictor)
        curve.append(point)
        say(f"halo: {halo} px, {point['aligned']:.5f} aligned, {point['unaligned']:.5f} unaligned")
    figures = {"halo.disagreement_default": defaults["aligned"], "halo.overlap_default": default.overlap_factor}
    raw = {"image": side, "core": default.core, "unaligned_by": shift, "default": defaults, "middle_core": curve}
    return Report(NAME, figures, raw, _picture(curve, default), (*imagery.told, *notes))


def _side(imagery: Imagery) -> tuple[int, tuple[str, ...]]:
    """Pixels a side of the image: as wanted, or what fits into memory, a multiple of the stride."""
    wanted, layout = imagery.scale.whole, imagery.scale.layout
    available = available_memory()
    side = wanted
    while side > layout.core and window_bytes(side + 2 * _padding(layout), _ENGINE) > available:
        side -= layout.stride
    if side <= layout.core:
        raise ConfigError(
            f"halo: one forward of more than {layout.core}² px wants "
            f"{window_bytes(layout.core, _ENGINE) / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free"
        )
    if side == wanted:
        return side, ()
    return side, (f"{available / 1e9:.1f} GB of memory are free: the image is {side}² px instead of {wanted}²",)


def _padding(layout: Layout) -> int:
    """The halo in whole strides, so that the image's corner stays in phase."""
    return -(-layout.halo // layout.stride) * layout.stride


def _whole(pixels: NDArray[np.uint8], layout: Layout, predictor: Predictor) -> NDArray[np.uint8]:
    """Classes (y, x) of one forward of the whole image, reflected around by the halo."""
    window = Window(0, 0, *pixels.shape[1:])
    padding = _padding(layout)
    read = read_reflected(ArraySource.of(pixels, window, window=window, nodata=None), window.grow(padding))
    return predictor(read.bands[None], read.valid[None])[0, 0, padding:-padding, padding:-padding]


def _differing(
    pixels: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    part: Window,
    *,
    layout: Layout,
    shift: int,
    predictor: Predictor,
) -> float:
    """Share of pixels of a part of the image whose class in windows is not the whole forward's.

    Args:
        shift: pixels by which the image lies off the windows' phase.
    """
    window = Window(shift, shift, *truth.shape)
    source = ArraySource.of(pixels, window, window=window, nodata=None)
    block = Window(part.row + shift, part.col + shift, *part.shape)
    classes = map_block(source, block, layout=layout, predictor=predictor)[0]
    return float((classes != truth[part.slices_in(Window(0, 0, *truth.shape))]).mean())


def _layout(like: Layout, halo: int) -> Layout:
    """The same core with another halo, in the least window that keeps it."""
    room = like.window + 4 * (halo + like.stride)
    spacious = Layout(like.core, halo, -(-room // like.stride) * like.stride, like.stride)
    return Layout(like.core, halo, spacious.smallest_window, like.stride)


def _picture(curve: Sequence[dict[str, Any]], default: Layout) -> Any:
    lines = [
        Curve(f"{name} to the stride", tuple((p["halo"], 100 * p[name]) for p in curve))
        for name in ("aligned", "unaligned")
    ]
    title = f"Pixels unlike one forward of the whole, core {default.core} (default halo {default.halo})"
    return curves(title, lines, x_name="halo, px", y_name="% of pixels")
