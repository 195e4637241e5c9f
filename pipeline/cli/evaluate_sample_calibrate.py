"""The commands `evaluate`, `sample` and `calibrate`: how accurate a network or a map is."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pipeline.cli import options
from pipeline.cli.help import argument, command, option
from pipeline.cli.output import console, count, log, number_table, percent, progress_bar, say, say_next, shown
from pipeline.errors import ConfigError
from pipeline.legend import BY_VALUE, Nomenclature

if TYPE_CHECKING:
    from pipeline.model import Ensemble, Model
    from pipeline.runs.accuracy.scoring import EvaluationResult

PlacesArgument = Annotated[
    list[Path] | None,
    argument(
        "DATA",
        "With --weights or --campaign: labelled patches (folders, CSV lists). "
        "With --reference: one map (a GeoTIFF, a folder of COGs or a Zarr). "
        "With --sample: the map that was sampled, to check that it is the same.",
    ),
]
ReferenceOption = Annotated[
    Path | None, option("--reference FILE", "Compare a map with this raster or these polygons.")
]
SampleOption = Annotated[
    Path | None, option("--sample FILE", "Evaluate a map, or a change, by an interpreted sample of it.")
]
UnsealedOption = Annotated[
    bool, option("--unsealed", "Accept a sample without a sealed design, of an earlier version or another program.")
]
AnswersOption = Annotated[
    Path | None, option("--answers FILE", "With --sample: the CSV file that the sample's page saved.")
]
ClassesOption = Annotated[Nomenclature, option("--classes", "Legend in which a map is compared with the reference.")]
ModeOption = Annotated[
    Literal["legacy", "present"],
    option("--mode", "Means over all classes, absent ones counted as 0 (legacy), or over the present ones."),
]
UnitsOption = Annotated[
    Literal["auto", "zones", "patches"], option("--units", "What the bootstrap intervals resample.")
]
AloneOption = Annotated[
    bool, option("--alone", "Score patches only patch by patch, not as mapped too; takes half the time.")
]
ProcessesOption = Annotated[int, option("--workers N", "Number of processes.", min=1)]
AddressOption = Annotated[
    str | None, option("--scheduler ADDRESS|FILE", "Use a running Dask scheduler instead of --workers.")
]


@command(
    "landcover evaluate flair_1_aerial_test flair_1_labels_test --out evaluation \\\n"
    "    --weights FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth",
    "landcover evaluate validation --campaign campaign.yaml --out evaluation",
    "landcover evaluate products/D034_2021 --out evaluation \\\n"
    "    --reference CoSIA_D034_2021.gpkg --field numero --reference-as cosia",
    "landcover evaluate --out accuracy --sample sample.gpkg \\\n    --answers sample-answers.csv",
)
def evaluate(
    out: Annotated[Path, option("--out FOLDER", "Where report, figures, confmat.npy and metrics.json go.")],
    places: PlacesArgument = None,
    weights: options.SeveralWeights = None,
    campaign: options.OfCampaign = None,
    weights_sha256: options.SeveralSha256 = None,
    reference: ReferenceOption = None,
    sample: SampleOption = None,
    unsealed: UnsealedOption = False,
    answers: AnswersOption = None,
    recipe: options.SeveralRecipes = None,
    tta: options.TurnedWindows = "none",
    metadata: options.Metadata = None,
    reference_as: options.ReferenceLegend = "flair19",
    field: options.Field = "",
    classes: ClassesOption = "flair12",
    mode: ModeOption = "legacy",
    units: UnitsOption = "auto",
    alone: AloneOption = False,
    engine: options.Engine = "auto",
    precision: options.Arithmetic = "fp32",
    workers: ProcessesOption = 1,
    scheduler: AddressOption = None,
) -> None:
    """Score a network or a map against reference data.

    Choose one: --weights scores a network, or the average of several, on labelled patches, patch by patch and put
    together as a map is; --campaign does so with what a campaign maps with; --reference compares a map with a raster or
    polygons; --sample estimates a map's accuracy and true areas from an interpreted sample. Of a national product, the
    generalised map is compared too, if there is one.
    """
    if sum(given is not None for given in (weights or None, campaign, reference, sample)) != 1:
        raise ConfigError(
            "give exactly one of --weights, --campaign, --reference and --sample; see `landcover evaluate --help`"
        )
    if answers is not None and sample is None:
        raise ConfigError("--answers goes with --sample; see `landcover evaluate --help`")
    if sample is not None:
        from pipeline.products.analysis.edition_change.interpreted_places import is_sample_of_change

        if is_sample_of_change(sample):
            if places or answers:
                raise ConfigError("a sample of `landcover change` goes without a map and --answers")
            _evaluate_change(sample, out)
            return
        place = _one_map(places, "--sample") if places else None
        _evaluate_sample(sample, out, place=place, unsealed=unsealed, answers=answers, workers=workers)
        return
    with progress_bar("evaluate") as progress:
        from pipeline.runs.accuracy.evaluate import evaluate_map, evaluate_set
        from pipeline.runs.accuracy.scoring import EvaluationOptions

        scoring = EvaluationOptions(mode=mode, units=units, workers=workers, scheduler=scheduler, as_mapped=not alone)
        given: dict[str, Any] = {"out": out, "options": scoring, "progress": progress}
        if reference is not None:
            given |= {"nomenclature": reference_as, "field": field, "classes": classes}
            done = evaluate_map(_one_map(places or (), "--reference"), reference, **given)
        else:
            model = options.load_networks(weights, recipes=recipe, sha256=weights_sha256, tta=tta, campaign=campaign)
            done = evaluate_set(
                places or (), model=model, metadata=metadata, engine=engine, precision=precision, **given
            )
    _show_scores(done)


def _one_map(places: Sequence[Path], given: str) -> Path:
    if len(places) != 1:
        raise ConfigError(f"{given} takes one map: expected one GeoTIFF or one folder, found {len(places)}")
    return places[0]


def _show_scores(done: "EvaluationResult") -> None:
    from pipeline.evaluation.metrics import BY_CLASS, MEANS

    given = done.evaluation
    found = given.scored(given.mode)
    for name, title in MEANS.items():
        interval = ""
        if given.intervals is not None:
            low, high = (percent(limit, 2) for limit in given.intervals.means[name])
            interval = f"  (95 % interval: {low} – {high})"
        second = f"  {given.second[0]} {percent(given.second[1].scored(given.mode)[name])} %" if given.second else ""
        say(f"{title:<17} {percent(found[name])} %{interval}{second}")
    if given.as_mapped and "without a neighbour" in given.as_mapped.about:
        say(f"as mapped, without a neighbour: {given.as_mapped.about['without a neighbour']}")
    rows = (
        (name, *(percent(found[what][k]) if found["present"][k] else "absent" for what in BY_CLASS))
        for k, name in enumerate(given.names)
    )
    console.print(number_table(("class", *BY_CLASS.values()), rows))
    if given.few_units:
        log.warning("%s", given.few_units)
    say(f"report: {shown(done.report)} (means in mode {given.mode})")


def _evaluate_sample(sample: Path, out: Path, **options: Any) -> None:
    with progress_bar("evaluate") as progress:
        from pipeline.runs.accuracy.stratified_sample import evaluate_sample

        done = evaluate_sample(sample, out=out, progress=progress, **options)
    say(f"{done.design}: overall accuracy {done.overall * 100:.2f} %")
    rows = (
        (c.land_cover.name, f"{c.users * 100:.1f}", f"{c.producers * 100:.1f}", f"{c.area_ha:,.2f}")
        for c in done.classes
    )
    console.print(number_table(("class", "user's, %", "producer's, %", "area, ha"), rows))
    if done.regression:
        say(f"by regression on the map's confidence: overall accuracy {done.regression * 100:.2f} %")
        own = ((c.land_cover.name, f"{c.area_ha:,.2f}", f"{c.regression_ha:,.2f}") for c in done.classes)
        console.print(number_table(("class", "area, ha", "area by regression, ha"), own))
    say("in brackets: 95 % intervals")
    for note in done.notes:
        log.warning("%s", note)
    say(f"report: {shown(done.report)}")


def _evaluate_change(sample: Path, out: Path) -> None:
    from pipeline.runs.accuracy.change_sample import evaluate_change_sample

    found, note = evaluate_change_sample(sample, out=out)
    say(f"land that changed: {found.changed * 1e-4:,.2f} ha")
    say(f"mapped change that is true: {found.right * 100:.1f} %")
    say(f"true change that is mapped: {found.found * 100:.1f} %")
    rows = ((BY_VALUE[a].name, BY_VALUE[b].name, f"{area * 1e-4:,.2f}") for (a, b), area in found.by_class.items())
    console.print(number_table(("from", "to", "area, ha"), rows))
    say("in brackets: 95 % intervals")
    if note:
        log.warning("%s", note)
    say(f"areas: {shown(out / 'change-areas.json')}")


@command(
    "landcover sample products/D034_2021 --out sample.gpkg --catalog catalog",
    'landcover sample products/D034_2021 --out sample.gpkg --for "sealed ± 2 %"',
)
def sample(
    place: Annotated[
        Path, argument("MAP", "A GeoTIFF, a folder of COGs or the national product's folder.", exists=True)
    ],
    out: Annotated[Path, option("--out FILE", "The GeoPackage to write.")],
    size: Annotated[int | None, option("--size N", "Number of points; 600 by default.", min=2)] = None,
    goal: Annotated[
        str | None,
        option(
            "--for AREA",
            "Plan the number for an area: 'sealed ± 2 %' (of the map), 'vineyard ± 50 ha' or 'water ± 1 % at 90 %'.",
        ),
    ] = None,
    least: Annotated[int, option("--least N", "Smallest number per class.", min=2)] = 30,
    clusters: Annotated[
        int | None, option("--clusters N", "Draw N squares of 1 km first, and points in them only.", min=2)
    ] = None,
    catalog: Annotated[
        Path | None,
        option("--catalog FOLDER", "Input catalog; adds a crop of the imagery to each point, and writes a page."),
    ] = None,
    seed: Annotated[int, option("--seed N", "The same seed draws the same points.")] = 2022,
    lang: options.Lang = "en",
    workers: ProcessesOption = 1,
) -> None:
    """Draw a stratified random sample of a map for interpretation.

    With --catalog it also writes a page, FILE with the ending .html, that shows the imagery around each point and needs
    no network. Interpret each point there or in QGIS, then run `landcover evaluate --sample`. With --for it draws the
    fewest points that are expected to give an area as exactly as you want.
    """
    if goal is not None and size is not None:
        raise ConfigError("give --size or --for, not both; see `landcover sample --help`")
    with progress_bar("sample") as progress:
        from pipeline.runs.accuracy.sample_size import SampleGoal
        from pipeline.runs.accuracy.stratified_sample import sample_map

        done = sample_map(
            place,
            out=out,
            size=size or 600 if goal is None else SampleGoal.parse(goal),
            least=least,
            clusters=clusters or 0,
            catalog=catalog,
            workers=workers,
            seed=seed,
            language=lang,
            progress=progress,
        )
    say(f"{count(sum(done.units.values()), 'point')}, {count(done.crops, 'crop')} of imagery: {shown(done.path)}")
    for value, number in done.units.items():
        say(f"  {number:>5} {BY_VALUE[value].name}")
    for sentence in done.plan.sentences() if done.plan else ():
        say(sentence)
    if done.page is None:
        say("choose the class that you see at each point, attribute `reference`, in QGIS; then")
        say_next("evaluate", "--sample", done.path, "--out", "accuracy")
        return
    answers = f"{done.page.stem}-answers.csv"
    say(f"interpret it in a browser: {shown(done.page)}")
    say(f"and save the answers beside it, as {shown(answers)}; or choose the classes in QGIS. Then")
    say_next("evaluate", "--sample", done.path, "--answers", done.path.with_name(answers), "--out", "accuracy")


@command(
    "landcover calibrate validation --out calibrated \\\n    --weights FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth",
    "landcover calibrate validation --campaign campaign.yaml --out calibrated",
    "landcover calibrate train --reference --out calibrated \\\n"
    "    --weights FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth",
)
def calibrate(
    places: options.Patches,
    out: Annotated[Path, option("--out FOLDER", "Where the new recipe, a figure and its numbers go.")],
    weights: options.SeveralWeights = None,
    campaign: options.OfCampaign = None,
    weights_sha256: options.SeveralSha256 = None,
    recipe: options.SeveralRecipes = None,
    tta: options.TurnedWindows = "none",
    metadata: options.Metadata = None,
    reference: Annotated[
        bool, option("--reference", "Write the features of these patches instead, for the novelty score of tiles.")
    ] = False,
) -> None:
    """Fit the temperature that makes confidences match accuracies.

    Writes a recipe with this temperature. That of an average of several networks or positions goes into the campaign
    instead. The mapped classes do not change, only the confidences. With --reference it writes which features the
    network has on its training patches: tiles of a campaign whose model.reference is this file get a score of how
    unlike the patches they are.
    """
    networks = partial(
        options.load_networks, weights, recipes=recipe, sha256=weights_sha256, tta=tta, campaign=campaign
    )
    if reference:
        _make_reference(places, networks, out=out, metadata=metadata)
        return
    with progress_bar("calibrate") as progress:
        from pipeline.runs.accuracy.temperature import calibrate as calibrate_set

        done = calibrate_set(places, model=networks(), out=out, metadata=metadata, progress=progress)
    errors = f"{100 * done.before.ece:.2f} % → {100 * done.after.ece:.2f} %"
    say(f"temperature {done.temperature:g}: expected calibration error {errors}, on zones that the fit did not use")
    say(f"over zones: {done.spread}")
    if done.recipe:
        say(f"next: set model.recipe in the campaign to {shown(done.recipe)}")
    else:
        say(f"next: set model.temperature in the campaign to {done.temperature:g}")
    if done.spread.warning:
        log.warning("%s", done.spread.warning)
    if done.after.ece >= done.before.ece:
        log.warning(
            "the error did not fall: keep the former temperature, or calibrate on labelled patches of more zones"
        )


def _make_reference(places: Sequence[Path], networks: Callable[[], "Model | Ensemble"], **options: Any) -> None:
    with progress_bar("reference") as progress:
        from pipeline.runs.accuracy.training_reference import make_reference

        done = make_reference(places, model=networks(), progress=progress, **options)
    say(str(done))
    say(f"next: set model.reference in the campaign to {shown(done.path)}")
