"""The command `plan`: what a run would map, why, and how long it would take."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated

from rich.filesize import decimal

from pipeline.cli import options
from pipeline.cli.help import command, option
from pipeline.cli.output import console, count, number_table, save_json, say, say_next
from pipeline.errors import RunFailed
from pipeline.sources.short_lists import first_names

if TYPE_CHECKING:
    from pipeline.runs.planning.plan import PlannedTile, RunPlan
    from pipeline.runs.planning.resolved_campaign import ResolvedCampaign


@command(
    "landcover plan campaign.yaml --domain D034_2021",
    "landcover plan campaign.yaml --nodes 4 --cores 64 --gpus 8 --gpu a100",
)
def plan(
    config: options.Config,
    domain: options.Domains = None,
    tile: options.Tiles = None,
    force: options.Force = False,
    failed: options.Failed = False,
    only_missing: options.OnlyMissing = False,
    all_tiles: Annotated[bool, option("--tiles", "List every tile to map, not only the first of each reason.")] = False,
    nodes: Annotated[int, option("--nodes N", "Predict for this many nodes.", min=1)] = 1,
    cores: Annotated[int | None, option("--cores N", "Cores per node. By default this machine's.", min=1)] = None,
    gpus: Annotated[int | None, option("--gpus N", "GPUs per node. By default this machine's.", min=0)] = None,
    gpu: Annotated[str | None, option("--gpu NAME", "Model of the GPUs, such as a100.")] = None,
    json_file: options.JsonFile = None,
) -> None:
    """Show what a run would map, why, and how long it would take.

    Nothing is computed. The speeds come from `landcover bench` if it was run on this machine, otherwise from built-in
    values; each line says which.
    """
    campaign = options.open_campaign(config, domain, tile)
    from pipeline.runs.planning.forecast import described_machine, forecast, plan_as_json, rates_for
    from pipeline.runs.planning.plan import ALL_TILES, TileFilter, make_plan
    from pipeline.runs.planning.totals import plan_totals

    only = TileFilter(failed=failed, missing=only_missing)
    planned = make_plan(campaign, domains=domain or (), tiles=tile or (), force=force, only=only)
    machine = described_machine(planned.resolved, nodes=nodes, cores=cores, gpus=gpus, gpu=gpu)
    rates = rates_for(planned.resolved, machine)
    predicted = forecast(planned.resolved, plan_totals(planned), rates, machine)
    _show_counts(planned)
    _show_worker(planned.resolved)
    _show_reasons(planned, all_tiles=all_tiles)
    for line in predicted.lines() if planned.todo else ():
        say(line)
    save_json(json_file, plan_as_json(planned, predicted), "plan")
    if planned.todo:
        names = [*(("--domain", name) for name in domain or ()), *(("--tile", name) for name in tile or ())]
        flags = {"--force": force, "--failed": failed, "--only-missing": only_missing}
        say_next("run", config, *chain(*names), *(flag for flag, given in flags.items() if given))
    elif not planned.damaged:
        show_nothing_to_do(chosen=only != ALL_TILES)
    if planned.damaged:
        raise RunFailed("\n  ".join(["these domains are not planned, because they cannot be read:", *planned.damaged]))


def show_nothing_to_do(*, chosen: bool) -> None:
    """Says that a plan is empty; `chosen` if options left out some tiles."""
    say(f"nothing to do: every {'such ' if chosen else ''}tile is sealed and up to date")


def show_stale(planned: "RunPlan") -> None:
    """Warns of sealed tiles whose input files changed since they were indexed."""
    for d in planned.domains:
        if d.stale:
            changed = [sentence.partition(": ")[0] for sentence in d.stale]
            say(
                f"{d.name}: {count(len(d.stale), 'input file')} of sealed tiles changed since they were indexed; run "
                f"`landcover index` to map those tiles again: {first_names(changed)}"
            )


def _show_counts(planned: "RunPlan") -> None:
    from pipeline.runs.planning.totals import domain_totals

    headings = ("domain", "tiles", "to do", "blocks", "windows", "to read", "to write", "files in", "files out")
    rows = []
    for d in planned.domains:
        t = domain_totals(planned.resolved, d)
        sizes = (decimal(t.read_bytes), f"≤ {decimal(t.write_bytes)}")
        rows.append((d.name, t.tiles, t.todo, t.blocks, t.windows, *sizes, t.input_files, t.output_files))
    console.print(number_table(headings, rows))


def _show_worker(s: "ResolvedCampaign") -> None:
    say(f"engine: {s.engine.name} {s.engine.precision}, {s.engine_threads} threads per worker")
    say(
        f"window: {s.layout.window} px (core {s.layout.core}, halo {s.layout.halo}); the network computes "
        f"{s.layout.overlap_factor:.3f} × the map's pixels"
    )
    budgets = {"memory_bytes": s.campaign.cluster.memory_bytes}
    if s.memory.device:
        budgets["device_memory_bytes"] = s.campaign.cluster.device_memory_bytes
    limits = ", ".join(
        f"{key} is not set" if budget is None else f"{key} allows {budget / 1e9:.2f} GB"
        for key, budget in budgets.items()
    )
    say(f"memory per worker: up to {s.memory}")
    say(f"memory limit per worker: {limits}")


def _show_reasons(planned: "RunPlan", *, all_tiles: bool) -> None:
    show_stale(planned)
    for d in planned.domains:
        if d.inputs.limits:
            say(f"{d.name}: exceeds limits of the model card that the campaign accepts: {', '.join(d.inputs.limits)}")
        for reason in dict.fromkeys(p.reason for p in d.todo):
            tiles = [p for p in d.todo if p.reason == reason]
            for line in _tile_lines(tiles, d.name) if all_tiles else _group_lines(tiles, d.name):
                say(line)
        for p in d.todo:
            if p.failure:
                say(f"{d.name} {p.tile.name} failed in the last run: {p.failure}")


def _tile_lines(tiles: "Sequence[PlannedTile]", domain: str) -> Iterator[str]:
    """A line per tile, and one for each input file by which it will fail."""
    for p in tiles:
        yield f"{domain} {p.tile.name}: {p.reason}"
        yield from (f"  will fail: {cause}" for cause in p.broken)


def _group_lines(tiles: "Sequence[PlannedTile]", domain: str) -> Iterator[str]:
    """A line with the number of tiles of one reason and the first names, and one about those that will fail."""
    names = first_names([p.tile.name for p in tiles])
    yield f"{domain}: {count(len(tiles), 'tile')} to map ({tiles[0].reason}): {names}"
    if failing := sum(bool(p.broken) for p in tiles):
        causes = list(dict.fromkeys(cause for p in tiles for cause in p.broken))
        yield f"  {failing} of them will fail: {first_names(causes)}"
