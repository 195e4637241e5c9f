"""Measures agreement with fp32 and speed of each precision and each quantization scheme."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Campaign
from pipeline.errors import ConfigError
from pipeline.grid import Window
from pipeline.inference import Engine, Predictor, predictor_for
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.post_training_quantization import SCHEMES, Scheme, quantize_graph, save_quantized
from pipeline.model import Model, load_campaign_model
from pipeline.runs.quantization.agreement import agree
from pipeline.runs.quantization.windows import SampledWindow, WindowSplit, classes_of, draw_windows
from pipeline.sources.reading.raster import Pixels


@dataclass(frozen=True)
class TradeoffPoint:
    """One precision or scheme, over the held-out windows."""

    name: str
    """`fp32`, `bf16`, or `int8 ` and a scheme's name."""
    agreement: float
    """Share of valid pixels that have the class which fp32 gives them, 0..1."""
    mpx_per_s: float
    """Forward alone."""


def frontier(
    model: Model, windows: WindowSplit, *, threads: int | None = None, schemes: Sequence[Scheme] = SCHEMES
) -> tuple[TradeoffPoint, ...]:
    """Measures fp32, bf16 and each scheme on the held-out windows.

    Args:
        model: as `pipeline.load_model` gives it.
        windows: from `of_patches` or `of_campaign`.
        threads: of the engine; by default those that OpenVINO chooses.
        schemes: of quantization.

    Returns:
        fp32 first, whose agreement is 1 by definition, then bf16, then the schemes in their order.
    """
    points = []
    for precision in ("fp32", "bf16"):
        predictor = OpenVinoPredictor(model, precision=precision, threads=threads)
        points.append(_point(precision, predictor, windows.held_out))
    for scheme in schemes:
        graph = quantize_graph(model, [w.pixels for w in windows.quantization], scheme)
        with tempfile.TemporaryDirectory(prefix="landcover-frontier-") as folder:
            quantized = save_quantized(graph, Path(folder, "model.xml"))
            predictor = OpenVinoPredictor(model, precision="int8", threads=threads, quantized=quantized)
            points.append(_point(f"int8 {scheme.name}", predictor, windows.held_out))
    return tuple(points)


def kept(points: Sequence[TradeoffPoint], *, min_agreement: float = 0.99) -> TradeoffPoint:
    """The int8 point that `landcover quantize` would keep: the first that agrees well enough, else the best."""
    int8 = [p for p in points if p.name.startswith("int8")]
    enough = [p for p in int8 if p.agreement >= min_agreement]
    return enough[0] if enough else max(int8, key=lambda p: p.agreement)


def of_patches(patches: NDArray[np.uint8], model: Model) -> WindowSplit:
    """Left halves of images to quantize with, right halves to compare on.

    Args:
        patches: uint8 (patch, band, y, x), the recipe's bands.
        model: its fp32 classes are the reference.

    Raises:
        ConfigError: half of the width, or the height, is not a multiple of the stride.
    """
    reference = predictor_for(model, Engine("openvino"))
    height, width = patches.shape[2:]
    half, stride = width // 2, model.recipe.stride
    if half % stride or height % stride:
        raise ConfigError(f"{height} × {width} px have no halves whose sides are multiples of {stride} px")
    sides: list[list[SampledWindow]] = [[], []]
    for number, patch in enumerate(patches):
        for side, col in zip(sides, (0, half), strict=True):
            window = Window(0, col, height, half)
            pixels = Pixels(patch[:, :, col : col + half].copy(), np.ones(window.shape, np.bool_))
            side.append(SampledWindow(f"patch {number}", "", window, pixels, classes_of(reference, pixels)))
    return WindowSplit(*map(tuple, sides))


def of_campaign(campaign: Campaign, *, windows: int) -> tuple[Model, WindowSplit]:
    """A campaign's network, and windows as `landcover quantize` draws them."""
    model = load_campaign_model(campaign)
    return model, draw_windows(campaign, model, windows=windows)


def as_figures(points: Sequence[TradeoffPoint]) -> list[dict[str, Any]]:
    """The points for a bench's JSON."""
    return [asdict(p) for p in points]


def _point(name: str, predictor: Predictor, windows: Sequence[SampledWindow]) -> TradeoffPoint:
    classes_of(predictor, windows[0].pixels)  # compiles
    started = time.monotonic()
    maps = [classes_of(predictor, w.pixels) for w in windows]
    seconds = time.monotonic() - started
    pixels = sum(w.classes.size for w in windows)
    return TradeoffPoint(name, agree([w.classes for w in windows], maps).overall, pixels / 1e6 / seconds)
