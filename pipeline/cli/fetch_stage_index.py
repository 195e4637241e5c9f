"""The commands `fetch`, `stage` and `index`: from a département's name to the input catalog."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from pipeline.cli import options
from pipeline.cli.help import argument, command, option
from pipeline.cli.output import console, count, log, number_table, progress_bar, say, say_next, shown
from pipeline.config import DEFAULT_RECIPE, load_recipe
from pipeline.grid import PIXELS_PER_M
from pipeline.sources.download.choose import Content
from pipeline.sources.download.editions import GEOPLATEFORME, parse_zone
from pipeline.sources.short_lists import first_names

if TYPE_CHECKING:
    from pipeline.runs.ingest.fetch import ListedEdition

_MOST_NAMED = 5
"""Ignored files that are named: RGE ALTI has two rasters of sources and distances beside each of its thousands."""

ArchivesArgument = Annotated[
    list[Path], argument("ARCHIVE", "7z archives (one volume of each is enough), or folders that are already unpacked.")
]
SourcesArgument = Annotated[
    list[str],
    argument(
        "SOURCE",
        "Folders of deliveries, static STAC catalogs (path or URL of their JSON), or URLs of STAC APIs. "
        "--collection, --bbox and --datetime choose among STAC items.",
    ),
]
CollectionOption = Annotated[
    list[str] | None, option("--collection ID", "Only items of this collection. Can be repeated.")
]


_CONTENTS: tuple[Content, ...] = get_args(Content)


def _contents_for(recipe: str) -> tuple[Content, ...]:
    """What a map with this recipe needs."""
    bands = load_recipe(recipe).bands
    unread = {"irc": "nir" not in bands, "elevation": "elevation" not in bands}
    return tuple(name for name in _CONTENTS if not unread.get(name))


def _parse_contents(text: str) -> tuple[Content, ...]:
    wanted = tuple(name for name in _CONTENTS if name in text.split(","))
    if not wanted or len(wanted) < len(text.split(",")):
        raise typer.BadParameter(f"{text!r}: expected some of {','.join(_CONTENTS)}, separated by commas")
    return wanted


@command(
    "landcover fetch Hérault --list",
    "landcover fetch Hérault --year 2021 --out deliveries",
    "landcover fetch D034 --with rvb,irc --out deliveries",
    "landcover fetch D034 --out deliveries \\\n    --recipe flair-hub_lc-a_ir_swinbase-upernet",
)
def fetch(
    zone: Annotated[str, argument("DEPARTEMENT", "Its name or number: Hérault, 34, D034, 2A.", parser=parse_zone)],
    year: Annotated[
        int | None, option("--year N", "Vintage of the imagery. By default the newest that has RVB and IRC.")
    ] = None,
    contents: Annotated[
        str | None,
        option(
            "--with LIST", f"Some of {','.join(_CONTENTS)}, separated by commas. By default all that the recipe needs."
        ),
    ] = None,
    recipe: options.Recipe = DEFAULT_RECIPE,
    out: Annotated[
        Path | None, option("--out FOLDER", "Where to make the folder of the domain, such as FOLDER/D034_2021.")
    ] = None,
    url: Annotated[str, option("--service URL", "Another download service with the same paths.")] = GEOPLATEFORME,
    only_list: Annotated[
        bool, option("--list", "List what the service has for the département, and download nothing.")
    ] = False,
) -> None:
    """Download a département's imagery, elevation and borders from IGN.

    After an interruption run the same command again: it continues where it stopped. Files that are there are compared
    with their md5.
    """
    from pipeline.runs.ingest import fetch as fetching
    from pipeline.sources.download.service import Service

    service = Service(url.rstrip("/"))
    wanted = _contents_for(recipe) if contents is None else _parse_contents(contents)
    if only_list:
        products = service.products()
        _print_editions(fetching.list_editions(service, zone, products), zone)
        say(f"products of the service that were searched: {', '.join(products)}")
        return
    if out is None:
        raise typer.BadParameter("--out is missing; or ask what there is with --list")
    plan = fetching.plan_fetch(service, zone, year=year, contents=wanted)
    _print_editions(plan.editions, zone)
    for sentence in plan.choice.notes:
        log.info("%s", sentence)
    done = fetching.fetch(plan, service, out=out, bar=progress_bar)
    for sentence in done.notes:
        log.warning("%s", sentence)
    files, size = count(done.fetched, "file"), f"{done.fetched_bytes / 1e9:.2f} GB"
    say(f"{plan.choice.domain}: {files} downloaded to {shown(done.folder)} ({size}), {done.kept} already there")
    say_next("map", shown(done.folder), "--weights", "CHECKPOINT", "--out", f"map-{plan.choice.domain}")


def _print_editions(listed: "Sequence[ListedEdition]", zone: str) -> None:
    rows = [(e.edition.name, e.edition.part or "-", len(e.files), f"{e.size_bytes / 1e9:.2f}") for e in listed]
    console.print(number_table(("edition", "used as", "files", "GB"), rows))
    say(f"{zone}: {count(len(listed), 'edition')}, {sum(e.size_bytes for e in listed) / 1e9:.2f} GB")


@command("landcover stage BDORTHO_D034.7z.001 RGEALTI_D034.7z LIDARHD_D034/ \\\n    --domain D034_2021 --out staged")
def stage(
    given: ArchivesArgument,
    domain: options.OneDomain,
    out: Annotated[
        Path | None,
        option(
            "--out FOLDER", "Where to unpack. By default a folder beside the first archive, named after the domain."
        ),
    ] = None,
    tile_m: options.FoundTileSize = None,
    holes: Annotated[
        Literal["interpolate", "leave"],
        option("--holes", "Interpolate holes of the elevation that are up to 25 m wide, or leave them."),
    ] = "interpolate",
    remove_small: Annotated[
        bool, option("--remove-small", "Remove staged elevation files once the height files contain them.")
    ] = False,
) -> None:
    """Unpack IGN's archives and write one height file per tile.

    After an interruption run the same command again: it continues where it stopped.
    """
    from pipeline.runs.ingest.stage import stage as stage_all

    done = stage_all(
        given, domain=domain, out=out, tile_m=tile_m, treatment=holes, remove_small=remove_small, bar=progress_bar
    )
    for sentence in done.tile_notes:
        log.debug("%s", sentence)
    for sentence in done.notes:
        log.info("%s", sentence)
    for name, part in done.unpacked:
        files, size = count(part.written, "file"), f"{part.size_bytes / 1e9:.2f} GB"
        say(f"{name}: {files} unpacked in {shown(done.out)} ({size}), {part.kept} already there")
    heights = count(len(done.heights.written), "height file")
    say(f"{domain}: {heights} written in {shown(done.heights.folder)}, {done.removed} elevation files removed")
    say_next("index", *map(shown, done.folders), "--domain", domain, "--catalog", "catalog")


@command("landcover index /data/BDORTHO_D034 /data/LIDARHD_D034 \\\n    --domain D034_2021 --catalog catalog")
def index(
    sources: SourcesArgument,
    domain: options.OneDomain,
    catalog: options.Catalog,
    tile_m: options.FoundTileSize = None,
    recipe: options.Recipe = DEFAULT_RECIPE,
    accept: options.Accept = None,
    collections: CollectionOption = None,
    bbox: options.Box = None,
    when: options.When = None,
) -> None:
    """Check the imagery and write the input catalog of STAC items.

    The catalog is created if missing; each tile gets one item. Names, headers and pixel levels are checked against
    what the model's recipe expects.
    """
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    with progress_bar("index") as progress:
        from pipeline.runs.ingest.found_deliveries import tile_size_below
        from pipeline.sources.catalog.external_stac import Query
        from pipeline.sources.catalog.index import index as index_domain
        from pipeline.sources.delivery.names import RASTER_SUFFIXES

        report = index_domain(
            sources,
            domain=domain,
            catalog=catalog,
            tile_size=tile_m * PIXELS_PER_M if tile_m else tile_size_below(folders),
            recipe=load_recipe(recipe),
            accept=options.limits(accept),
            query=Query(tuple(collections or ()), bbox, when),
            progress=progress,
        )
    for sentence, tiles in _grouped(report.notes).items():
        log.info("%s (%s)", sentence, tiles)
    for path in report.ignored[:_MOST_NAMED]:
        known = path.suffix.lower() in RASTER_SUFFIXES
        why = "not the name of a delivered file" if known else "expected GeoTIFF or JPEG 2000; convert it: rio convert"
        log.warning("ignored %s: %s", path, why)
    if len(report.ignored) > _MOST_NAMED:
        log.warning("ignored %d more rasters", len(report.ignored) - _MOST_NAMED)
    tiles, files = count(len(report.tiles), "tile"), count(report.files, "file")
    say(f"{domain}: {tiles}, {files}, {report.size_bytes / 1e9:.2f} GB indexed in {shown(report.catalog / domain)}")
    if report.limits:
        say(f"to map this domain the campaign needs accept_limits: [{', '.join(report.limits)}]")
    say_next("init", shown(catalog), "--weights", "CHECKPOINT")


def _grouped(notes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Sentences that differ in their figures alone once, with the tiles that they are about."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for tile, sentence in notes:
        alike.setdefault(re.sub(r"\d+(\.\d+)?", "N", sentence), []).append((tile, sentence))
    grouped = {}
    for found in alike.values():
        others = ", with other figures" if len({sentence for _, sentence in found}) > 1 else ""
        grouped[found[0][1]] = first_names([tile for tile, _ in found], 3) + others
    return grouped
