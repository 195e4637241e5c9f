"""The commands `publish`, `editions`, `generalise` and `search`: the national product and its editions."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pipeline.cli import options
from pipeline.cli.help import argument, command, option
from pipeline.cli.output import (
    console,
    count,
    log,
    number_table,
    print_json,
    progress_bar,
    save_json,
    say,
    say_next,
    shown,
)
from pipeline.errors import ConfigError, RunFailed
from pipeline.grid import PIXELS_PER_M

if TYPE_CHECKING:
    from pipeline.products.edition_files import LayerKind
    from pipeline.products.national.edition_history import EditionState
    from pipeline.products.stac.nothing_found import CatalogContent

_YAML = (".yaml", ".yml")

CatalogArgument = Annotated[
    Path, argument("CONFIG|FOLDER", "A campaign's YAML file, the national product's folder, or one edition's.")
]
ShareOption = Annotated[
    list[str] | None,
    option("--min-share CLASS=SHARE", "Smallest share of a class in the tile, 0 to 1. Can be repeated."),
]
ConfidenceOption = Annotated[
    float | None, option("--min-confidence X", "Smallest mean confidence of the tile, 0 to 1.")
]
NoveltyOption = Annotated[
    float | None,
    option("--min-novelty X", "Smallest novelty score of the tile; above 1 its imagery is unlike the training's."),
]

WaitOption = Annotated[bool, option("--wait", "Wait while another process publishes, instead of failing at once.")]
RestoreOption = Annotated[
    int | None,
    option("--restore N", "Make edition N the current one again.", autocompletion=options.complete_editions),
]
DropOption = Annotated[
    list[int] | None,
    option("--drop N", "Delete edition N for good. Can be repeated.", autocompletion=options.complete_editions),
]


@command("landcover publish campaign.yaml")
def publish(
    config: options.Config,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    scheduler: options.Scheduler = None,
    dashboard: options.Dashboard = False,
    wait: WaitOption = False,
    recheck: Annotated[
        bool, option("--recheck", "Read all unchanged files too, and write damaged ones again.")
    ] = False,
) -> None:
    """Publish the sealed tiles as a new edition of the national Zarr.

    Unchanged parts are shared with the edition before, so that an edition costs only what changed.
    """
    campaign = options.open_campaign(config).on_cluster(cluster, scheduler, dashboard=dashboard)
    with progress_bar("publish") as progress:
        from pipeline.runs.publishing.publish import publish as publish_edition

        done = publish_edition(campaign, workers=workers, wait=wait, recheck=recheck, progress=progress)
    for name, tiles in done.unsealed:
        log.warning("%s: %s not sealed; nodata in this edition", name, count(tiles, "tile"))
    for name in done.left_out:
        log.warning("%s is not in the campaign and not in this edition; earlier editions still have it", name)
    for name, km2 in done.undelivered_km2.items():
        log.info("%s: %.2f km² of its boundary polygon lie outside its delivered tiles", name, km2)
    say(f"edition {done.edition} is current: {shown(done.store)}")
    say(f"{count(done.written, 'shard')} written, {done.linked} unchanged")
    say(f"pixels inside the boundaries of several domains: {_area(done.tally.several)}")
    say(f"pixels of delivered tiles outside all boundaries: {_area(done.tally.nobody)}")
    for name, pixels in done.tally.filled.items():
        say(f"pixels that {name} fills because their owner has no imagery there: {_area(pixels)}")
    if done.damaged:
        raise RunFailed(
            "\n  ".join(["published without what cannot be read; `landcover run` maps it again:", *done.damaged])
        )
    say_next("generalise" if campaign.generalise else "report", config)


def _area(pixels: int) -> str:
    return f"{pixels} ({pixels / PIXELS_PER_M**2 / 1e6:.2f} km²)"


@command(
    "landcover editions campaign.yaml",
    "landcover editions campaign.yaml --restore 2",
)
def editions(
    config: options.Config,
    restore: RestoreOption = None,
    drop: DropOption = None,
    as_json: Annotated[bool, option("--json", "Print JSON instead of a table.")] = False,
) -> None:
    """List, restore or delete editions of the national product."""
    national = options.open_campaign(config).output.national
    from pipeline.products.national import edition_history
    from pipeline.products.national.edition_writer import remove_abandoned
    from pipeline.runs.publishing.national_lock import lock_national

    if restore is not None or drop:
        with lock_national(national):
            remove_abandoned(national)
            if restore is not None:
                edition_history.restore(national, restore)
            for number in drop or ():
                edition_history.drop(national, number)
    states = edition_history.history(national)
    if as_json:
        print_json([_as_json(state) for state in states])
    elif states:
        headings = ("edition", "created", "", "domains", "shards", "own MB", "shared MB")
        console.print(number_table(headings, map(_row, states)))
    else:
        say(f"nothing is published in {shown(national)}")
        say_next("publish", config)


def _row(state: "EditionState") -> tuple[object, ...]:
    sizes = (f"{state.own_bytes / 1e6:.1f}", f"{state.shared_bytes / 1e6:.1f}")
    e = state.edition
    return (e.number, e.created, "current" if state.current else "", len(e.domains), len(e.digests), *sizes)


def _as_json(state: "EditionState") -> dict[str, object]:
    edition = state.edition
    return {
        "edition": edition.number,
        "created": edition.created,
        "current": state.current,
        "domains": list(edition.domains),
        "shards": len(edition.digests),
        "own_bytes": state.own_bytes,
        "shared_bytes": state.shared_bytes,
        "path": str(edition.path),
    }


def _hectares(pixels: int) -> str:
    return f"{pixels / PIXELS_PER_M**2 / 1e4:,.2f} ha"


@command("landcover generalise campaign.yaml --dry-run", "landcover generalise campaign.yaml --edition 2")
def generalise(
    config: options.Config,
    edition: Annotated[int | None, option("--edition N", "Of edition N instead of the current one.")] = None,
    dry_run: Annotated[bool, option("--dry-run", "Only name the tiles that would be made.")] = False,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    scheduler: options.Scheduler = None,
    dashboard: options.Dashboard = False,
    wait: WaitOption = False,
    recheck: Annotated[
        bool, option("--recheck", "Read all unchanged files too, and make damaged tiles again.")
    ] = False,
) -> None:
    """Make the generalised map of an edition, without small patches.

    The campaign's section `generalise` has the smallest area of a patch of each class. Smaller patches go to the class
    with which they have the longest border. Tiles that no change can reach are shared with the edition before.
    """
    campaign = options.open_campaign(config).on_cluster(cluster, scheduler, dashboard=dashboard)
    from pipeline.runs.publishing.generalise import generalise as make_layer
    from pipeline.runs.publishing.generalise import plan_generalised, tile_names

    if dry_run:
        plan = plan_generalised(campaign, edition, recheck=recheck)
        for name in tile_names(plan):
            say(name)
        say(f"edition {plan.edition.number}: {count(len(plan.write), 'tile')} to make, {len(plan.kept)} unchanged")
        return
    with progress_bar("generalise") as progress:
        done = make_layer(campaign, edition=edition, workers=workers, wait=wait, recheck=recheck, progress=progress)
    say(f"edition {done.edition}: {count(done.made, 'tile')} made, {done.linked} unchanged: {shown(done.store)}")
    from pipeline.legend import BY_VALUE

    say(f"changed class: {_hectares(sum(done.moved.values()))}")
    for value, (gained, lost) in done.balance.items():
        say(f"  {BY_VALUE[value].name:24} gained {_hectares(gained)}, lost {_hectares(lost)}")
    say_next("report", config)


@command(
    "landcover search campaign.yaml --min-share vineyard=0.1 --datetime 2021",
    "landcover search national --bbox 4.05 43.65 4.06 43.66 --out found.json",
    "landcover search campaign.yaml --files --domain D034_2021",
)
def search(
    where: CatalogArgument,
    domain: options.Domains = None,
    bbox: options.Box = None,
    when: options.When = None,
    min_share: ShareOption = None,
    min_confidence: ConfidenceOption = None,
    min_novelty: NoveltyOption = None,
    out: Annotated[
        Path | None, option("--out FILE", "Also write the STAC items to this JSON file, for `rustac serve`.")
    ] = None,
    files: Annotated[
        bool, option("--files", "List the edition's files instead: map, generalised map, polygons, changes.")
    ] = False,
) -> None:
    """Find tiles by place, time, class share, confidence and novelty, or list an edition's files.

    The published catalog is searched directly; no server is needed.
    """
    shares = _shares(min_share or [])
    if files and (bbox or when or min_share or min_confidence is not None or out):
        raise ConfigError("--files goes with --domain alone: the other options search tiles")
    national = options.open_campaign(where).output.national if where.suffix in _YAML else where
    from pipeline.products.stac.nothing_found import catalog_content
    from pipeline.products.stac.search import class_property, find_items
    from pipeline.products.stac.search import search as find
    from pipeline.products.tile.stac_item import CONFIDENCE, NOVELTY

    if files:
        _show_files(find_items(national).parent.parent, domain)
        return
    with console.status("search"):
        found = find(
            national,
            domains=domain,
            bbox=bbox,
            datetime=when,
            min_share=shares,
            min_confidence=min_confidence,
            min_novelty=min_novelty,
        )
    if not len(found):
        figures = [class_property(name) for name in shares] + [CONFIDENCE] * (min_confidence is not None)
        figures += [NOVELTY] * (min_novelty is not None)
        _show_content(catalog_content(national, bbox=bbox, domains=domain, figures=figures))
        return
    scored = ("novelty",) if any(NOVELTY in item.properties for item in found) else ()
    headings = ("domain", "tile", "days", *shares, "confidence", *scored)
    rows = (_found_row(item.properties, shares, *(NOVELTY for _ in scored)) for item in found)
    console.print(number_table(headings, rows))
    say(f"{count(len(found), 'tile')} found")
    for folder in dict.fromkeys(Path(item.assets["landcover"].href).parent for item in found):
        say(f"COGs: {shown(folder)}/DOMAIN-TILE-landcover.tif")
    from pipeline.products.edition_files import edition_layers

    if added := {layer.kind for layer in edition_layers(find_items(national).parent.parent)}:
        names = [_LAYERS[kind] for kind in _LAYERS if kind in added]
        say(f"also in this edition: {', '.join(names)} (--files lists them)")
    save_json(out, found.to_dict(), "items")


_LAYERS: dict["LayerKind", str] = {"generalised": "generalised map", "polygons": "polygons", "change": "change"}


def _show_files(edition: Path, domains: list[str] | None) -> None:
    """Lists the files of an edition with their content and size."""
    from pipeline.products.edition_files import edition_files

    found = edition_files(edition, domains)
    rows = ((f.path, f.content, "" if f.size is None else f"{f.size / 1e6:.1f}") for f in found)
    console.print(number_table(("file", "content", "MB"), rows))
    say(f"in {shown(edition)}")


def _found_row(properties: Mapping[str, Any], shares: Iterable[str], *others: str) -> tuple[str, ...]:
    from pipeline.products.stac.search import class_property
    from pipeline.products.tile.stac_item import CONFIDENCE

    first, last = (properties[key][:10] for key in ("start_datetime", "end_datetime"))
    # Without days of flight, an item spans the year of its vintage.
    days = f"{first} to {last}" if properties.get("landcover:acquired") else f"in {first[:4]}"
    figures = (properties.get(name) for name in (*map(class_property, shares), CONFIDENCE, *others))
    rounded = ("" if figure is None else f"{figure:.2f}" for figure in figures)
    return (properties["landcover:domain"], properties["landcover:tile"], days, *rounded)


def _show_content(content: "CatalogContent") -> None:
    """Says what the catalog has, after a search that found nothing."""
    say("0 tiles found")
    west, south, east, north = content.bbox
    tiles, first, last = count(content.tiles, "tile"), *content.days
    say(f"the product has {tiles} of {', '.join(content.domains)}, from {first} to {last}")
    say(f"its extent: --bbox {west:.4f} {south:.4f} {east:.4f} {north:.4f}")
    if content.nearest:
        domain, tile, distance = content.nearest
        say(f"nearest tile: {domain} {tile}, {distance:.1f} km from the box")
    for name, value in content.highest:
        what = name.removeprefix("landcover:").replace("share_", "share of ").replace("_", " ")
        say(f"highest {what} in a tile: {'none' if value is None else f'{value:.2f}'}")


def _shares(given: list[str]) -> dict[str, float]:
    """`["vineyard=0.3"]` → `{"vineyard": 0.3}`."""
    shares = {}
    for text in given:
        name, _, share = text.partition("=")
        try:
            shares[name] = float(share)
        except ValueError as error:
            raise ConfigError(f"--min-share {text}: expected CLASS=SHARE, such as vineyard=0.3") from error
    return shares
