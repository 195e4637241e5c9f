"""Compares faster precisions with fp32 on domains that no quantization has seen, and writes what was found.

`precision: auto` uses a precision only where this report shows that it agrees.
"""

import platform
from collections.abc import Mapping, Sequence

from pipeline.config import Campaign, Precision
from pipeline.errors import EngineError
from pipeline.inference import Engine, Predictor, predictor_for
from pipeline.inference.engine import missing_instructions, on_gpu, resolve_engine
from pipeline.inference.quantized_model import QuantizedModel, read_quantized, recipe_digest
from pipeline.model import Model, load_campaign_model
from pipeline.progress import SILENT, OnMessage, Progress
from pipeline.runs.planning.agreement_report import AgreementReport, MeasuredPrecision, agreement_file
from pipeline.runs.planning.provenance import software
from pipeline.runs.planning.throughput import processor
from pipeline.runs.quantization.tradeoff import speeds_in_turns
from pipeline.runs.quantization.unseen_domains import of_domains
from pipeline.runs.quantization.windows import SampledWindow, classes_of, draw_windows
from pipeline.runs.tracking.run_record import utc_now

_TIMED = 4
"""Windows on which each precision's speed is measured."""


def check_precisions(
    campaign: Campaign,
    *,
    domains: Sequence[str] = (),
    windows: int = 64,
    say: OnMessage = lambda _: None,
    progress: Progress = SILENT,
) -> AgreementReport:
    """Measures agreement with fp32 and speed of each precision that this machine has, and writes the report.

    Args:
        campaign: its weights, recipe, engine and catalog, and its quantized network if it has one.
        domains: names of the domains to compare on; by default those that the quantized network has not seen.
        windows: to compare on.
        say: called with a line of text after each step.
        progress: counts windows that were read.

    Raises:
        EngineError: this machine has no faster precision for the campaign's engine; or the quantized network is
            damaged, was made from other weights, or has seen a named domain.
        ConfigError: an unknown domain, or no windows with data.
        CatalogError, SourceError, WeightsError: inputs or weights that cannot be read.
        StorageError: the folder of the products cannot be written.
    """
    engine = resolve_engine(campaign.engine, compiled=campaign.torch_compile)
    model = load_campaign_model(campaign)
    quantized = _quantized(campaign, model) if engine.name == "openvino" else None
    engines = _candidates(engine, quantized)
    names = list(domains) or [section.name for section in campaign.domains]
    if quantized is not None and "int8" in engines and not (names := _unseen(names, quantized, stated=bool(domains))):
        say("int8 has seen every domain of the campaign: leave some out of `landcover quantize` with --domain")
        del engines["int8"]
        names = [section.name for section in campaign.domains]
    if len(engines) == 1:
        raise EngineError(
            f"engine {engine.name} has no faster precision to compare on {platform.node()}: neither bf16 on this "
            "processor or GPU, nor an int8 network (model.quantized) with domains that it has not seen"
        )
    split = draw_windows(campaign, model, domains=names, windows=max(1, windows // 2), engine=engine, progress=progress)
    samples = (*split.quantization, *split.held_out)
    compared = {s.domain for s in samples}
    say(f"{len(samples)} windows of {', '.join(sorted(compared))}")
    if left_out := [name for name in names if name not in compared]:
        say(f"not compared: {', '.join(left_out)}, of which no window with data was drawn; more --windows may help")
    measured = _measure({name: predictor_for(model, found) for name, found in engines.items()}, samples, quantized)
    report = AgreementReport(
        weights_sha256=model.weights_hash,
        recipe_digest=recipe_digest(model),
        engine=engine.name,
        precisions=measured,
        windows=len(samples),
        host=platform.node(),
        processor=processor(),
        made=utc_now(),
        software=software(),
    )
    report.write(agreement_file(campaign))
    return report


def _quantized(campaign: Campaign, model: Model) -> QuantizedModel | None:
    if campaign.model.quantized is None:
        return None
    found = read_quantized(campaign.model.quantized)
    found.check_fits(model)
    return found


def _candidates(engine: Engine, quantized: QuantizedModel | None) -> dict[Precision, Engine]:
    """Precision → engine: fp32, and what this machine computes faster."""
    found: dict[Precision, Engine] = {"fp32": engine}
    if engine.name == "torch":
        lower: tuple[Precision, ...] = ("bf16", "fp16") if on_gpu(engine) else ()
        return found | {name: Engine("torch", name, compiled=engine.compiled) for name in lower}
    others = [Engine("openvino", "bf16")] + ([Engine("openvino", "int8", quantized)] if quantized else [])
    return found | {other.precision: other for other in others if not missing_instructions(other)}


def _unseen(names: Sequence[str], quantized: QuantizedModel, *, stated: bool) -> list[str]:
    """The domains that a network was not quantized with.

    Raises:
        EngineError: it does not record them, or has seen one that the user names.
    """
    if not quantized.domains:
        raise EngineError(
            f"{quantized.path}: does not record the domains that it was quantized with; run `landcover quantize` again"
        )
    seen = [name for name in names if name in quantized.domains]
    if seen and stated:
        raise EngineError(
            f"{quantized.path}: was quantized with {', '.join(seen)}; name domains that it has not seen, or none"
        )
    return [name for name in names if name not in seen]


def _measure(
    predictors: Mapping[Precision, Predictor], samples: Sequence[SampledWindow], quantized: QuantizedModel | None
) -> dict[Precision, MeasuredPrecision]:
    maps = {name: [classes_of(run, s.pixels) for s in samples] for name, run in predictors.items()}
    speeds = speeds_in_turns(predictors, samples[:_TIMED])
    found: dict[Precision, MeasuredPrecision] = {}
    for name, own in maps.items():
        compared = of_domains(samples, own)
        found[name] = MeasuredPrecision(
            agreement=compared.agreement.overall,
            by_domain=compared.by_domain,
            mpx_per_s=speeds[name],
            quantized_sha256=quantized.sha256 if name == "int8" and quantized else None,
        )
    return found
