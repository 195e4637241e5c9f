"""Commands beside the campaign's way: predict, quantize, demo and bench."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import ConfigArgument, DomainOption, console, log, progress_bar
from pipeline.config import DEFAULT_RECIPE, EngineName, Precision, load_campaign

app = typer.Typer()


@app.command(
    epilog="Example: landcover predict patch.tif --weights FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth --out maps"
)
def predict(
    *,
    raster: Annotated[Path, typer.Argument(metavar="IN.tif", help="uint8, bands as the recipe's.", show_default=False)],
    weights: Annotated[
        str, typer.Option("--weights", help="A checkpoint's path, hf://org/name or hf://org/name/file.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the two COGs; made if missing.")],
    window: Annotated[int | None, typer.Option("--window", help="Pixels a side that the network sees at once.")] = None,
    halo: Annotated[int | None, typer.Option("--halo", help="Pixels around a core that are thrown away.")] = None,
    engine: Annotated[EngineName, typer.Option("--engine", help="What runs the network.")] = "auto",
    precision: Annotated[Precision, typer.Option("--precision", help="Arithmetic of the forward.")] = "fp32",
    quantized: Annotated[
        Path | None, typer.Option("--quantized", help="With int8: the XML that `landcover quantize` made.")
    ] = None,
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe's name, or its YAML.")] = DEFAULT_RECIPE,
) -> None:
    """Map one georeferenced raster without a catalogue, into <stem>-landcover.tif and <stem>-confidence.tif."""
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
    console.print(f"{done.pixels / 1e6:.2f} Mpx mapped: {done.landcover} and {done.confidence}")


@app.command(epilog="Example: landcover quantize campaign.yaml --domain D034_2021 --out int8/model.xml")
def quantize(
    config: ConfigArgument,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="MODEL.xml", help="The XML; .bin, .json, .html go beside it.")],
    domain: DomainOption = None,
    windows: Annotated[
        int, typer.Option("--windows", min=1, help="Windows to calibrate on, and as many to judge by.")
    ] = 64,
    min_agreement: Annotated[
        float, typer.Option("--min-agreement", min=0, max=1, help="Share of pixels that int8 must map as fp32 does.")
    ] = 0.99,
    slow: Annotated[
        bool, typer.Option("--slow", help="Where nothing suffices, bring operations back to float, one by one.")
    ] = False,
) -> None:
    """Make an int8 network from windows of the catalogue, and report how it agrees with fp32."""
    from pipeline.runs.quantization.quantize import quantize as quantize_campaign

    with progress_bar("quantize") as progress:
        done = quantize_campaign(
            load_campaign(config),
            out=out,
            domains=domain or (),
            windows=windows,
            min_agreement=min_agreement,
            slow=slow,
            say=log.info,
            progress=progress,
        )
    console.print(
        f"{done.quantized.path}: agrees with fp32 on {done.agreement.overall:.3%} of {len(done.samples.held_out)} "
        f"held-out windows; report in {done.html_file}",
        soft_wrap=True,
    )


@app.command(epilog="Example: landcover demo --out build/demo")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder that is made anew.")] = Path("build/demo"),
) -> None:
    """Make a procedural piece of country, fit a small network on part of it, and map it: the whole path in minutes."""
    from pipeline.demo.walkthrough import run_demo

    run_demo(out, on_message=partial(console.print, markup=False, highlight=False, soft_wrap=True))


@app.command(epilog="Example: landcover bench engines halo --out build/bench")
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="engines, feed, run, halo, quantize (these five by default), gpu; in a checkout also nation, publish, "
            "rehearsal, train.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of figures, charts and imagery.")] = Path("build/bench"),
    data: Annotated[Path, typer.Option("--data", help="Folder of real patches and weights.")] = Path("../shared/data"),
    quick: Annotated[bool, typer.Option("--quick", help="1 Mpx instead of 100; the figures mean nothing.")] = False,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="For rehearsal and publish: tiles of 25 000 px; takes an hour or more.")
    ] = False,
) -> None:
    """Measure this machine; each bench writes <name>.json and <name>.png.

    engines, feed, run and gpu keep their rates in the cache folder's rates.json, from which `landcover plan` predicts.
    """
    from pipeline.bench.suite import run_benches

    on_message = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    run_benches(names or (), out=out, data=data, quick=quick, on_message=on_message, full_size=full_size)
