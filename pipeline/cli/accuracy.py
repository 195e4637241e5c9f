"""Commands that say how good a map is: evaluate, sample and calibrate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from pipeline.cli.options import console, log, progress_bar
from pipeline.config import DEFAULT_RECIPE, EngineName, Precision
from pipeline.errors import ConfigError
from pipeline.legend import Nomenclature

if TYPE_CHECKING:
    from pipeline.runs.accuracy.scoring import EvaluationResult

app = typer.Typer()

ModeOption = Annotated[
    Literal["legacy", "present"],
    typer.Option("--mode", help="Means over all classes, an absent one as 0, or over the present ones."),
]
MetadataOption = Annotated[
    Path | None, typer.Option("--metadata", help="JSON that says domain and zone where paths do not.")
]
RecipeOption = Annotated[str, typer.Option("--recipe", help="A recipe's name, or its YAML.")]


@app.command(
    epilog="Example: landcover evaluate flair_1_aerial_test flair_1_labels_test --weights "
    "FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth --out evaluation"
)
def evaluate(
    places: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DATA]...",
            help="Labelled patches (folders, CSV lists) for --weights; a map (GeoTIFF, folder of COGs, Zarr) else.",
            show_default=False,
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of report, figures, confmat.npy and metrics.json.")],
    weights: Annotated[str | None, typer.Option("--weights", help="Map the patches with these weights.")] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    metadata: MetadataOption = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="Compare a map with this raster or these polygons.")
    ] = None,
    reference_as: Annotated[
        Nomenclature, typer.Option("--reference-as", help="What the reference's numbers mean.")
    ] = "flair19",
    field: Annotated[str, typer.Option("--field", help="Attribute of the polygons that holds the number.")] = "",
    classes: Annotated[Nomenclature, typer.Option("--classes", help="Classes to compare.")] = "flair12",
    sample: Annotated[
        Path | None, typer.Option("--sample", help="What people found at the points of `landcover sample`.")
    ] = None,
    mode: ModeOption = "legacy",
    units: Annotated[
        Literal["auto", "zones", "patches"], typer.Option("--units", help="What the bootstrap draws.")
    ] = "auto",
    engine: Annotated[EngineName, typer.Option("--engine", help="What runs the network.")] = "auto",
    precision: Annotated[Precision, typer.Option("--precision", help="Arithmetic of the forward.")] = "fp32",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS|FILE", help="A running Dask scheduler, instead of --workers."),
    ] = None,
) -> None:
    """Measure a network on labelled patches, a map against a reference, or a map by a sample: figures and report."""
    from pipeline.runs.accuracy.evaluate import evaluate_map, evaluate_set
    from pipeline.runs.accuracy.scoring import EvaluationOptions

    if sum(given is not None for given in (weights, reference, sample)) != 1:
        raise ConfigError(
            "give one of --weights (a network on labelled patches), --reference (a map) and --sample (a map by points)"
        )
    if sample is not None:
        _evaluate_sample(sample, out)
        return
    places = places or []
    options = EvaluationOptions(mode=mode, units=units, workers=workers, scheduler=scheduler)
    with progress_bar("evaluate") as progress:
        if weights is not None:
            done = evaluate_set(
                places,
                weights=weights,
                recipe=recipe,
                out=out,
                metadata=metadata,
                engine=engine,
                precision=precision,
                options=options,
                progress=progress,
            )
        else:
            if len(places) != 1 or reference is None:
                raise ConfigError(f"--reference evaluates one map: a GeoTIFF or a folder; got {len(places)}")
            done = evaluate_map(
                places[0],
                reference,
                out=out,
                nomenclature=reference_as,
                field=field,
                classes=classes,
                options=options,
                progress=progress,
            )
    _print_scores(done)


def _print_scores(done: "EvaluationResult") -> None:
    from pipeline.evaluation.metrics import BY_CLASS, MEANS

    given = done.evaluation
    found = given.scored(given.mode)
    for name, called in MEANS.items():
        sure = ""
        if given.intervals is not None:
            low, high = given.intervals.means[name]
            sure = f"  (95 %: {100 * low:.2f} – {100 * high:.2f})"
        console.print(f"{called:<17} {100 * found[name]:.3f} %{sure}", highlight=False)
    table = Table("class", *BY_CLASS.values(), box=None)
    for k, name in enumerate(given.names):
        cells = [f"{100 * found[what][k]:.3f}" if found["present"][k] else "absent" for what in BY_CLASS]
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"mode {given.mode}; report in {done.report}", soft_wrap=True)


def _evaluate_sample(sample: Path, out: Path) -> None:
    from pipeline.runs.accuracy.stratified_sample import evaluate_sample

    done = evaluate_sample(sample, out=out)
    console.print(f"overall accuracy {done.overall * 100:.2f} %")
    table = Table("class", "user's, %", "producer's, %", "area, ha", box=None)
    for c in done.classes:
        table.add_row(c.land_cover.name, f"{c.users * 100:.1f}", f"{c.producers * 100:.1f}", f"{c.area_ha:,.2f}")
    console.print(table)
    console.print(f"± is half of a 95 % interval; report in {done.report}", soft_wrap=True)


@app.command(epilog="Example: landcover sample products/D034_2021 --size 600 --catalog catalog --out sample.gpkg")
def sample(
    place: Annotated[
        Path, typer.Argument(metavar="MAP", help="GeoTIFF, folder of COGs, or national product.", show_default=False)
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="SAMPLE.gpkg", help="The GeoPackage.")],
    size: Annotated[int, typer.Option("--size", min=2, help="Points in all.")] = 600,
    least: Annotated[int, typer.Option("--least", min=2, help="Points of each class at least.")] = 30,
    catalog: Annotated[
        Path | None, typer.Option("--catalog", help="Input catalogue; a crop of its imagery goes with each point.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed draws the same points.")] = 2022,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that count pixels.")] = 1,
) -> None:
    """Draw a stratified random sample of a map, to be interpreted; `evaluate --sample` reads it."""
    from pipeline import legend
    from pipeline.runs.accuracy.stratified_sample import sample_map

    with progress_bar("sample") as progress:
        done = sample_map(
            place, out=out, size=size, least=least, catalog=catalog, workers=workers, seed=seed, progress=progress
        )
    drawn = ", ".join(f"{n} {legend.BY_VALUE[v].name}" for v, n in done.units.items())
    console.print(f"{sum(done.units.values())} points ({drawn}), {done.crops} crops: {done.path}", soft_wrap=True)
    console.print(
        "next: write each point's FLAIR value into its attribute `reference`, then "
        f"landcover evaluate --sample {done.path} --out accuracy",
        soft_wrap=True,
    )


@app.command(
    epilog="Example: landcover calibrate validation --weights FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth --out cal"
)
def calibrate(
    places: Annotated[
        list[Path], typer.Argument(metavar="DATA...", help="Labelled patches: folders, CSV lists.", show_default=False)
    ],
    *,
    weights: Annotated[
        str, typer.Option("--weights", help="A checkpoint's path, hf://org/name or hf://org/name/file.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the recipe, the figure and its numbers.")],
    recipe: RecipeOption = DEFAULT_RECIPE,
    metadata: MetadataOption = None,
) -> None:
    """Fit the temperature that makes confidences come true, and write the recipe that has it."""
    from pipeline.runs.accuracy.temperature import calibrate as calibrate_set

    with progress_bar("calibrate") as progress:
        done = calibrate_set(places, weights=weights, recipe=recipe, out=out, metadata=metadata, progress=progress)
    console.print(
        f"temperature {done.temperature:g}: expected calibration error {100 * done.before.ece:.2f} % → "
        f"{100 * done.after.ece:.2f} % on zones that it was not fitted on; set model.recipe to {done.recipe}",
        soft_wrap=True,
    )
    if done.after.ece >= done.before.ece:
        log.warning("it does not help there: keep the recipe that you have, or give labelled patches of more zones")
