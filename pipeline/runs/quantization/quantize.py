"""Quantizes a campaign's network to int8: draw windows → quantize → compare with fp32 → keep it, or refuse.

1. Windows are drawn over the domains' catalog and split into two sets (`runs.quantization.windows`).
2. NNCF quantizes with the first set, scheme by scheme (`inference.post_training_quantization`).
3. Each scheme is measured on the second set, leaving out one domain after the other (`unseen_domains`); the first that
   agrees well enough there is written, quantized with the first set of all domains.
4. Model, JSON and HTML are written side by side: `model.xml`, `model.bin`, `model.json`, `model.html`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import legend
from pipeline.config import Campaign
from pipeline.durable import write_json, write_text
from pipeline.errors import ConfigError, EngineError
from pipeline.inference.post_training_quantization import (
    CONTROLLED,
    SCHEMES,
    quantize_graph,
    require_nncf,
    save_quantized,
)
from pipeline.inference.quantized_model import QuantizedModel, describe_domains
from pipeline.model import Model, load_campaign_model
from pipeline.progress import SILENT, OnMessage, Progress
from pipeline.runs.quantization.agreement import Agreement
from pipeline.runs.quantization.quantization_report import report_json, report_page
from pipeline.runs.quantization.unseen_domains import SchemeResult, measure_scheme
from pipeline.runs.quantization.windows import WindowSplit, draw_windows
from pipeline.sources.labels.patches import find_patches

Trials = list[SchemeResult]
"""The schemes that were tried; the last one was kept."""


@dataclass(frozen=True, eq=False)
class QuantizationResult:
    """A quantized network that was written, with its reports."""

    quantized: QuantizedModel
    result: SchemeResult
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
    labels: Sequence[Path] = (),
    metadata: Path | None = None,
    say: OnMessage = lambda _: None,
    progress: Progress = SILENT,
) -> QuantizationResult:
    """Quantizes a campaign's network and writes it with a report, or refuses.

    Args:
        campaign: its weights, recipe and catalog; its own engine and precision do not matter. With a reference the
            network gives the encoder's features too, for the novelty score.
        out: the XML to write; its reports go beside it as `.json` and `.html`.
        domains: names of the domains to draw windows from; all when empty.
        windows: to quantize with, and as many to compare on.
        min_agreement: share of held-out pixels that int8 must map as fp32 does, 0..1: pixels of domains that it was
            not quantized with; with one domain only, of imagery that it has seen.
        slow: where no scheme suffices, let NNCF return operations to float one by one.
        labels: folders and CSV lists of labelled patches, on which accuracy is measured as well.
        metadata: JSON with the domains of patches whose paths do not name them.
        say: called with a line of text after each step.
        progress: counts windows that were read.

    Raises:
        EngineError: no scheme agrees well enough, and nothing was written; or NNCF is not installed.
        ConfigError: `out` is not an `.xml`, an unknown domain, or no windows with data.
        CatalogError, DeliveryError, SourceError, WeightsError: inputs, patches or weights that cannot be read.
        StorageError: the folder of `out` cannot be written.
    """
    if out.suffix != ".xml":
        raise ConfigError(f"{out}: expected the name of an XML, such as model.xml; the weights go beside it as .bin")
    require_nncf()
    model = load_campaign_model(campaign)
    labelled = find_patches(labels, metadata=metadata) if labels else ()
    split = draw_windows(campaign, model, domains=domains, windows=windows, progress=progress)
    say(f"{len(split.quantization)} windows to quantize with, {len(split.held_out)} held out")
    schemes = (*SCHEMES, CONTROLLED) if slow else SCHEMES
    trials: Trials = []
    for scheme in schemes:
        graph = quantize_graph(
            model,
            [w.pixels for w in split.quantization],
            scheme,
            max_drop=1 - min_agreement,
            features=campaign.model.reference is not None,
        )
        trials.append(measure_scheme(model, graph, split, scheme, max_drop=1 - min_agreement, labelled=labelled))
        say(f"{scheme.name}: {agreement_text(trials[-1])}")
        if trials[-1].decisive.overall >= min_agreement:
            return _write(out.absolute(), model, graph, split=split, trials=trials)
    raise EngineError(_refusal(trials, min_agreement, slow=slow))


def agreement_text(result: SchemeResult) -> str:
    """The agreement in words, with the domain that agrees least."""
    seen = f"{result.seen.overall:.4%} of held-out pixels as in fp32"
    if result.unseen is None:
        return f"{seen}, of seen imagery: there is one domain only, and another may agree less"
    domain, share = min(result.unseen.by_domain.items(), key=lambda item: item[1])
    return (
        f"{result.unseen.agreement.overall:.4%} of the pixels of unseen domains as in fp32, least in {domain} "
        f"({share:.4%}); {seen} where its domain was seen"
    )


def _write(out: Path, model: Model, graph: Any, *, split: WindowSplit, trials: Trials) -> QuantizationResult:
    """Model, JSON and HTML, side by side."""
    describe_domains(graph, (w.domain for w in split.quantization))
    quantized = save_quantized(graph, out)
    content, html_file = report_json(model, quantized, split, trials), out.with_suffix(".html")
    write_json(out.with_suffix(".json"), content)
    write_text(html_file, report_page(content, split, trials[-1]))
    return QuantizationResult(quantized, trials[-1], split, html_file)


def _refusal(trials: Trials, min_agreement: float, *, slow: bool) -> str:
    lines = [f"  {t.scheme}: {agreement_text(t)}; least {_least(t.decisive)}" for t in trials]
    advice = "more --windows may help" + ("" if slow else ", --slow returns operations to float")
    return (
        f"int8 and fp32 agree on too few held-out pixels: expected {min_agreement:.2%} or more, nothing was written; "
        f"{advice}, or keep fp32:\n" + "\n".join(lines)
    )


def _least(agreement: Agreement) -> str:
    value, share = min(agreement.by_class.items(), key=lambda item: item[1])
    return f"{legend.BY_VALUE[value].name} {share:.2%}"
