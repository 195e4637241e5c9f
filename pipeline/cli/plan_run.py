"""The commands `plan` and `run`: what a run would map, and the run."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated

from rich.filesize import decimal

from pipeline.cli import options
from pipeline.cli.help import command, option
from pipeline.cli.output import (
    console,
    count,
    log,
    number_table,
    progress_bar,
    save_json,
    say,
    say_next,
    shown,
)
from pipeline.errors import RunFailed
from pipeline.legend import planes_of
from pipeline.sources.short_lists import first_names

if TYPE_CHECKING:
    from pipeline.runs.mapping.events import RunStarted, TileEnded
    from pipeline.runs.planning.forecast import Forecast
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
    unscored: options.Unscored = False,
    failed: options.Failed = False,
    only_missing: options.OnlyMissing = False,
    re_resolve: options.ReResolve = False,
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
    with progress_bar("plan"):
        from pipeline.runs.planning.forecast import described_machine, forecast, plan_as_json, rates_for
        from pipeline.runs.planning.plan import ALL_TILES, TileFilter, make_plan
        from pipeline.runs.planning.totals import plan_totals

        only = TileFilter(failed=failed, missing=only_missing)
        again = {"force": force, "unscored": unscored, "re_resolve": re_resolve}
        planned = make_plan(campaign, domains=domain or (), tiles=tile or (), only=only, **again)
    machine = described_machine(planned.resolved, nodes=nodes, cores=cores, gpus=gpus, gpu=gpu)
    rates = rates_for(planned.resolved, machine)
    predicted = forecast(planned.resolved, plan_totals(planned), rates, machine)
    show_plan(planned, predicted, all_tiles=all_tiles)
    if json_file:
        save_json(json_file, plan_as_json(planned, predicted), "plan")
    if planned.todo:
        given_names = [*(("--domain", name) for name in domain or ()), *(("--tile", name) for name in tile or ())]
        flags = {"--force": force, "--failed": failed, "--only-missing": only_missing}
        flags |= {"--unscored": unscored, "--re-resolve": re_resolve}
        say_next("run", config, *chain(*given_names), *(flag for flag, given in flags.items() if given))
    elif not planned.damaged:
        _show_nothing_to_do(chosen=only != ALL_TILES)
    if planned.damaged:
        raise RunFailed("\n  ".join(["these domains are not planned, because they cannot be read:", *planned.damaged]))


def show_plan(planned: "RunPlan", predicted: "Forecast", *, all_tiles: bool = False) -> None:
    """Prints what a run would do, why, and how long it would take."""
    _show_counts(planned)
    _show_choices(planned)
    _show_worker(planned.resolved)
    _show_reasons(planned, all_tiles=all_tiles)
    for line in predicted.lines() if planned.todo else ():
        say(line)


def _show_nothing_to_do(*, chosen: bool) -> None:
    """Says that a plan is empty; `chosen` if options left out some tiles."""
    say(f"nothing to do: every {'such ' if chosen else ''}tile is sealed and up to date")


def _show_stale(planned: "RunPlan") -> None:
    """Warns of damaged run records, and of sealed tiles whose input files changed since they were indexed."""
    for d in planned.domains:
        if d.record_problem:
            say(f"{d.name}: {d.record_problem}")
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


def _show_choices(planned: "RunPlan") -> None:
    """Prints what `auto` was resolved to, and what choosing again would change."""
    choices = planned.resolved.choices
    if choices is None:
        return
    former = choices.former or choices.now
    for before, now in ((former.windows, choices.now.windows), (former.precision, choices.now.precision)):
        if now:
            say(f"auto: {now}" if before is None or str(before) == str(now) else f"auto: {before} → {now}")
    if choices.former is None:
        say(f"  chosen on {former.host}, {former.made}; kept in {shown(choices.path)}")
        say("  later runs use the same until `--re-resolve` chooses again (`plan` only shows it)")
    else:
        say(f"  {count(planned.remapped, 'sealed tile')} would be mapped again; nothing is changed yet")
        if others := len(planned.resolved.campaign.domains) - len(planned.domains):
            say(f"  not counted: {count(others, 'other domain')} of the campaign; the choice holds for all")


def _show_worker(s: "ResolvedCampaign") -> None:
    say(f"engine: {s.engine.name} {s.engine.precision}, {s.engine_threads} threads per worker")
    say(
        f"window: {s.layout.window} px (core {s.layout.core}, halo {s.layout.halo}): "
        f"{s.layout.overlap_factor:.3f} × the map's pixels are computed"
    )
    if s.forwards > 1:
        networks, tta = count(len(s.networks), "network"), s.campaign.model.tta
        say(f"forwards of each window: {s.forwards} ({networks}, tta: {tta}), each takes as long as one")
    if s.campaign.layers:
        planes = planes_of(s.campaign.layers, s.recipe.live)
        say(f"optional layers: {', '.join(s.campaign.layers)}")
        say(f"  {count(planes, 'byte')} a pixel before compression; the bytes below do not count them")
    budgets = {"memory_bytes": s.campaign.cluster.memory_bytes}
    if s.memory.device:
        budgets["device_memory_bytes"] = s.campaign.cluster.device_memory_bytes
    limits = ", ".join(
        f"{key} is not set" if budget is None else f"{key} allows {budget / 1e9:.2f} GB"
        for key, budget in budgets.items()
    )
    say("memory per worker: up to " + str(s.memory).replace(" (", "\n  (", 1))
    say(f"memory limit per worker: {limits}")


def _show_reasons(planned: "RunPlan", *, all_tiles: bool) -> None:
    _show_stale(planned)
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
    if tiles[0].keeps_map:
        yield "  their maps stay as they are; the layers need every forward of their windows again"
    if failing := sum(bool(p.broken) for p in tiles):
        causes = list(dict.fromkeys(cause for p in tiles for cause in p.broken))
        yield f"  {failing} of them will fail: {first_names(causes)}"


@command(
    "landcover run campaign.yaml --domain D034_2021 --workers 2",
    "landcover run campaign.yaml --failed",
)
def run(
    config: options.Config,
    domain: options.Domains = None,
    tile: options.Tiles = None,
    force: options.Force = False,
    unscored: options.Unscored = False,
    failed: options.Failed = False,
    only_missing: options.OnlyMissing = False,
    re_resolve: options.ReResolve = False,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    scheduler: options.Scheduler = None,
    dashboard: options.Dashboard = False,
) -> None:
    """Map all tiles that are not mapped yet or no longer up to date.

    After an interruption run the same command again: sealed tiles are kept. Ctrl-C, SIGTERM or SIGUSR1 stop the run
    with exit code 5 once the tiles in flight are sealed; a second Ctrl-C stops it at once.
    """
    from pipeline.runs.mapping.shutdown import stop_on_signals

    # Before the slow imports: a signal during them must stop the run in order, not kill the process.
    with stop_on_signals() as stop:
        campaign = options.open_campaign(config, domain, tile).on_cluster(cluster, scheduler, dashboard=dashboard)
        with progress_bar("plan"):
            from pipeline.runs.planning.forecast import forecast_domains
            from pipeline.runs.planning.plan import ALL_TILES, TileFilter, make_plan

            only = TileFilter(failed=failed, missing=only_missing)
            again = {"force": force, "unscored": unscored, "re_resolve": re_resolve}
            planned = make_plan(campaign, domains=domain or (), tiles=tile or (), only=only, **again)
        _show_stale(planned)
        if not planned.todo:
            from pipeline.runs.mapping.idle_domains import run_empty_plan

            run_empty_plan(planned)
            _show_nothing_to_do(chosen=only != ALL_TILES)
            return
        with progress_bar("run") as progress:
            from pipeline.runs.mapping.run import run as run_plan

            ended = run_plan(
                planned,
                workers=workers,
                on_event=log_event,
                stop=stop,
                predicted=forecast_domains(planned),
                progress=progress,
            )
    for part in planned.domains:
        sealed = count(sum(e.domain == part.name for e in ended), "tile")
        say(f"{part.name}: {sealed} sealed in {shown(campaign.product_folder(part.name))}")
    say_next("verify", config)


def log_event(event: "RunStarted | TileEnded") -> None:
    """A line for each tile: an error if it failed, else one that only `-v` shows."""
    from pipeline.runs.mapping.events import RunStarted

    if isinstance(event, RunStarted):
        return
    if event.error:
        log.error("%s %s failed: %s", event.domain, event.tile, event.error)
    else:
        rate = event.pixels / 1e6 / event.seconds
        log.debug("%s %s sealed in %.1f s, %.2f Mpx/s", event.domain, event.tile, event.seconds, rate)
