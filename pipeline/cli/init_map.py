"""The commands `init` and `map`: from a delivery to its campaign, and to its map."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from pipeline.cli import options
from pipeline.cli.help import argument, command, option
from pipeline.cli.output import count, progress_bar, say, say_next, shown
from pipeline.cli.plan_run import log_event, show_plan
from pipeline.config import LimitName
from pipeline.errors import ConfigError
from pipeline.grid import PIXELS_PER_M

if TYPE_CHECKING:
    from pipeline.runs.ingest.campaign_text import CampaignDomain
    from pipeline.runs.planning.plan import RunPlan

_ELEVATION = {"height": "ready heights", "dsm": "surface models", "dtm": "terrain models"}
RecipeOption = Annotated[
    str | None,
    option(
        "--recipe NAME|FILE",
        "The model's recipe. By default the one beside the weights, or that fits them.",
        autocompletion=options.complete_recipes,
    ),
]
AcceptOption = Annotated[
    list[str] | None,
    option("--accept LIMIT", "A limit of the model card that the imagery may exceed. Can be repeated."),
]


@command(
    "landcover init /data/D034_2021 \\\n    --weights FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth",
)
def init(
    folders: Annotated[
        list[Path],
        argument("FOLDER", "Deliveries, staged data or an input catalog; several domains may lie in one folder."),
    ],
    weights: options.Weights,
    out: Annotated[Path, option("--out FILE", "The campaign to write.")] = Path("campaign.yaml"),
    recipe: RecipeOption = None,
    accept: AcceptOption = None,
    force: Annotated[bool, option("--force", "Replace an existing file.")] = False,
) -> None:
    """Write a campaign for the imagery in some folders.

    Deliveries that are not indexed yet are indexed into the folder `catalog` beside the campaign. The recipe follows
    from the weights, and boundaries come from ADMIN EXPRESS if it lies in one of the folders.
    """
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; --force replaces it, or choose another --out")
    accepted = _limits(accept or ())
    from pipeline.runs.ingest.new_campaign import init as write_campaign

    new = write_campaign(
        folders, weights=weights, out=out, recipe=recipe, accept=accepted, force=force, bar=progress_bar
    )
    for domain in new.parts.domains:
        _show_domain(domain)
    say(f"recipe: {new.parts.recipe_name}")
    say(f"campaign: {shown(new.path)}")
    say_next("plan", shown(new.path))


def _limits(given: Sequence[str]) -> tuple[LimitName, ...]:
    if unknown := set(given) - set(get_args(LimitName)):
        limits = ", ".join(get_args(LimitName))
        raise ConfigError(f"unknown limit {', '.join(sorted(unknown))}; expected some of {limits}")
    return tuple(name for name in get_args(LimitName) if name in given)


def _show_domain(domain: "CampaignDomain") -> None:
    """What a domain has, and what is missing."""
    inputs = domain.inputs
    kinds = {asset.kind for asset in inputs.assets}
    side_km = inputs.tiles[0].tile.window.height / PIXELS_PER_M / 1000
    size = sum(asset.size for asset in inputs.assets)
    tiles, files = count(len(inputs.tiles), "tile"), count(len(inputs.assets), "file")
    say(f"{inputs.domain}: {tiles} of {side_km:g} km, {files}, {size / 1e9:.2f} GB")
    elevation = " and ".join(name for kind, name in _ELEVATION.items() if kind in kinds)
    imagery = "colour and infrared" if "irc" in kinds else "colour, no infrared"
    say(f"  imagery: {imagery}; elevation: {elevation or 'none'}")
    days = f"{inputs.acquired[0]} to {inputs.acquired[1]}" if inputs.acquired else "not known: no mosaicking graph"
    say(f"  days of flight: {days}")
    say(f"  boundary: {shown(domain.boundary) if domain.boundary else 'not found: no ADMIN EXPRESS in these folders'}")
    if inputs.limits:
        say(f"  accepted limits of the model card: {', '.join(inputs.limits)}")


@command(
    "landcover map /data/D034_2021 --out map-D034 \\\n    --weights FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth",
)
def map(  # noqa: A001  (the command's name)
    folder: Annotated[
        Path,
        argument(
            "FOLDER|NAME",
            "Archives as downloaded, or an unpacked or staged delivery; or the name of a département whose delivery "
            "lies here, such as D034_2021 in this folder or one below.",
        ),
    ],
    weights: options.Weights,
    out: Annotated[Path, option("--out FOLDER", "Where the campaign, the catalog and all products go.")],
    recipe: RecipeOption = None,
    accept: AcceptOption = None,
    yes: Annotated[bool, option("--yes", "Run without asking.")] = False,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    scheduler: options.Scheduler = None,
) -> None:
    """Map a delivery in one command, from its archives to the report.

    Unpacks archives, indexes, writes campaign.yaml, shows the plan and asks, then runs, publishes and reports. After
    an interruption run the same command again: nothing complete is done twice.
    """
    accepted = _limits(accept or ())
    if not folder.is_dir():
        from pipeline.runs.ingest.found_deliveries import named_delivery

        folder = named_delivery(str(folder), Path())
        say(f"delivery: {shown(folder)}")
    from pipeline.runs.mapping.shutdown import stop_on_signals

    # Before the slow imports: a signal during them must stop the run in order, not kill the process.
    with stop_on_signals() as stop:
        with progress_bar("map"):
            from pipeline.products.map_page.page_files import MAP_FOLDER
            from pipeline.runs.workflow.map_delivery import MapRequest, map_delivery

        request = MapRequest(folder, weights, out, recipe, accepted)
        done = map_delivery(
            request,
            confirm=lambda path, plan: _confirm(path, plan, yes=yes),
            bar=progress_bar,
            on_message=say,
            stop=stop,
            on_cluster=(cluster, scheduler),
            workers=workers,
            on_event=log_event,
        )
    if done is None:
        say("nothing was mapped; the same command asks again")
        return
    say("open:")
    say(f"  {shown(done.reports[0])}  the report, in a browser")
    say(f"  {shown(done.landcover)}  the map, in QGIS")
    say(f"  {shown(done.edition.store)}  the map, in Python: pipeline.open_product")
    has_page = done.edition.store.with_name(MAP_FOLDER).is_dir()
    say_next("view" if has_page else "verify", shown(done.campaign))


def _confirm(path: Path, plan: "RunPlan", *, yes: bool) -> bool:
    """Shows a plan and asks."""
    from pipeline.runs.planning.forecast import forecast, rates_for, this_machine
    from pipeline.runs.planning.totals import plan_totals

    machine = this_machine(plan.resolved)
    show_plan(plan, forecast(plan.resolved, plan_totals(plan), rates_for(plan.resolved, machine), machine))
    return yes or typer.confirm(f"map {count(plan.todo, 'tile')} ({shown(path)})?", default=False)
