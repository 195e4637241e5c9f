"""The command that asks the catalogue: search."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from pipeline.cli.options import console
from pipeline.config import load_campaign
from pipeline.errors import ConfigError

app = typer.Typer()

_YAML = (".yaml", ".yml")


@app.command(epilog="Example: landcover search campaign.yaml --min-share vineyard=0.3 --datetime 2021 --out found.json")
def search(
    where: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG|PATH", help="A campaign's YAML, a national product or an edition.", show_default=False
        ),
    ],
    domain: Annotated[
        list[str] | None, typer.Option("--domain", help="A domain, such as D064_2021; may be repeated.")
    ] = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option("--bbox", metavar="W S E N", help="Degrees; tiles that meet it."),
    ] = None,
    when: Annotated[str | None, typer.Option("--datetime", help="A day, a month, a year or START/END.")] = None,
    min_share: Annotated[
        list[str] | None,
        typer.Option("--min-share", metavar="CLASS=SHARE", help="Least share of a class, 0..1; may be repeated."),
    ] = None,
    min_confidence: Annotated[
        float | None, typer.Option("--min-confidence", help="Least mean confidence of a tile, 0..1.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the items to this JSON, with absolute paths, as `rustac serve` takes it."),
    ] = None,
) -> None:
    """Find tiles of the national product by place, time, class share and confidence; no server is needed."""
    from pipeline.durable import write_json
    from pipeline.products.stac.search import search as find
    from pipeline.products.tile.stac_item import CONFIDENCE

    national = load_campaign(where).output.national if where.suffix in _YAML else where
    with console.status("search"):
        found = find(
            national,
            domains=domain,
            bbox=bbox,
            datetime=when,
            min_share=_shares(min_share or []),
            min_confidence=min_confidence,
        )
    table = Table("tile", "confidence", Column("land cover", overflow="fold"), box=None)
    for item in found:
        sure = item.properties.get(CONFIDENCE)
        table.add_row(item.id, "" if sure is None else f"{sure:.2f}", item.assets["landcover"].href)
    if len(found):
        console.print(table)
    console.print(f"{len(found)} tiles fit")
    if out:
        write_json(out, found.to_dict())
        console.print(f"items: {out}", soft_wrap=True)


def _shares(given: list[str]) -> dict[str, float]:
    """`["vineyard=0.3"]` → `{"vineyard": 0.3}`."""
    shares = {}
    for text in given:
        name, _, share = text.partition("=")
        try:
            shares[name] = float(share)
        except ValueError as error:
            raise ConfigError(f"--min-share {text}: expected CLASS=SHARE, as vineyard=0.3") from error
    return shares
