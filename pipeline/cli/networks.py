"""The commands `patches`, `train`, `predict` and `quantize`: networks of one's own, and networks on single rasters."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from pipeline.cli import options
from pipeline.cli.help import argument, command, option
from pipeline.cli.output import count, log, progress_bar, say, say_next, shown
from pipeline.config import DEFAULT_RECIPE, Campaign
from pipeline.errors import ConfigError, SourceError
from pipeline.progress import SILENT

RasterArgument = Annotated[
    Path,
    argument("IN.tif", "Georeferenced raster: uint8, with the recipe's bands in their order; transparency may follow."),
]
QuantizedOption = Annotated[
    Path | None, option("--quantized FILE", "With int8: the XML that `landcover quantize` wrote.")
]
AgreementOption = Annotated[
    float, option("--min-agreement X", "Share of unseen domains' pixels that int8 must map as fp32 does.", min=0, max=1)
]
LabelsOption = Annotated[
    list[Path] | None, option("--labels DATA", "Labelled patches, to measure accuracy too. Can be repeated.")
]
SlowOption = Annotated[bool, option("--slow", "If the agreement is too low, return operations to float one by one.")]


@command(
    "landcover patches CoSIA_D034_2021.gpkg --field numero --reference-as cosia \\\n"
    "    --catalog catalog --domain D034_2021 --out patches",
)
def patches(
    reference: Annotated[Path, argument("REFERENCE", "Raster or polygons of classes.", exists=True)],
    catalog: options.Catalog,
    domain: options.OneDomain,
    out: Annotated[Path, option("--out FOLDER", "Where the patches go, laid out as FLAIR.")],
    reference_as: options.ReferenceLegend = "flair19",
    field: options.Field = "",
    size: Annotated[int, option("--size N", "Side of a patch in pixels.", min=32)] = 512,
    least: Annotated[
        float, option("--least X", "Smallest share of a patch that must be labelled.", min=0, max=1)
    ] = 0.5,
    recipe: options.Recipe = DEFAULT_RECIPE,
    tile_m: options.TileSize = options.BD_ORTHO_TILE_M,
) -> None:
    """Cut labelled training patches from a domain's imagery.

    The recipe says which bands they have. All patches of one tile form one zone.
    """
    with progress_bar("patches") as progress:
        from pipeline.sources.labels.reference import Reference
        from pipeline.training.patch_cutting import cut_patches

        done = cut_patches(
            Reference.open(reference, nomenclature=reference_as, field=field),
            catalog=catalog,
            domain=domain,
            out=out,
            recipe=recipe,
            tile_m=tile_m,
            size=size,
            least=least,
            progress=progress,
        )
    say(f"{len(done)} patches written in {shown(out)}")


@command("landcover train configs/training/flair-inc_rgbie_12cl.yaml --out trained")
def train(
    config: Annotated[Path, argument("CONFIG", "The training run's YAML file.", exists=True)],
    out: Annotated[Path, option("--out FOLDER", "Where checkpoints, logs, figures and weights go.")],
    restart: Annotated[bool, option("--restart", "Start from the first epoch, even if there is a checkpoint.")] = False,
    devices: Annotated[
        int | None, option("--devices N", "Processes per node, instead of the YAML's number.", min=1)
    ] = None,
    nodes: Annotated[int | None, option("--nodes N", "Nodes, instead of the YAML's number.", min=1)] = None,
    quiet: Annotated[bool, option("--quiet", "Show no progress bar.")] = False,
) -> None:
    """Train a network on labelled patches.

    After an interruption run the same command again: it resumes from the last epoch.
    """
    from pipeline.training.fit import fit, is_first_process
    from pipeline.training.run_config import load_training_config

    numbers = {name: n for name, n in (("devices", devices), ("nodes", nodes)) if n is not None}
    run = load_training_config(config).model_copy(update=numbers)
    with nullcontext(SILENT) if quiet or not is_first_process() else progress_bar("train") as progress:
        done = fit(run, out, restart=restart, progress=progress, on_message=log.info)
    if not done.first_process:
        return
    scores = done.trained.evaluation.scored(done.trained.evaluation.mode)
    say(f"best epoch: {done.trained.epoch} of {done.trained.epochs}, validation loss {done.trained.val_loss:.4f}")
    say(f"overall accuracy {100 * scores['oa']:.2f} %, mIoU {100 * scores['miou']:.2f} %")
    say(f"weights: {shown(done.files.weights)}")
    say(f"model card: {shown(done.files.card)}")


@command("landcover predict patch.tif --out maps \\\n    --weights FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth")
def predict(
    raster: RasterArgument,
    weights: options.Weights,
    out: Annotated[Path, option("--out FOLDER", "Where both COGs go. It is created if missing.")],
    window: Annotated[int | None, option("--window N", "Side in pixels of what the network sees at once.")] = None,
    halo: Annotated[int | None, option("--halo N", "Pixels along a window's edge that are discarded.")] = None,
    weights_sha256: options.WeightsSha256 = None,
    engine: options.Engine = "auto",
    precision: options.Arithmetic = "fp32",
    quantized: QuantizedOption = None,
    recipe: options.Recipe = DEFAULT_RECIPE,
    probabilities: Annotated[
        bool, option("--probabilities", "Also write STEM-probabilities.tif, a band for each class.")
    ] = False,
    reference: Annotated[
        Path | None,
        option("--reference FILE", "Of `landcover calibrate --reference`: print how unlike its patches the raster is."),
    ] = None,
    accept: options.Accept = None,
    allow_vrt: Annotated[
        bool, option("--allow-vrt", "Read a virtual raster (VRT): its author decides what files and servers are read.")
    ] = False,
) -> None:
    """Map a single raster, without a catalog.

    Writes STEM-landcover.tif and STEM-confidence.tif, named after the raster. It is refused if it exceeds a limit of
    the model card that is not accepted.
    """
    if not (raster.exists() or str(raster).startswith("/vsi")):
        raise SourceError(f"'{raster}' does not exist")
    limits = options.limits(accept)
    with progress_bar("predict") as progress:
        from pipeline.runs.mapping.single_raster import predict_raster

        done = predict_raster(
            raster,
            weights=weights,
            sha256=weights_sha256,
            out=out,
            recipe=recipe,
            window=window,
            halo=halo,
            engine=engine,
            precision=precision,
            quantized=quantized,
            probabilities=probabilities,
            reference=reference,
            accept=limits,
            allow_vrt=allow_vrt,
            progress=progress,
        )
    say(f"{done.pixels / 1e6:.2f} Mpx mapped")
    say(f"land cover: {shown(done.landcover)}")
    say(f"confidence: {shown(done.confidence)}")
    if done.probabilities:
        say(f"probabilities: {shown(done.probabilities)}")
    if reference:
        above = "above 1 the imagery is unlike that of the reference's patches"
        say(
            "novelty: not known: no square of the raster has data"
            if done.novelty is None
            else f"novelty: {done.novelty:.2f}; {above}"
        )


@command(
    "landcover quantize campaign.yaml --domain D034_2021 --out int8/model.xml",
    "landcover quantize campaign.yaml --check",
)
def quantize(
    config: options.Config,
    out: Annotated[
        Path | None, option("--out MODEL.xml", "The XML to write; .bin, .json and .html go beside it.")
    ] = None,
    check: Annotated[
        bool,
        option("--check", "Instead: compare the campaign's int8 network and bf16 with fp32, on unseen domains."),
    ] = False,
    domain: options.Domains = None,
    windows: Annotated[int, option("--windows N", "Windows to quantize with, and as many to compare on.", min=1)] = 64,
    min_agreement: AgreementOption = 0.99,
    slow: SlowOption = False,
    labels: LabelsOption = None,
    metadata: options.Metadata = None,
) -> None:
    """Make an int8 network for CPUs and compare it with fp32.

    Windows of the campaign's imagery set the ranges of int8. Other windows measure the agreement, with networks that
    have not seen their domain. With --check the agreements are kept beside the products, for `precision: auto`.
    """
    if check == (out is not None):
        raise ConfigError("expected either --out MODEL.xml, to make an int8 network, or --check, to compare one")
    if check and (slow or labels or metadata):
        raise ConfigError("--slow, --labels and --metadata belong to --out MODEL.xml; remove them, or --check")
    campaign = options.open_campaign(config, domain)
    if out is None:
        _check_precisions(campaign, config, domain or (), windows)
        return
    with progress_bar("quantize") as progress:
        from pipeline.runs.quantization.quantize import agreement_text
        from pipeline.runs.quantization.quantize import quantize as quantize_campaign

        done = quantize_campaign(
            campaign,
            out=out,
            domains=domain or (),
            windows=windows,
            min_agreement=min_agreement,
            slow=slow,
            labels=labels or (),
            metadata=metadata,
            say=log.info,
            progress=progress,
        )
    say(f"int8, {count(len(done.windows.held_out), 'held-out window')}: {agreement_text(done.result)}")
    if done.result.accuracy:
        found = done.result.accuracy.as_json()
        means = ", ".join(f"{name} {found[name]['oa']:.2%}" for name in ("fp32", "int8"))
        say(f"overall accuracy: {means} ({found['patches_unseen']} of {found['patches']} patches of unseen domains)")
    say(f"network: {shown(done.quantized.path)}")
    say(f"report: {shown(done.html_file)}")
    say("next: set precision: int8 and model.quantized to this network in the campaign")


def _check_precisions(campaign: Campaign, config: Path, domains: Sequence[str], windows: int) -> None:
    """Compares precisions, and prints a line for each."""
    with progress_bar("check") as progress:
        from pipeline.runs.planning.agreement_report import agreement_file
        from pipeline.runs.planning.automatic_choices import choices_file
        from pipeline.runs.quantization.check import check_precisions

        report = check_precisions(campaign, domains=domains, windows=windows, say=log.info, progress=progress)
    fp32 = report.precisions["fp32"].mpx_per_s
    say(f"{report.engine}, {count(report.windows, 'window')} of unseen domains, against fp32:")
    for name, found in report.precisions.items():
        if name != "fp32":
            least, share = min(found.by_domain.items(), key=lambda item: item[1])
            say(
                f"  {name}: {found.agreement:.2%} of the pixels agree, least in {least} ({share:.2%}); "
                f"{found.mpx_per_s / fp32:.1f} × as fast"
            )
    say(f"report: {shown(agreement_file(campaign))}")
    if choices_file(campaign).exists():
        say("`auto` is resolved already, and stays so until it is resolved again:")
        say_next("plan", config, "--re-resolve")
    else:
        say("next: set precision: auto and minimum_agreement in the campaign, then `landcover plan` shows the choice")
