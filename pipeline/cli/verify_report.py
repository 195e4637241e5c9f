"""The commands `verify`, `report`, `change`, `vectorize`, `view` and `legend`: is the product good, what is on it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pipeline.cli import options
from pipeline.cli.help import argument, command, option
from pipeline.cli.output import count, progress_bar, save_json, say, say_next, shown
from pipeline.errors import ConfigError, VerifyFailed
from pipeline.legend import Names, Palette

if TYPE_CHECKING:
    from pipeline.runs.quality.verify import Verification


@command("landcover verify campaign.yaml --json verify.json")
def verify(config: options.Config, json_file: options.JsonFile = None) -> None:
    """Read all tiles and the national store again and check them.

    Every COG is compared with its checksum and its STAC item, and class changes across edges are counted. The exit
    code is 4 if anything is wrong or a domain exceeds one of the campaign's limits.
    """
    campaign = options.open_campaign(config)
    with progress_bar("verify") as progress:
        from pipeline.runs.quality.quality_metrics import seam_remedy
        from pipeline.runs.quality.verify import verify as read_again

        verified = read_again(campaign, progress=progress)
    for d in verified.domains:
        tiles, files = count(d.tiles, "tile"), count(d.files, "file")
        say(f"{d.domain}: {tiles}, {files} read; {len(d.missing)} missing, {count(len(d.problems), 'problem')}")
    nation = verified.nation
    if nation.problems is None:
        say("national product: nothing is published")
    else:
        say(f"national product: {count(len(nation.problems), 'problem')}")
    if not nation.manifest:
        say("national product: has no manifest; an older version wrote it. The next edition has one")
    say("class changes at edges, relative to those nearby (1 is seamless):")
    for kind, ratio in verified.metrics.seams.ratios.items():
        remedy = seam_remedy(campaign, ratio)
        say(f"  {f'{kind} edges':<15} {ratio or 'none'}{remedy and f': {remedy}'}")
    if verified.borders:
        say(f"  {'domain borders':<15} {verified.borders} (imagery of another date begins there)")
    save_json(json_file, verified.as_json(), "results")
    if not verified.clean:
        raise VerifyFailed(
            "\n  ".join(["the product is damaged or incomplete:", *_problems(verified), *_repairs(config, verified)])
        )
    say("no problem found; all limits of the campaign are met")
    say_next("publish", config)


def _problems(verified: "Verification") -> list[str]:
    """A line for each problem and each limit that is exceeded."""
    problems = [f"{d.domain} {problem}" for d in verified.domains for problem in d.problems]
    for d in verified.domains:
        problems += [str(e) for e in d.exceeded]
        if any(e.figure == "missing_tiles" for e in d.exceeded):
            problems += [f"{d.domain} {name}: not sealed" for name in d.missing]
    return [*problems, *(verified.nation.problems or ())]


def _repairs(config: Path, verified: "Verification") -> list[str]:
    """The commands that write again what is damaged, in the order in which they are to be run."""
    commands: list[tuple[object, ...]] = []
    for d in verified.domains:
        if d.damaged:
            tiles = [word for name in d.damaged for word in ("--tile", name)]
            commands.append(("run", config, "--force", "--domain", d.domain, *tiles))
        if d.incomplete:
            commands.append(("run", config, "--domain", d.domain))
    nation = verified.nation
    if nation.restore and nation.edition:
        commands.append(("editions", config, "--restore", nation.edition.number))
    if nation.publish or (nation.problems is not None and any(d.damaged or d.beside for d in verified.domains)):
        commands.append(("publish", config, "--recheck"))
    if nation.generalise:
        commands.append(("generalise", config, "--recheck"))
    commands += [
        ("change", config, "--from", first, "--to", number, *nation.change_options(first, generalised=layer))
        for number in ([nation.edition.number] if nation.edition else [])
        for first, layer in nation.changes
    ]
    if nation.report or any(d.report for d in verified.domains):
        commands.append(("report", config))
    commands += [("vectorize", config, *nation.vectorize_options(name)) for name in nation.vectors]
    lines = [f"landcover {shlex.join(str(word) for word in words)}" for words in commands]
    return ["to write damaged files again:", *lines] if lines else []


@command("landcover report campaign.yaml --domain D034_2021", "landcover report campaign.yaml --lang fr")
def report(config: options.Config, domain: options.Domains = None, lang: options.Lang = "en") -> None:
    """Write an HTML report for each domain and for the current edition.

    Each report/report.html is a page that needs no other file. With --domain, only the pages of these domains are
    written.
    """
    campaign = options.open_campaign(config, domain)
    with progress_bar("report") as progress:
        from pipeline.runs.quality.write_reports import write_reports

        pages = write_reports(campaign, domains=domain or (), language=lang, progress=progress)
    for path in pages:
        say(f"report: {shown(path)}")


@command(
    "landcover change campaign.yaml",
    "landcover change campaign.yaml --from 1 --to 3 --unit 200",
    "landcover change campaign.yaml --communes communes.gpkg --by INSEE_COM",
)
def change(
    config: options.Config,
    first: Annotated[
        int | None, option("--from N", "The earlier edition; by default the last one before --to.")
    ] = None,
    second: Annotated[int | None, option("--to N", "The later edition; by default the current one.")] = None,
    min_confidence: Annotated[
        float, option("--min-confidence X", "Pixels below it in either map are uncertain.", min=0, max=1)
    ] = 0.0,
    min_area: Annotated[
        float, option("--min-area M2", "Smaller patches of changed pixels are uncertain, in m².", min=0, max=10_000)
    ] = 0.0,
    unit: Annotated[float, option("--unit M2", "Area of the smallest polygons, in m².", min=0, max=1_000_000)] = 50.0,
    generalised: Annotated[bool, option("--generalised", "Compare the generalised maps.")] = False,
    communes: Annotated[Path | None, option("--communes FILE", "Polygons to count by, besides départements.")] = None,
    by: Annotated[str, option("--by FIELD", "Their attribute with a number or name.")] = "code",
    truth_from: Annotated[Path | None, option("--truth-from MAP", "Labels of the earlier date, FLAIR values.")] = None,
    truth_to: Annotated[Path | None, option("--truth-to MAP", "Labels of the later date.")] = None,
    places: Annotated[int, option("--places N", "Places to draw of each kind.", min=1, max=100_000)] = 50,
    seed: Annotated[int, option("--seed N", "Seed of the draw.")] = 2022,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    scheduler: options.Scheduler = None,
    dashboard: options.Dashboard = False,
) -> None:
    """Compare two editions: a raster, polygons, tables by département and commune, and places to look at.

    Where both editions show the same imagery, the map changed and not the land; both are counted apart. The maps'
    errors alone show change too: the command says how much, if confidences are right, and from labels of both dates.
    """
    if (truth_from is None) != (truth_to is None):
        raise ConfigError("--truth-from and --truth-to go together; see `landcover change --help`")
    campaign = options.open_campaign(config).on_cluster(cluster, scheduler, dashboard=dashboard)
    from pipeline.products.analysis.change import UNSEEN
    from pipeline.runs.publishing.write_change import ChangeOptions, change_editions

    chosen = ChangeOptions(
        min_confidence,
        min_area,
        unit_m2=unit,
        generalised=generalised,
        places=places,
        seed=seed,
        communes=communes,
        by=by,
        truth_from=truth_from,
        truth_to=truth_to,
    )
    with progress_bar("change") as progress:
        done = change_editions(
            campaign,
            first=first,
            second=second,
            options=chosen,
            workers=workers,
            progress=progress,
        )
    say(f"from edition {done.first} to edition {done.second}, {done.figures['compared_ha']:.2f} ha compared:")
    for line in _change_lines(done.figures, patches=min_area > 0, unit=unit):
        say(line)
    say(UNSEEN)
    say(f"raster, polygons, tables and {count(done.places, 'place')}: {shown(done.folder)}")


def _change_lines(figures: dict[str, Any], *, patches: bool, unit: float) -> list[str]:
    """The figures in sentences; `patches` where small ones were left out, and the area of the smallest polygons."""

    def share(name: str) -> str:
        return "–" if figures[name] is None else f"{100 * figures[name]:.2f} %"

    alone = f"{share('if_together')} (in the same places) to {share('if_independent')} (anywhere)"
    land, map_only = (f"{figures[name]:.2f} ha" for name in ("land_change_ha", "map_change_ha"))
    kept = f"; without small patches: {share('land_change_share_after_filter')}" if patches else ""

    labels = []
    if figures["labels_ha"] is not None:
        on_labels = f"{share('labels_false_share')} of {figures['labels_ha']:.2f} ha of labels that did not change"
        labels = [f"  errors alone, by labels: {share('expected')} ({on_labels})"]

    def polygons(kind: str) -> str:
        number, hectares = figures[f"{kind}_polygons"], figures[f"{kind}_polygons_ha"]
        return f"{count(number, 'polygon')} of {unit:g} m² or more, {hectares:.2f} ha"

    return [
        f"land with other imagery: {figures['other_imagery_ha']:.2f} ha",
        f"  class differs: {share('land_change_share')}{kept}, {land}",
        f"  {polygons('land_change')}",
        f"  errors alone, if confidences are right: {alone}",
        *labels,
        f"land with the same imagery: {figures['same_imagery_ha']:.2f} ha",
        f"  map differs: {share('map_change_share')}, {map_only}",
        f"  {polygons('map_change')}",
        f"uncertain: {figures['uncertain_ha']:.2f} ha",
    ]


@command(
    "landcover vectorize campaign.yaml",
    "landcover vectorize campaign.yaml --domain D034_2021 --out vectors-34",
)
def vectorize(
    config: options.Config,
    domain: Annotated[
        str | None, option("--domain NAME", "Only what the edition shows of this domain; polygons end at its border.")
    ] = None,
    edition: Annotated[int | None, option("--edition N", "Edition N instead of the current one.")] = None,
    tolerance: Annotated[
        float, option("--tolerance M", "Simplify borders by at most M metres; 0 keeps the pixels.", min=0, max=100)
    ] = 0.5,
    out: Annotated[
        Path | None, option("--out FOLDER", "A new folder for the files, instead of one in the edition.")
    ] = None,
    tiles: Annotated[
        bool,
        option("--tiles/--no-tiles", "Write landcover.pmtiles too, in one process: slow for large areas."),
    ] = True,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    scheduler: options.Scheduler = None,
) -> None:
    """Write the national product, or a domain of it, as polygons.

    The polygons leave no gap and do not overlap, and no tile cuts them: GeoParquet with all of them, and a GeoPackage
    with CoSIA's fields for each domain. A run that was stopped goes on where it was.
    """
    campaign = options.open_campaign(config, [domain] if domain else None).on_cluster(cluster, scheduler)
    from pipeline.runs.vectorizing.vectorize import vectorize as write_vectors

    with progress_bar("vectorize") as progress:
        done = write_vectors(
            campaign,
            domain=domain,
            edition=edition,
            tolerance_m=tolerance,
            out=out,
            tiles=tiles,
            workers=workers,
            progress=progress,
        )
    say(f"edition {done.edition}: {count(done.polygons, 'polygon')}, {done.area_m2 / 1e6:.2f} km²")
    for name in done.files:
        say(f"  {shown(done.folder / name)}")


@command("landcover view campaign.yaml", "landcover view campaign.yaml --edition 2 --port 8080")
def view(
    config: options.Config,
    edition: Annotated[int | None, option("--edition N", "Show edition N instead of the current one.")] = None,
    port: Annotated[int, option("--port N", "Port to listen on; by default any free one.", min=0, max=65535)] = 0,
    no_browser: Annotated[bool, option("--no-browser", "Only print the address.")] = False,
) -> None:
    """Show the map of an edition in a browser, until Ctrl+C.

    The address has a token and works on this machine only; through SSH, forward the port that is printed:
    ssh -L PORT:127.0.0.1:PORT HOST. No request goes to another host.
    """
    campaign = options.open_campaign(config)
    import contextlib
    import webbrowser

    from pipeline.runs.viewing.view import prepare_view

    shown_view = prepare_view(campaign, edition)
    with shown_view.serve(port) as server:
        address = server.address(shown_view.page)
        say(f"edition {shown_view.edition.number}: {address}")
        say("Ctrl+C ends it")
        if not no_browser:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


@command("landcover legend legende.qml --lang fr", "landcover legend cosia.csv --names cosia")
def legend(
    path: Annotated[Path, argument("FILE", "What to write: a QGIS style (.qml) or a table (.csv).")],
    lang: options.Lang = "en",
    names: Annotated[Names, option("--names", "FLAIR's names of the classes, or CoSIA's, which are French.")] = "flair",
    palette: Annotated[
        Palette, option("--palette", "FLAIR's colours, or colours that colour-blind users can tell apart (safe).")
    ] = "flair",
) -> None:
    """Write the legend of the map for other programs.

    The style is for the layer landcover, of COGs, of their index or of the Zarr.
    """
    from pipeline.products.gis.legend_files import write_legend

    write_legend(path, language=lang, names=names, palette=palette)
    say(f"legend: {shown(path)}")
