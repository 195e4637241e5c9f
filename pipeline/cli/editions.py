"""Commands for the editions of the national product: list, restore and drop them; and the output of a publish."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipeline.cli.options import ConfigArgument, console, log
from pipeline.config import load_campaign
from pipeline.grid import PIXELS_PER_M

if TYPE_CHECKING:
    from pipeline.products.national.edition_history import EditionState
    from pipeline.runs.publishing.publish import PublishedEdition

app = typer.Typer()


@app.command(epilog="Example: landcover editions campaign.yaml --restore 2")
def editions(
    config: ConfigArgument,
    restore: Annotated[
        int | None, typer.Option("--restore", metavar="N", help="Make this former edition current.")
    ] = None,
    drop: Annotated[
        list[int] | None,
        typer.Option("--drop", metavar="N", help="Delete this former edition; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List the editions of the national product and their sizes. Options restore or drop editions before."""
    from pipeline.products.national.edition_history import history
    from pipeline.runs.publishing import editions as kept

    national = load_campaign(config).output.national
    if restore is not None:
        kept.restore(national, restore)
    if drop:
        kept.drop(national, drop)
    states = history(national)
    if as_json:
        console.print_json(json.dumps([_as_json(state) for state in states]))
    elif states:
        console.print(_table(states))
    else:
        console.print(f"nothing was published in {national}; run `landcover publish`", soft_wrap=True)


def show_published(done: "PublishedEdition") -> None:
    """Prints the current edition, its shards, what is missing, and who claims and shows its pixels."""
    for name, tiles in done.unsealed:
        log.warning("%s: %d tiles are not sealed; they are nodata in this edition", name, tiles)
    for name in done.left_out:
        log.warning("%s is not in the campaign, so it is not in this edition; former editions still have it", name)
    for name, km2 in done.undelivered_km2.items():
        log.info("%s: %.2f km² of its polygon lie outside its delivered tiles", name, km2)
    several, nobody = _area(done.tally.several), _area(done.tally.nobody)
    lines = [
        f"edition {done.edition} is current: {done.written} shards written, {done.linked} unchanged, in {done.store}",
        f"claimed by several domains: {several}; delivered, but claimed by none: {nobody}",
    ]
    lines += [
        f"{name} shows {_area(n)} that other domains own but have no imagery of"
        for name, n in done.tally.filled.items()
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _area(pixels: int) -> str:
    return f"{pixels} pixels ({pixels / PIXELS_PER_M**2 / 1e6:.2f} km²)"


def _table(states: Sequence["EditionState"]) -> Table:
    table = Table("edition", "created", "", "domains", "shards", "own MB", "shared MB", box=None)
    for s in states:
        sizes = (f"{s.own_bytes / 1e6:.1f}", f"{s.shared_bytes / 1e6:.1f}")
        e = s.edition
        current = "current" if s.current else ""
        table.add_row(str(e.number), e.created, current, str(len(e.domains)), str(len(e.digests)), *sizes)
    return table


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
