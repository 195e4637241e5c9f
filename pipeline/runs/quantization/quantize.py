"""Quantizes a campaign's network to int8: draw windows → quantize → compare with fp32 → keep it, or refuse.

1. Windows are drawn over the domains' catalog and split into two sets (`runs.quantization.windows`).
2. NNCF quantizes with the first set, scheme by scheme (`inference.post_training_quantization`).
3. Each result is compared with fp32 on the second set; the first that agrees well enough is written.
4. Model, JSON and HTML are written side by side: `model.xml`, `model.bin`, `model.json`, `model.html`.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import legend
from pipeline.config import Campaign
from pipeline.durable import write_json, write_text
from pipeline.errors import ConfigError, EngineError
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.post_training_quantization import (
    CONTROLLED,
    SCHEMES,
    Scheme,
    quantize_graph,
    require_nncf,
    save_quantized,
)
from pipeline.inference.quantized_model import QuantizedModel
from pipeline.model import Model, load_campaign_model
from pipeline.progress import SILENT, OnMessage, Progress
from pipeline.runs.quantization.agreement import Agreement, agree
from pipeline.runs.quantization.quantization_report import report_json, report_page
from pipeline.runs.quantization.windows import SampledWindow, WindowSplit, classes_of, draw_windows

Trials = list[tuple[str, Agreement]]
"""Names of the schemes that were tried, each with the agreement of its network; the last one was kept."""


@dataclass(frozen=True, eq=False)
class QuantizationResult:
    """A quantized network that was written, with its reports."""

    quantized: QuantizedModel
    agreement: Agreement
    """With fp32, on the held-out windows."""
    windows: WindowSplit
    html_file: Path


def quantize(
    campaign: Campaign,
    *,
    out: Path,
    domains: Sequence[str] = (),
    windows: int = 64,
    min_agreement: float = 0.99,
    slow: bool = False,
    say: OnMessage = lambda _: None,
    progress: Progress = SILENT,
) -> QuantizationResult:
    """Quantizes a campaign's network and writes it with a report, or refuses.

    Args:
        campaign: its weights, recipe and catalog; its own engine and precision do not matter.
        out: the XML to write; its reports go beside it as `.json` and `.html`.
        domains: names of the domains to draw windows from; all when empty.
        windows: to quantize with, and as many to compare on.
        min_agreement: share of held-out pixels that int8 must map as fp32 does, 0..1.
        slow: where no scheme suffices, let NNCF return operations to float one by one.
        say: called with a line of text after each step.
        progress: counts windows that were read.

    Raises:
        EngineError: no scheme agrees well enough, and nothing was written; or NNCF is not installed.
        ConfigError: `out` is not an `.xml`, an unknown domain, or no windows with data.
        CatalogError, SourceError, WeightsError: inputs or weights that cannot be read.
        StorageError: the folder of `out` cannot be written.
    """
    if out.suffix != ".xml":
        raise ConfigError(f"{out}: expected the name of an XML, such as model.xml; the weights go beside it as .bin")
    require_nncf()
    model = load_campaign_model(campaign)
    split = draw_windows(campaign, model, domains=domains, windows=windows, progress=progress)
    say(f"{len(split.quantization)} windows to quantize with, {len(split.held_out)} held out")
    schemes = (*SCHEMES, CONTROLLED) if slow else SCHEMES
    trials: Trials = []
    for scheme in schemes:
        graph, agreement, maps = _attempt(model, split, scheme, max_drop=1 - min_agreement)
        trials.append((scheme.name, agreement))
        say(f"{scheme.name}: {agreement.overall:.4%} of held-out pixels as in fp32")
        if agreement.overall >= min_agreement:
            return _write(out.absolute(), model, graph, split=split, trials=trials, maps=maps)
    raise EngineError(_refusal(trials, min_agreement, slow=slow))


def compare_with_fp32(
    model: Model, quantized: QuantizedModel, windows: Sequence[SampledWindow]
) -> tuple[Agreement, list[Any]]:
    """Agreement of a quantized network with fp32 on windows, and its class maps of them."""
    predictor = OpenVinoPredictor(model, precision="int8", quantized=quantized)
    maps = [classes_of(predictor, w.pixels) for w in windows]
    return agree([w.classes for w in windows], maps), maps


def _attempt(model: Model, split: WindowSplit, scheme: Scheme, *, max_drop: float) -> tuple[Any, Agreement, list[Any]]:
    """Quantizes, saves, reads again as a run would, and compares with fp32."""
    graph = quantize_graph(model, [w.pixels for w in split.quantization], scheme, max_drop=max_drop)
    with tempfile.TemporaryDirectory(prefix="landcover-quantize-") as folder:
        agreement, maps = compare_with_fp32(model, save_quantized(graph, Path(folder, "model.xml")), split.held_out)
    return graph, agreement, maps


def _write(
    out: Path, model: Model, graph: Any, *, split: WindowSplit, trials: Trials, maps: list[Any]
) -> QuantizationResult:
    """Model, JSON and HTML, side by side."""
    quantized = save_quantized(graph, out)
    content = report_json(model, quantized, split, trials)
    agreement, html_file = trials[-1][1], out.with_suffix(".html")
    write_json(out.with_suffix(".json"), content)
    write_text(html_file, report_page(content, split, maps, agreement))
    return QuantizationResult(quantized, agreement, split, html_file)


def _refusal(trials: Trials, min_agreement: float, *, slow: bool) -> str:
    lines = [f"  {name}: {agreement.overall:.4%}, least {_least(agreement)}" for name, agreement in trials]
    advice = "more --windows may help" + ("" if slow else ", --slow returns operations to float")
    return (
        f"int8 and fp32 agree on too few held-out pixels: expected {min_agreement:.2%} or more, nothing was "
        f"written; {advice}, or keep fp32:\n" + "\n".join(lines)
    )


def _least(agreement: Agreement) -> str:
    value, share = min(agreement.by_class.items(), key=lambda item: item[1])
    return f"{legend.BY_VALUE[value].name} {share:.2%}"
