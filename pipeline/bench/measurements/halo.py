"""`halo`: how much maps in windows differ from one forward of the whole image, and what the overlap costs.

The image is made of mirrored patches. The forward of the whole image sees it with the default halo reflected around it,
as windows do. The default windows are compared over the whole image. The curve over halos is taken on a single core in
its middle, whose four edges lie inside the image: a small image has few such edges otherwise. The patches are those
that the network was trained on; where the real extract of Montpellier is there, which it has not seen, it gets the same
curve.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from pipeline.bench.chart import line_chart
from pipeline.bench.imagery import Imagery, PatchStack, mirrored
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
from pipeline.sources.domain_inputs import BANDS

_ENGINE = Engine("openvino", "fp32")
_EXTRACT = "bdortho_montpellier"
_HEIGHTS = "DHM/*_77055_627760_*.tif"
_METRES = (770550.0, 6277550.0, 770600.0, 6277600.0)
"""Bounds of the heights, which cover the extract but for its outer pixel."""
_HEIGHT_STEP_M = 0.2


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Compares the default windows over the whole image, then draws the curve; both aligned and not."""
    default = imagery.scale.layout
    predictor = predictor_for(imagery.model, _ENGINE, threads=cores())
    side, notes = _side(imagery)
    everywhere = Window(0, 0, side, side)
    pixels = mirrored(imagery.patches, everywhere)
    whole = _whole_forward(pixels, default, predictor)
    on_message(f"halo: one forward of {side}² px is done")

    shifts = {"aligned": 0, "unaligned": default.stride // 2}
    defaults = {
        name: _differing(pixels, whole, everywhere, layout=default, shift=shift, predictor=predictor)
        for name, shift in shifts.items()
    }
    on_message(f"halo: default windows, {defaults}")
    curve = _curve(pixels, whole, imagery, predictor, shifts=shifts)
    on_message(f"halo: seen imagery, aligned: {_text(curve)}")
    unseen = []
    if (extract := unseen_extract(imagery)) is not None:
        pixels = mirrored(extract, everywhere)
        unseen = _curve(pixels, _whole_forward(pixels, default, predictor), imagery, predictor, shifts={"aligned": 0})
        on_message(f"halo: unseen imagery, aligned: {_text(unseen)}")
    figures = {"halo.disagreement_default": defaults["aligned"], "halo.overlap_default": default.overlap_factor}
    raw = {
        "image": side,
        "core": default.core,
        "unaligned_by": default.stride // 2,
        "default": defaults,
        "middle_core": curve,
        "middle_core_unseen": unseen,
    }
    return BenchReport(figures, raw, _chart(curve, unseen, default), (*imagery.notes, *notes))


def _curve(
    pixels: NDArray[np.uint8],
    whole: NDArray[np.uint8],
    imagery: Imagery,
    predictor: Predictor,
    *,
    shifts: dict[str, int],
) -> list[dict[str, Any]]:
    """Differing shares of the core in the middle of an image, by halo."""
    scale, default = imagery.scale, imagery.scale.layout
    # The smallest window for a halo depends on where cores start, so this core starts where a core of its size may.
    step = math.gcd(default.core, default.stride)
    start = (len(whole) - default.core) // 2 // step * step
    middle = Window(start, start, default.core, default.core)
    curve = []
    for halo in sorted({*scale.halos, default.halo}):
        layout = Layout.for_core(default.core, halo, default.stride)
        point: dict[str, Any] = {"halo": halo, "window": layout.window, "overlap": layout.overlap_factor}
        for name, shift in shifts.items():
            point[name] = _differing(pixels, whole, middle, layout=layout, shift=shift, predictor=predictor)
        curve.append(point)
    return curve


def _text(curve: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{p['halo']} px {100 * p['aligned']:.4f} %" for p in curve)


def unseen_extract(imagery: Imagery) -> PatchStack | None:
    """The real extract of 50 m as one patch; None without its files, or for a network with other bands."""
    folder = imagery.data / _EXTRACT
    heights = sorted(folder.glob(_HEIGHTS))
    if not heights or imagery.model.recipe.bands != BANDS:
        return None
    bands = []
    for path, indexes in ((folder / "rvb.tif", (1, 2, 3)), (folder / "irc.tif", (1,))):
        with rasterio.open(path) as file:
            window = file.window(*_METRES).round_offsets().round_lengths()
            bands.append(file.read(indexes, window=window))
    with rasterio.open(heights[0]) as file:
        metres = file.read(1, out_shape=bands[0].shape[1:], resampling=Resampling.bilinear)
    bands.append(np.clip(np.round(metres / _HEIGHT_STEP_M), 0, 255).astype(np.uint8)[None])
    return np.concatenate(bands)[None]


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


def _chart(curve: Sequence[dict[str, Any]], unseen: Sequence[dict[str, Any]], default: Layout) -> bytes:
    drawn = {"aligned to the stride": (curve, "aligned"), "unaligned": (curve, "unaligned")}
    if unseen:
        drawn["aligned, unseen imagery"] = (unseen, "aligned")
    lines = {label: [(p["halo"], 100 * p[name], "") for p in points] for label, (points, name) in drawn.items()}
    title = f"Difference from one forward of the whole image, core {default.core} px (default halo {default.halo} px)"
    return line_chart(title, lines, x_label="halo, px", y_label="differing pixels, %")
