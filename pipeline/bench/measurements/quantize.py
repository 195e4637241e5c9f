"""`quantize`: agreement of int8 with fp32 against speed, on pixels that were not used for quantization.

It is measured twice: on the right halves of the patches, after quantization on their left halves, and on the demo's
country with its own network, on windows drawn as `landcover quantize` draws them. Each patch is a domain, and so is the
real extract of Montpellier, which no network was quantized with; int8 is measured on domains that it has seen, and on
each domain with a network that has not seen it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.bench.chart import line_chart
from pipeline.bench.imagery import Imagery, PatchStack
from pipeline.bench.machine import cores
from pipeline.bench.measurements.halo import unseen_extract
from pipeline.bench.report import BenchReport
from pipeline.config import Campaign
from pipeline.grid import Window
from pipeline.inference import Engine, predictor_for
from pipeline.inference.post_training_quantization import SCHEMES, Scheme, quantize_graph, save_quantized
from pipeline.inference.quantized_model import QuantizedModel
from pipeline.progress import OnMessage
from pipeline.runs.quantization.tradeoff import TradeoffPoint, as_figures, frontier, kept, of_campaign, of_patches
from pipeline.runs.quantization.windows import SampledWindow, classes_of
from pipeline.sources.reading.raster import Pixels

_DEMO_WINDOWS = 32
"""Windows for quantization, and as many for the comparison."""


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Measures both curves of agreement and speed, each in a new process."""
    demo = imagery.demo(on_message)
    # At the quick scale the other schemes would only take time.
    schemes, windows = (SCHEMES[:1], 2) if imagery.scale.quick else (SCHEMES, _DEMO_WINDOWS)
    works: dict[str, Callable[[], tuple[TradeoffPoint, ...]]] = {
        "patches": lambda: imagery.measured(patches_frontier, imagery, schemes=schemes),
        "demo": lambda: imagery.measured(demo_frontier, demo, schemes=schemes, windows=windows),
    }
    frontiers = {}
    for where, work in works.items():
        frontiers[where] = work()
        for point in frontiers[where]:
            on_message(
                f"quantize: {where}, {point.name}: {point.agreement:.5f} seen, {point.least_unseen:.5f} in the least "
                f"unseen domain, at {point.mpx_per_s:.2f} Mpx/s"
            )
    best = {where: kept(points) for where, points in frontiers.items()}
    return BenchReport(
        {
            "quantize.agreement": min(point.agreement for point in best.values()),
            "quantize.agreement_unseen": best["patches"].least_unseen,
            "quantize.agreement_unseen_bf16": next(p for p in frontiers["patches"] if p.name == "bf16").least_unseen,
        },
        {
            "frontiers": {where: as_figures(points) for where, points in frontiers.items()},
            "kept": {where: as_figures([point])[0] for where, point in best.items()},
            "speedup": {where: point.mpx_per_s / frontiers[where][0].mpx_per_s for where, point in best.items()},
        },
        _chart(frontiers),
        (*imagery.notes, "the demo's country is mapped with the network that was fitted to it"),
    )


def patches_frontier(imagery: Imagery, *, schemes: Sequence[Scheme]) -> tuple[TradeoffPoint, ...]:
    """Agreement and speed on the right halves of the patches; agreement on the extract of Montpellier too."""
    model, extract = imagery.model, unseen_extract(imagery)
    # Each patch is a domain that another network is quantized without: two of them show that it runs.
    windows = of_patches(imagery.patches[:2] if imagery.scale.quick else imagery.patches, model)
    if extract is not None:
        height, width = (side // model.recipe.stride * model.recipe.stride for side in extract.shape[2:])
        bands = np.ascontiguousarray(extract[0, :, :height, :width])
        pixels = Pixels(bands, np.ones((height, width), np.bool_))
        classes = classes_of(predictor_for(model, Engine("openvino")), pixels)
        stranger = SampledWindow("Montpellier", "", Window(0, 0, height, width), pixels, classes)
        windows = replace(windows, held_out=(*windows.held_out, stranger))
    return frontier(model, windows, threads=cores(), schemes=schemes)


def least_unseen(imagery: Imagery) -> dict[str, float]:
    """Precision → agreement with fp32 in the unseen domain that agrees least; NaN where there is none."""
    points = {p.name: p.least_unseen for p in patches_frontier(imagery, schemes=SCHEMES[:1])}
    return {"fp32": 1.0, "bf16": points["bf16"], "int8": points[f"int8 {SCHEMES[0].name}"]}


def demo_frontier(campaign: Campaign, *, schemes: Sequence[Scheme], windows: int) -> tuple[TradeoffPoint, ...]:
    """Agreement and speed on held-out windows of the demo's country."""
    model, samples = of_campaign(campaign, windows=windows)
    return frontier(model, samples, threads=cores(), schemes=schemes)


def quantize_on_left_halves(imagery: Imagery, path: Path) -> QuantizedModel:
    """Quantizes the imagery's network on the left halves of the patches, and writes it as an XML at `path`."""
    model = imagery.model
    windows = [w.pixels for w in of_patches(imagery.patches, model).quantization]
    return save_quantized(quantize_graph(model, windows, SCHEMES[0]), path)


def right_halves(patches: PatchStack) -> PatchStack:
    """Marks the pixels that `quantize_on_left_halves` does not use: uint8 (patch, 1, y, x), 1 there and 0 elsewhere."""
    marks = np.zeros_like(patches[:, :1])
    marks[..., patches.shape[-1] // 2 :] = 1
    return marks


def _chart(frontiers: Mapping[str, Sequence[TradeoffPoint]]) -> bytes:
    lines = {
        where: sorted((round(p.mpx_per_s, 2), 100 * (1 - p.agreement), p.name) for p in points)
        for where, points in frontiers.items()
    }
    title = "Disagreement and speed by precision"
    return line_chart(title, lines, x_label="forward alone, Mpx/s", y_label="held-out pixels unlike fp32, %")
