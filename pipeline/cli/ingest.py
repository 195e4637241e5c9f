"""Commands from archives to the input catalogue: stage and index."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.options import console, log, progress_bar
from pipeline.config import DEFAULT_RECIPE
from pipeline.domain import Domain

_TILE_M = 5_000
"""Side of BD ORTHO's tiles in metres."""
_SHOWN = 5
"""Ignored files that are named: RGE ALTI has two rasters of sources and distances beside each of its thousands."""

app = typer.Typer()


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
    tile_m: Annotated[int, typer.Option("--tile-m", min=10, help="Side of a tile in metres.")] = _TILE_M,
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
    from pipeline.runs.ingest.stage import stage as stage_all

    done = stage_all(
        given,
        domain=Domain(domain),
        out=out,
        tile_m=tile_m,
        treatment=holes,
        remove_small=remove_small,
        bar=progress_bar,
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
    size = "" if tile_m == _TILE_M else f" --tile-m {tile_m}"
    console.print(
        f"next: landcover index {folders} --domain {domain} --catalog catalog{size}", soft_wrap=True, markup=False
    )


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
    tile_m: Annotated[int, typer.Option("--tile-m", min=10, help="Side of a tile in metres.")] = _TILE_M,
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
    from pipeline.runs.ingest.index import index_domain
    from pipeline.sources.catalog.index import Query

    with progress_bar("index") as progress:
        report = index_domain(
            sources,
            domain=Domain(domain),
            catalog=catalog,
            tile_m=tile_m,
            recipe=recipe,
            accept=accept or (),
            query=Query(tuple(collections or ()), bbox, when),
            progress=progress,
        )
    for sentence, tiles in _grouped(report.notes).items():
        log.info("%s (%s)", sentence, tiles)
    for path in report.ignored[:_SHOWN]:
        log.warning("ignored: %s has no name of a delivery", path)
    if len(report.ignored) > _SHOWN:
        log.warning("ignored: %d more rasters have none either", len(report.ignored) - _SHOWN)
    console.print(
        f"{domain}: {len(report.tiles)} tiles, {report.files} files, {report.size_bytes / 1e9:.2f} GB indexed in "
        f"{report.catalog / domain}",
        soft_wrap=True,
    )
    if report.limits:
        console.print(f"the campaign needs accept_limits: [{', '.join(report.limits)}]", markup=False)


def _grouped(notes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Each sentence once, with the tiles that it is about."""
    tiles: dict[str, list[str]] = {}
    for tile, sentence in notes:
        tiles.setdefault(sentence, []).append(tile)
    return {s: ", ".join(t[:3]) + (f" and {len(t) - 3} more tiles" if len(t) > 3 else "") for s, t in tiles.items()}
