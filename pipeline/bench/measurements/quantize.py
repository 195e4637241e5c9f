"""`quantize`: agreement with fp32 against speed, on pixels that were not calibrated on.

Twice: on the right halves of the patches, calibrated on their left ones, and on the demo's country with its own
network, on windows drawn as `landcover quantize` draws them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.bench.chart import Curve, curves
from pipeline.bench.imagery import Imagery, Patches, Say
from pipeline.bench.machine import cores
from pipeline.bench.report import Report
from pipeline.config import Campaign
from pipeline.inference.post_training_quantization import SCHEMES, Scheme, quantize_graph, save_quantized
from pipeline.inference.quantized_model import QuantizedModel
from pipeline.runs.quantization.tradeoff import TradeoffPoint, as_figures, frontier, kept, of_campaign, of_patches

NAME = "quantize"
_DEMO_WINDOWS = 32
"""To calibrate on, and as many to judge by."""


def run(imagery: Imagery, *, say: Say) -> Report:
    """Both frontiers, each measured in a process of its own."""
    demo = imagery.demo(say)
    # At the small scale the other schemes would only take time.
    schemes, windows = (SCHEMES, _DEMO_WINDOWS) if imagery.scale.apart else (SCHEMES[:1], 2)
    works: dict[str, Callable[[], tuple[TradeoffPoint, ...]]] = {
        "patches": lambda: imagery.measured(on_patches, imagery, schemes=schemes),
        "demo": lambda: imagery.measured(on_demo, demo, schemes=schemes, windows=windows),
    }
    frontiers = {}
    for where, work in works.items():
        frontiers[where] = work()
        for point in frontiers[where]:
            say(f"quantize: {where}, {point.name}: {point.agreement:.5f} at {point.mpx_per_s:.2f} Mpx/s")
    best = {where: kept(points) for where, points in frontiers.items()}
    return Report(
        NAME,
        {"quantize.agreement": min(point.agreement for point in best.values())},
        {
            "frontiers": {where: as_figures(points) for where, points in frontiers.items()},
            "kept": {where: as_figures([point])[0] for where, point in best.items()},
            "speedup": {where: point.mpx_per_s / frontiers[where][0].mpx_per_s for where, point in best.items()},
        },
        _picture(frontiers),
        (*imagery.told, "the demo's country is mapped with its own network, which was fitted to it"),
    )


def on_patches(imagery: Imagery, *, schemes: Sequence[Scheme]) -> tuple[TradeoffPoint, ...]:
    """The frontier over the right halves of the patches."""
    return frontier(imagery.model, of_patches(imagery.patches, imagery.model), threads=cores(), schemes=schemes)


def on_demo(campaign: Campaign, *, schemes: Sequence[Scheme], windows: int) -> tuple[TradeoffPoint, ...]:
    """The frontier over held-out windows of the demo's country."""
    model, samples = of_campaign(campaign, windows=windows)
    return frontier(model, samples, threads=cores(), schemes=schemes)


def in_int8(imagery: Imagery, path: Path) -> QuantizedModel:
    """The imagery's network in int8, calibrated on the left halves of the patches, as an XML at `path`."""
    model = imagery.model
    windows = [w.pixels for w in of_patches(imagery.patches, model).quantization]
    return save_quantized(quantize_graph(model, windows, SCHEMES[0]), path)


def held_out(patches: Patches) -> Patches:
    """Which pixels `in_int8` was not calibrated on: like the patches, of one band, 1 there and else 0."""
    marks = np.zeros_like(patches[:, :1])
    marks[..., patches.shape[-1] // 2 :] = 1
    return marks


def _picture(frontiers: Mapping[str, Sequence[TradeoffPoint]]) -> Image.Image:
    lines = []
    for where, points in frontiers.items():
        ordered = sorted(points, key=lambda p: p.mpx_per_s)
        places = tuple((round(p.mpx_per_s, 2), 100 * (1 - p.agreement)) for p in ordered)
        lines.append(Curve(where, places, tuple(p.name for p in ordered)))
    title = "What each precision costs in agreement and gives in speed"
    return curves(title, lines, x_name="forward alone, Mpx/s", y_name="% of held-out pixels unlike fp32 (fp32: none)")
