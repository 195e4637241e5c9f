"""Commands and exit codes. What they do lives elsewhere: nothing here loops over data.

Exit codes: 0 done; 1 a defect of ours, with its traceback; 2 something to mend in what was given; 3 some
tiles failed, the others are sealed; 4 a product is not what its items say, or not complete.
"""

import logging
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from pipeline import __version__
from pipeline.config import DEFAULT_RECIPE, EngineName, Precision, load_campaign
from pipeline.errors import LandcoverError, VerifyFailed

if TYPE_CHECKING:
    from pipeline.runs.domain import RunStarted, TileEnded
    from pipeline.runs.plan import RunPlan

_EXIT_CODES = """Exit codes: 0 done · 2 something to mend in what was given · 3 some tiles failed, the others are
sealed · 4 a product is damaged or not complete · 1 a defect of the program."""

app = typer.Typer(
    name="landcover",
    help="Map a whole country's land cover at 20 cm: BD ORTHO deliveries → COGs → one national Zarr.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()
log = logging.getLogger("landcover")

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="The campaign's YAML.", show_default=False)]
DomainOption = Annotated[
    list[str] | None, typer.Option("--domain", help="A domain of the campaign, such as D064_2021; may be repeated.")
]
TileOption = Annotated[
    list[str] | None,
    typer.Option("--tile", help="A tile by its north-west corner, such as 0595-6890; may be repeated."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Map chosen tiles again, sealed or not.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Worker processes, instead of the campaign's number.")
]


@app.command(
    epilog="Example: landcover index /data/BDORTHO_D034 /data/LIDARHD_D034 --domain D034_2021 --catalog catalog"
)
def index(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders of deliveries; STAC catalogues (path or URL of their .json); URLs of STAC APIs.",
            show_default=False,
        ),
    ],
    domain: Annotated[str, typer.Option("--domain", help="Département and vintage, such as D064_2021.")],
    catalog: Annotated[Path, typer.Option("--catalog", help="Folder of the input catalogue; made if missing.")],
    tile_m: Annotated[int, typer.Option("--tile-m", min=10, help="Side of a tile in metres.")] = 5_000,
    recipe: Annotated[
        str, typer.Option("--recipe", help="Its bands say which files are needed: a name, or a YAML.")
    ] = DEFAULT_RECIPE,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", help="A limit of the model's card that the delivery may pass; may be repeated."),
    ] = None,
    collections: Annotated[
        list[str] | None, typer.Option("--collection", help="A collection of a STAC catalogue; may be repeated.")
    ] = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option("--bbox", metavar="W S E N", help="Degrees; of STAC catalogues, items that meet it."),
    ] = None,
    when: Annotated[
        str | None, typer.Option("--datetime", help="A day, a year or START/END; of STAC catalogues, items of then.")
    ] = None,
) -> None:
    """Index IGN deliveries or STAC catalogues: check names, headers and levels, write one STAC item a tile."""
    from pipeline.runs.index import index_domain
    from pipeline.sources.catalog import Query

    with _progress("index") as told:
        report = index_domain(
            sources,
            domain=domain,
            catalog=catalog,
            tile_m=tile_m,
            recipe=recipe,
            accept=accept or (),
            query=Query(tuple(collections or ()), bbox, when),
            progress=told,
        )
    for sentence, tiles in _grouped(report.notes).items():
        log.info("%s (%s)", sentence, tiles)
    for path in report.ignored:
        log.warning("ignored: %s has no name of a delivery", path)
    console.print(
        f"{domain}: {len(report.tiles)} tiles, {report.files} files, {report.size_bytes / 1e9:.2f} GB indexed in "
        f"{report.catalog / domain}"
    )
    if report.limits:
        console.print(f"the campaign needs accept_limits: [{', '.join(report.limits)}]", markup=False)


@app.command(
    epilog="Example: landcover stage BDORTHO_D034.7z.001 RGEALTI_D034.7z LIDARHD_D034/ --domain D034_2021 --out staged"
)
def stage(
    given: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARCHIVE...",
            help="7z archives, by any of their volumes; or folders that are unpacked already.",
            show_default=False,
        ),
    ],
    domain: Annotated[str, typer.Option("--domain", help="Département and vintage, such as D064_2021.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Staging folder; by default named by the domain, beside the first archive."),
    ] = None,
    tile_m: Annotated[int, typer.Option("--tile-m", min=10, help="Side of a tile in metres.")] = 5_000,
    holes: Annotated[
        Literal["interpolate", "leave"],
        typer.Option("--holes", help="Holes of the elevation: interpolated up to 25 m, or left as ground."),
    ] = "interpolate",
    remove_small: Annotated[
        bool,
        typer.Option("--remove-small", help="Remove elevation files in the staging folder that heights stand for."),
    ] = False,
) -> None:
    """Unpack archives and make one height file of each tile's elevation; run it again after an interruption."""
    from pipeline.runs.stage import stage as stage_all

    done = stage_all(
        given, domain=domain, out=out, tile_m=tile_m, treatment=holes, remove_small=remove_small, bar=_progress
    )
    for sentence in done.notes:
        log.info("%s", sentence)
    for name, part in done.unpacked:
        console.print(
            f"{name}: {part.written} files, {part.size_bytes / 1e9:.2f} GB unpacked in {done.out}; "
            f"{part.kept} were there",
            soft_wrap=True,
        )
    console.print(
        f"{domain}: {len(done.heights.written)} heights written in {done.heights.folder}; "
        f"{done.removed} elevation files removed",
        soft_wrap=True,
    )
    folders = " ".join(shlex.quote(str(f)) for f in done.folders)
    console.print(f"next: landcover index {folders} --domain {domain} --catalog catalog", soft_wrap=True, markup=False)


@app.command(epilog="Example: landcover plan campaign.yaml --domain D034_2021")
def plan(
    config: ConfigArgument,
    domain: DomainOption = None,
    tile: TileOption = None,
    force: ForceOption = False,
) -> None:
    """Show what a run would do and why; nothing is computed."""
    from pipeline.runs.plan import make_plan

    _print_plan(make_plan(load_campaign(config), domains=domain or (), tiles=tile or (), force=force))


@app.command(epilog="Example: landcover run campaign.yaml --domain D034_2021 --workers 2")
def run(
    config: ConfigArgument,
    domain: DomainOption = None,
    tile: TileOption = None,
    force: ForceOption = False,
    workers: WorkersOption = None,
) -> None:
    """Map what is not mapped yet and seal it tile by tile; run it again after an interruption."""
    from pipeline.runs import domain as runs_domain
    from pipeline.runs.plan import make_plan

    campaign = load_campaign(config)
    planned = make_plan(campaign, domains=domain or (), tiles=tile or (), force=force)
    if not planned.todo:
        console.print("nothing to do: every tile is sealed and today's")
        return
    with _progress("run") as told:
        ended = runs_domain.run(planned, workers=workers, listener=_run_listener(told))
    for part in planned.domains:
        console.print(
            f"{part.name}: {sum(e.domain == part.name for e in ended)} tiles sealed in "
            f"{planned.settings.folder(part.name)}"
        )


@app.command(epilog="Example: landcover status campaign.yaml")
def status(config: ConfigArgument) -> None:
    """Count each domain's sealed, damaged, failed and missing tiles."""
    from pipeline.runs.status import status as read_status

    table = Table("domain", "sealed", "damaged", "failed", "missing", box=None)
    states = read_status(load_campaign(config))
    for s in states:
        table.add_row(s.domain, *(str(len(group)) for group in (s.sealed, s.damaged, s.failed, s.missing)))
    console.print(table)
    for s in states:
        for name, cause in s.failed:
            console.print(f"{s.domain} {name} failed: {cause}", markup=False)


@app.command(epilog="Example: landcover verify campaign.yaml --json verify.json")
def verify(
    config: ConfigArgument,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Read every COG, checksum and item again, and the national store; fail when anything is wrong or missing."""
    from pipeline.durable import write_json
    from pipeline.runs.verify import verify as read_again

    with _progress("verify") as told:
        verified = read_again(load_campaign(config), progress=told)
    if json_file:
        write_json(json_file, verified.as_json())
    for d in verified.domains:
        console.print(
            f"{d.domain}: {d.tiles} tiles, {d.files} files read; {len(d.missing)} missing, {len(d.problems)} problems"
        )
    if verified.national is None:
        console.print("national: nothing published")
    else:
        console.print(f"national: {len(verified.national)} problems")
    if not verified.clean:
        problems = [f"{d.domain} {p}" for d in verified.domains for p in d.problems]
        problems += [f"{d.domain} {name}: not sealed" for d in verified.domains for name in d.missing]
        raise VerifyFailed("not clean:\n  " + "\n  ".join([*problems, *(verified.national or ())]))


@app.command(epilog="Example: landcover publish campaign.yaml")
def publish(config: ConfigArgument, workers: WorkersOption = None) -> None:
    """Publish what is sealed into a new edition of the national Zarr; what did not change is kept."""
    from pipeline.runs.publish import publish as publish_edition

    with _progress("publish") as told:
        done = publish_edition(load_campaign(config), workers=workers, progress=told)
    for name, tiles in done.lacking:
        log.warning("%s: %d tiles are not sealed; they are no data in this edition", name, tiles)
    console.print(
        f"edition {done.edition} is current: {done.written} shards written, {done.linked} unchanged, in {done.store}",
        soft_wrap=True,
    )


@app.command(
    epilog="Example: landcover predict patch.tif --weights FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth --out maps"
)
def predict(
    *,
    raster: Annotated[Path, typer.Argument(metavar="IN.tif", help="uint8, bands as the recipe's.", show_default=False)],
    weights: Annotated[str, typer.Option("--weights", help="A checkpoint's path, or hf://org/name[/file].")],
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
    from pipeline.runs.predict import predict_raster

    with _progress("predict") as told:
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
            progress=told,
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
    from pipeline.runs.quantize import quantize as quantize_campaign

    with _progress("quantize") as told:
        done = quantize_campaign(
            load_campaign(config),
            out=out,
            domains=domain or (),
            windows=windows,
            min_agreement=min_agreement,
            slow=slow,
            say=log.info,
            progress=told,
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
    from pipeline.demo.tour import run_demo

    run_demo(out, say=lambda line: console.print(line, markup=False, highlight=False))


@app.command(epilog="Example: landcover bench engines halo --out build/bench")
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Some of them; all by default.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of figures, pictures and imagery.")] = Path("build/bench"),
    data: Annotated[Path, typer.Option("--data", help="Folder of real patches and weights.")] = Path("../shared/data"),
    quick: Annotated[
        bool, typer.Option("--quick", help="1 Mpx instead of 100: it runs, its figures say little.")
    ] = False,
) -> None:
    """Measure engines, feed, run and halo on this machine: <name>.json and <name>.png each."""
    from pipeline.bench.suite import run_benches

    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    run_benches(names or (), out=out, data=data, quick=quick, say=say)


def _grouped(notes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Each sentence once, with the tiles that it is about."""
    tiles: dict[str, list[str]] = {}
    for tile, sentence in notes:
        tiles.setdefault(sentence, []).append(tile)
    return {s: ", ".join(t[:3]) + (f" and {len(t) - 3} more tiles" if len(t) > 3 else "") for s, t in tiles.items()}


def _print_plan(planned: "RunPlan") -> None:
    from pipeline.runs.plan import totals

    columns = ("domain", "tiles", "to do", "blocks", "windows", "to read", "to write", "files in", "files out")
    table = Table(*columns, box=None)
    for d in planned.domains:
        t = totals(planned.settings, d)
        table.add_row(
            d.name,
            str(t.tiles),
            str(t.todo),
            str(t.blocks),
            str(t.windows),
            f"{t.read_bytes / 1e6:.0f} MB",
            f"≤ {t.write_bytes / 1e6:.0f} MB",
            str(t.input_files),
            str(t.output_files),
        )
    console.print(table)
    s = planned.settings
    console.print(
        f"engine {s.engine.name} {s.engine.precision}, {s.engine_threads} threads a worker; core {s.layout.core}, halo "
        f"{s.layout.halo}, window {s.layout.window}: {s.layout.overlap_factor:.3f} × the pixels computed"
    )
    budget = s.campaign.cluster.memory_bytes
    allowed = "no memory_bytes given" if budget is None else f"memory_bytes allows {budget / 1e9:.2f} GB"
    console.print(f"a worker takes up to {s.memory}; {allowed}", markup=False, highlight=False)
    for d in planned.domains:
        if d.inputs.limits:
            limits = ", ".join(d.inputs.limits)
            console.print(f"{d.name}: passes limits of the model's card, accepted: {limits}", markup=False)
        for p in d.todo:
            console.print(f"{d.name} {p.tile.name}: {p.reason}", markup=False, highlight=False)
            for cause in p.broken:
                console.print(f"  will fail: {cause}", markup=False, highlight=False)


def _run_listener(told: Callable[[int, int], None]) -> "Callable[[RunStarted | TileEnded], None]":
    from pipeline.runs.domain import RunStarted

    counts = {"done": 0, "all": 0}

    def listen(event: "RunStarted | TileEnded") -> None:
        if isinstance(event, RunStarted):
            counts["all"] = event.tiles
            log.info("dashboard: %s", event.dashboard)
        elif event.error:
            log.error("%s %s failed: %s", event.domain, event.tile, event.error)
        else:
            rate = event.pixels / 1e6 / event.seconds
            log.info("%s %s sealed in %.1f s, %.2f Mpx/s", event.domain, event.tile, event.seconds, rate)
        if not isinstance(event, RunStarted):
            counts["done"] += 1
        told(counts["done"], counts["all"])

    return listen


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """One progress line; told (done, total) by whatever works."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _version(asked: bool) -> None:
    if asked:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,  # noqa: ARG001
) -> None:
    handler = RichHandler(console=console, show_path=False, show_level=False, markup=False, highlighter=None)
    # Libraries set their own loggers' levels when they are imported, so it is the handler that chooses.
    handler.addFilter(lambda r: verbose or r.name.startswith("landcover") or r.levelno >= logging.ERROR)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


def main() -> NoReturn:
    """The `landcover` command: our own errors are a message and an exit code, without a traceback."""
    try:
        app(standalone_mode=True)
    except LandcoverError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(error.exit_code) from None
    raise SystemExit(0)
