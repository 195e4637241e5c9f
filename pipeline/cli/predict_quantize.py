"""The commands `predict` and `quantize`: a network on one raster, and the same network in int8."""

from pathlib import Path
from typing import Annotated

from pipeline.cli.help import argument, command, option
from pipeline.cli.options import (
    ConfigArgument,
    DomainOption,
    EngineOption,
    PrecisionOption,
    RecipeOption,
    WeightsOption,
    count,
    log,
    open_campaign,
    progress_bar,
    say,
    shown,
)
from pipeline.config import DEFAULT_RECIPE

RasterArgument = Annotated[
    Path, argument("IN.tif", "Georeferenced raster: uint8, with the recipe's bands in their order.", exists=True)
]
WindowOption = Annotated[int | None, option("--window N", "Side in pixels of what the network sees at once.")]
HaloOption = Annotated[int | None, option("--halo N", "Pixels along a window's edge that are discarded.")]
QuantizedOption = Annotated[
    Path | None, option("--quantized FILE", "With int8: the XML that `landcover quantize` wrote.")
]
ModelOutOption = Annotated[Path, option("--out MODEL.xml", "The XML to write; .bin, .json and .html go beside it.")]
WindowsOption = Annotated[int, option("--windows N", "Windows to quantize with, and as many to compare on.", min=1)]
AgreementOption = Annotated[
    float, option("--min-agreement X", "Share of pixels that int8 must map as fp32 does.", min=0, max=1)
]
SlowOption = Annotated[bool, option("--slow", "If the agreement is too low, return operations to float one by one.")]


@command("landcover predict patch.tif --out maps \\\n    --weights FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth")
def predict(
    raster: RasterArgument,
    weights: WeightsOption,
    out: Annotated[Path, option("--out FOLDER", "Where both COGs go. It is created if missing.")],
    window: WindowOption = None,
    halo: HaloOption = None,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    quantized: QuantizedOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
) -> None:
    """Map a single raster, without a catalog.

    Writes STEM-landcover.tif and STEM-confidence.tif, named after the raster.
    """
    from pipeline.runs.mapping.single_raster import predict_raster

    with progress_bar("predict") as progress:
        done = predict_raster(
            raster,
            weights=weights,
            out=out,
            recipe=recipe,
            window=window,
            halo=halo,
            engine=engine,
            precision=precision,
            quantized=quantized,
            progress=progress,
        )
    say(f"{done.pixels / 1e6:.2f} Mpx mapped")
    say(f"land cover: {shown(done.landcover)}")
    say(f"confidence: {shown(done.confidence)}")


@command("landcover quantize campaign.yaml --domain D034_2021 --out int8/model.xml")
def quantize(
    config: ConfigArgument,
    out: ModelOutOption,
    domain: DomainOption = None,
    windows: WindowsOption = 64,
    min_agreement: AgreementOption = 0.99,
    slow: SlowOption = False,
) -> None:
    """Make an int8 network for CPUs and compare it with fp32.

    Windows of the campaign's imagery set the ranges of int8; other windows measure the agreement.
    """
    campaign = open_campaign(config, domain)
    from pipeline.runs.quantization.quantize import quantize as quantize_campaign

    with progress_bar("quantize") as progress:
        done = quantize_campaign(
            campaign,
            out=out,
            domains=domain or (),
            windows=windows,
            min_agreement=min_agreement,
            slow=slow,
            say=log.info,
            progress=progress,
        )
    compared = count(len(done.windows.held_out), "held-out window")
    say(f"int8 agrees with fp32 on {done.agreement.overall:.3%} of the pixels of {compared}")
    say(f"network: {shown(done.quantized.path)}")
    say(f"report: {shown(done.html_file)}")
    say("next: set precision: int8 and model.quantized to this network in the campaign")
