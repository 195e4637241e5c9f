"""Measures agreement with fp32 and speed of each precision and each quantization scheme."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

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
from pipeline.runs.quantization.unseen_domains import measure_scheme, of_domains
from pipeline.runs.quantization.windows import SampledWindow, WindowSplit, classes_of, draw_windows
from pipeline.sources.reading.raster import Pixels

_TURNS = 3
_Name = TypeVar("_Name", bound=str)


@dataclass(frozen=True)
class TradeoffPoint:
    """One precision or scheme, over the held-out windows."""

    name: str
    """`fp32`, `torch fp32`, `bf16`, or `int8 ` and a scheme's name."""
    agreement: float
    """Share of valid pixels that have the class which fp32 gives them, 0..1, in domains that it was quantized with."""
    mpx_per_s: float
    """Forward alone."""
    unseen: dict[str, float]
    """Domain → that share of its pixels by a network that was not quantized with it. Empty with one domain only."""

    @property
    def least_unseen(self) -> float:
        """The share of the unseen domain that agrees least; NaN where there is none."""
        return min(self.unseen.values(), default=float("nan"))


def frontier(
    model: Model, windows: WindowSplit, *, threads: int | None = None, schemes: Sequence[Scheme] = SCHEMES
) -> tuple[TradeoffPoint, ...]:
    """Measures fp32, bf16 and each scheme on the held-out windows, in domains that int8 has seen and has not seen.

    Args:
        model: as `pipeline.load_model` gives it.
        windows: from `of_patches` or `of_campaign`.
        threads: of the engine; by default those that OpenVINO chooses.
        schemes: of quantization.

    Returns:
        OpenVINO's fp32 first, whose agreement is 1 by definition, then torch, bf16, and the schemes in their order.
    """
    predictors: dict[str, Predictor] = {
        "fp32": predictor_for(model, Engine("openvino"), threads=threads),
        "torch fp32": predictor_for(model, Engine("torch"), threads=threads),
        "bf16": predictor_for(model, Engine("openvino", "bf16"), threads=threads),
    }
    maps = {name: [classes_of(run, w.pixels) for w in windows.held_out] for name, run in predictors.items()}
    unseen = {name: of_domains(windows.held_out, own).by_domain for name, own in maps.items()}
    for scheme in schemes:
        name = f"int8 {scheme.name}"
        graph = quantize_graph(model, [w.pixels for w in windows.quantization], scheme)
        found = measure_scheme(model, graph, windows, scheme, max_drop=0.01)
        maps[name], unseen[name] = found.maps, found.unseen.by_domain if found.unseen else {}
        with tempfile.TemporaryDirectory(prefix="landcover-frontier-") as folder:
            quantized = save_quantized(graph, Path(folder, "model.xml"))
            predictors[name] = OpenVinoPredictor(model, precision="int8", threads=threads, quantized=quantized)
    domains = {w.domain for w in windows.quantization}
    seen = [i for i, w in enumerate(windows.held_out) if w.domain in domains]
    speeds = speeds_in_turns(predictors, [windows.held_out[i] for i in seen])
    return tuple(
        TradeoffPoint(name, _agreement(windows, maps[name], seen), speeds[name], unseen[name]) for name in predictors
    )


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
    return [asdict(p) | {"least_unseen": p.least_unseen} for p in points]


def _agreement(windows: WindowSplit, maps: Sequence[NDArray[np.uint8]], chosen: Sequence[int]) -> float:
    return agree([windows.held_out[i].classes for i in chosen], [maps[i] for i in chosen]).overall


def speeds_in_turns(predictors: Mapping[_Name, Predictor], windows: Sequence[SampledWindow]) -> dict[_Name, float]:
    """Name → Mpx/s of the fastest of some turns; in turns, so that other load on the machine slows all of them."""
    seconds = dict.fromkeys(predictors, float("inf"))
    for run in predictors.values():
        classes_of(run, windows[0].pixels)  # compiles
    for _ in range(_TURNS):
        for name, run in predictors.items():
            started = time.monotonic()
            for window in windows:
                classes_of(run, window.pixels)
            seconds[name] = min(seconds[name], time.monotonic() - started)
    mpx = sum(window.classes.size for window in windows) / 1e6
    return {name: mpx / s for name, s in seconds.items()}
