"""A campaign's network in int8: sample windows → calibrate → judge on others → keep it, or refuse.

1. Windows are drawn over the domains' catalogue and dealt into two sets (`runs.quantization.windows`).
2. NNCF calibrates on the one, scheme by scheme (`inference.post_training_quantization`).
3. Each result is compared with fp32 on the other; the first that agrees well enough is written.
4. Model, JSON and HTML stand side by side: `model.xml`, `model.bin`, `model.json`, `model.html`.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import legend
from pipeline.config import Campaign
from pipeline.durable import replacing, write_json
from pipeline.errors import ConfigError, EngineError
from pipeline.inference import Engine, predictor_for
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.post_training_quantization import (
    CONTROLLED,
    SCHEMES,
    Scheme,
    quantize_graph,
    require_nncf,
    save_quantized,
)
from pipeline.inference.quantized_model import Quantized
from pipeline.model import Model, load
from pipeline.progress import SILENT, Progress
from pipeline.runs.quantization.agreement import Agreement, agree
from pipeline.runs.quantization.report_page import as_html, as_json
from pipeline.runs.quantization.windows import Sampled, Samples, classes_of, sample

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Tried:
    """A scheme, and how its network agrees with fp32 on the held-out windows."""

    scheme: Scheme
    agreement: Agreement


@dataclass(frozen=True, eq=False)
class QuantizedRun:
    """What was written."""

    quantized: Quantized
    tried: tuple[Tried, ...]
    """The last one is what was kept."""
    samples: Samples
    json_file: Path
    html_file: Path

    @property
    def agreement(self) -> Agreement:
        """Of the network that was kept."""
        return self.tried[-1].agreement


def quantize(
    campaign: Campaign,
    *,
    out: Path,
    domains: Sequence[str] = (),
    windows: int = 64,
    min_agreement: float = 0.99,
    slow: bool = False,
    seed: int = 2022,
    say: Say = lambda _: None,
    progress: Progress = SILENT,
) -> QuantizedRun:
    """Quantises a campaign's network and writes it with a report, or refuses.

    Args:
        campaign: its weights, recipe and catalogue; its own engine and precision do not matter.
        out: the XML to write; what is said of it goes beside it as `.json` and `.html`.
        domains: names of the domains to draw windows from; all when empty.
        windows: to calibrate on, and as many to judge by.
        min_agreement: share of held-out pixels that int8 must map as fp32 does, 0..1.
        slow: where no scheme suffices, let NNCF bring operations back to float one by one.
        seed: of the draw.
        say: told a line after each step.
        progress: counts windows that were looked at.

    Raises:
        EngineError: no scheme agrees well enough, and nothing was written; or NNCF is not installed.
        ConfigError: `out` is no `.xml`, an unknown domain, or no windows with data.
        CatalogError, SourceError, WeightsError: inputs or weights that cannot be had.
        StorageError: the folder of `out` cannot be written.
    """
    if out.suffix != ".xml":
        raise ConfigError(f"{out}: expected the name of an XML, such as model.xml; the weights go beside it as .bin")
    require_nncf()
    recipe = campaign.recipe()
    model = load(campaign.weights, recipe)
    reference = predictor_for(model, Engine("openvino"))
    samples = sample(
        campaign, recipe, reference=reference, domains=domains, windows=windows, seed=seed, progress=progress
    )
    say(f"{len(samples.calibration)} windows to calibrate on, {len(samples.held_out)} held out")
    schemes = (*SCHEMES, CONTROLLED) if slow else SCHEMES
    tried: list[Tried] = []
    for scheme in schemes:
        graph, agreement, maps = _attempt(model, samples, scheme, max_drop=1 - min_agreement)
        tried.append(Tried(scheme, agreement))
        say(f"{scheme.name}: {agreement.overall:.4%} of held-out pixels as in fp32")
        if agreement.overall >= min_agreement:
            return _write(out.absolute(), model, graph, samples=samples, tried=tried, maps=maps)
    raise EngineError(_refusal(tried, min_agreement, slow=slow))


def judged(model: Model, quantized: Quantized, windows: Sequence[Sampled]) -> tuple[Agreement, list[Any]]:
    """How a quantised network agrees with fp32 on windows, and its class maps of them."""
    predictor = OpenVinoPredictor(model, precision="int8", quantized=quantized)
    maps = [classes_of(predictor, w.pixels) for w in windows]
    return agree([w.classes for w in windows], maps), maps


def _attempt(model: Model, samples: Samples, scheme: Scheme, *, max_drop: float) -> tuple[Any, Agreement, list[Any]]:
    """Quantises, and judges what was saved and read again as a run would."""
    graph = quantize_graph(model, [w.pixels for w in samples.calibration], scheme, max_drop=max_drop)
    with tempfile.TemporaryDirectory(prefix="landcover-quantize-") as folder:
        agreement, maps = judged(model, save_quantized(graph, Path(folder, "model.xml")), samples.held_out)
    return graph, agreement, maps


def _write(
    out: Path, model: Model, graph: Any, *, samples: Samples, tried: list[Tried], maps: list[Any]
) -> QuantizedRun:
    """Model, JSON and HTML, side by side."""
    json_file, html_file = out.with_suffix(".json"), out.with_suffix(".html")
    named = [(t.scheme.name, t.agreement) for t in tried]
    quantized = save_quantized(graph, out)
    content = as_json(model, quantized, samples, named)
    write_json(json_file, content)
    with replacing(html_file) as temporary:
        temporary.write_text(as_html(content, samples.held_out, maps, tried[-1].agreement), encoding="utf-8")
    return QuantizedRun(quantized, tuple(tried), samples, json_file, html_file)


def _refusal(tried: list[Tried], min_agreement: float, *, slow: bool) -> str:
    lines = [f"  {t.scheme.name}: {t.agreement.overall:.4%}, least {_least(t.agreement)}" for t in tried]
    advice = "more --windows may help" + ("" if slow else ", --slow brings operations back to float")
    return (
        f"int8 maps too few held-out pixels as fp32 does: expected {min_agreement:.2%} or more, nothing was "
        f"written; {advice}, or keep fp32:\n" + "\n".join(lines)
    )


def _least(agreement: Agreement) -> str:
    value, share = min(agreement.by_class.items(), key=lambda item: item[1])
    return f"{legend.BY_VALUE[value].name} {share:.2%}"
