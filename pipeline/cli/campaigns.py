"""Commands that take a campaign: plan, run, status, verify, report and publish."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from pipeline.cli.options import (
    ClusterOption,
    ConfigArgument,
    DomainOption,
    FailedOption,
    ForceOption,
    MissingOption,
    SchedulerOption,
    TileOption,
    WorkersOption,
    console,
    log,
    progress_bar,
)
from pipeline.config import load_campaign
from pipeline.errors import VerifyFailed
from pipeline.progress import Progress

if TYPE_CHECKING:
    from pipeline.runs.mapping.run import RunStarted, TileEnded
    from pipeline.runs.planning.forecast import Forecast
    from pipeline.runs.planning.plan import RunPlan, Settings

app = typer.Typer()


@app.command(epilog="Example: landcover plan campaign.yaml --domain D034_2021")
def plan(
    config: ConfigArgument,
    domain: DomainOption = None,
    tile: TileOption = None,
    force: ForceOption = False,
    failed: FailedOption = False,
    only_missing: MissingOption = False,
    all_tiles: Annotated[
        bool, typer.Option("--tiles", help="A line for each tile to map, not only the first.")
    ] = False,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Predict for this many nodes.")] = 1,
    cores: Annotated[
        int | None, typer.Option("--cores", min=1, help="Cores of a node; by default this machine's.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, help="GPUs of a node; by default this machine's.")
    ] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="The GPU's model, such as a100.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the plan to this file.")] = None,
) -> None:
    """Show what a run would do and why, and what it would take; nothing is computed.

    Speeds are those that `landcover bench` measured, else stated ones; each says which.
    """
    from pipeline.durable import write_json
    from pipeline.runs.planning.forecast import forecast, named_machine, rates_for
    from pipeline.runs.planning.plan import Only, make_plan, plan_totals
    from pipeline.runs.planning.summary import as_json
    from pipeline.runs.planning.throughput import read_rates

    only = Only(failed=failed, missing=only_missing)
    planned = make_plan(load_campaign(config), domains=domain or (), tiles=tile or (), force=force, only=only)
    settings = planned.settings
    machine = named_machine(settings, nodes=nodes, cores=cores, gpus=gpus, gpu=gpu)
    rates = rates_for(settings, machine, measured=read_rates())
    predicted = forecast(settings, plan_totals(planned), rates, machine)
    _print_plan(planned, predicted, all_tiles=all_tiles)
    if json_file:
        write_json(json_file, as_json(planned, predicted))
        console.print(f"plan: {json_file}", soft_wrap=True)


@app.command(epilog="Example: landcover run campaign.yaml --domain D034_2021 --workers 2")
def run(
    config: ConfigArgument,
    domain: DomainOption = None,
    tile: TileOption = None,
    force: ForceOption = False,
    failed: FailedOption = False,
    only_missing: MissingOption = False,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Map what is not mapped yet and seal it tile by tile; run it again after an interruption.

    SIGUSR1, SIGTERM or Ctrl-C let the tiles in flight be sealed and then end it with exit code 5; a second Ctrl-C
    ends it at once.
    """
    from pipeline.runs.mapping.shutdown import stop_on_signals

    # Before the slow imports: a warning that comes early must not end the process.
    with stop_on_signals() as stop:
        from pipeline.runs.mapping import run as runs_domain
        from pipeline.runs.planning.forecast import predictions
        from pipeline.runs.planning.plan import Only, make_plan

        campaign = load_campaign(config).on_cluster(cluster, scheduler)
        only = Only(failed=failed, missing=only_missing)
        planned = make_plan(campaign, domains=domain or (), tiles=tile or (), force=force, only=only)
        _print_stale(planned)
        if not planned.todo:
            runs_domain.run(planned)
            chosen = only != Only()
            console.print(f"nothing to do: every {'such ' if chosen else ''}tile is sealed and today's")
            return
        with progress_bar("run") as progress:
            ended = runs_domain.run(
                planned, workers=workers, listener=_run_listener(progress), stop=stop, predicted=predictions(planned)
            )
    for part in planned.domains:
        console.print(
            f"{part.name}: {sum(e.domain == part.name for e in ended)} tiles sealed in "
            f"{planned.settings.folder(part.name)}"
        )


@app.command(epilog="Example: landcover status campaign.yaml --watch")
def status(
    config: ConfigArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew until nobody is at work.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Count each domain's tiles by state, and say who is at work, how fast, and for how long still."""
    from pipeline.cli.status_table import show_json, show_table, watch_table
    from pipeline.runs.tracking.status import status as read_status

    campaign = load_campaign(config)
    if as_json:
        show_json(read_status(campaign))
    elif watch:
        watch_table(lambda: read_status(campaign))
    else:
        show_table(read_status(campaign))


@app.command(epilog="Example: landcover verify campaign.yaml --json verify.json")
def verify(
    config: ConfigArgument,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Read every COG, checksum and item again, and the national store; count class changes across edges.

    Fails when anything is wrong, or when a domain exceeds a limit of the campaign.
    """
    from pipeline.durable import write_json
    from pipeline.runs.quality.verify import verify as read_again

    with progress_bar("verify") as progress:
        verified = read_again(load_campaign(config), progress=progress)
    if json_file:
        write_json(json_file, verified.as_json())
        console.print(f"figures: {json_file}", soft_wrap=True)
    for d in verified.domains:
        console.print(
            f"{d.domain}: {d.tiles} tiles, {d.files} files read; {len(d.missing)} missing, {len(d.problems)} problems"
        )
    for kind, ratio in verified.metrics.seams.ratios.items():
        console.print(f"seams at {kind} edges: {ratio or 'there are none'}", highlight=False)
    if verified.borders:
        console.print(f"borders of domains, where another day's imagery begins: {verified.borders}", highlight=False)
    if verified.national is None:
        console.print("national: nothing published")
    else:
        console.print(f"national: {len(verified.national)} problems")
    if not verified.clean:
        problems = [f"{d.domain} {p}" for d in verified.domains for p in d.problems]
        for d in verified.domains:
            problems += [str(e) for e in d.exceeded]
            if any(e.figure == "missing_tiles" for e in d.exceeded):
                problems += [f"{d.domain} {name}: not sealed" for name in d.missing]
        raise VerifyFailed("not clean:\n  " + "\n  ".join([*problems, *(verified.national or ())]))


@app.command(epilog="Example: landcover report campaign.yaml --domain D034_2021")
def report(config: ConfigArgument, domain: DomainOption = None) -> None:
    """Write report.html into each domain's folder and the current edition: pages that need no other file.

    With --domain only those domains' pages are written.
    """
    from pipeline.runs.quality.write_reports import write_reports

    with progress_bar("report") as progress:
        pages = write_reports(load_campaign(config), domains=domain or (), progress=progress)
    for path in pages:
        console.print(f"report: {path}", soft_wrap=True)


@app.command(epilog="Example: landcover publish campaign.yaml")
def publish(
    config: ConfigArgument,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    scheduler: SchedulerOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until nobody else publishes, instead of an error.")] = False,
) -> None:
    """Publish what is sealed into a new edition of the national Zarr; what did not change is kept."""
    from pipeline.cli.editions import show_published
    from pipeline.runs.publishing.publish import publish as publish_edition

    with progress_bar("publish") as progress:
        campaign = load_campaign(config).on_cluster(cluster, scheduler)
        done = publish_edition(campaign, workers=workers, wait=wait, progress=progress)
    show_published(done)


def _print_plan(planned: "RunPlan", predicted: "Forecast", *, all_tiles: bool) -> None:
    _print_counts(planned)
    _print_worker(planned.settings)
    _print_reasons(planned, all_tiles=all_tiles)
    if planned.todo:
        for line in predicted.lines():
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_counts(planned: "RunPlan") -> None:
    from pipeline.runs.planning.plan import totals

    # Logs and pipes have 80 columns: headings may wrap there, a domain's name may not be cut.
    counts = ("tiles", "to do", "blocks", "windows", "to read", "to write", "files in", "files out")
    table = Table(Column("domain", no_wrap=True), *counts, box=None, pad_edge=False, collapse_padding=True)
    for d in planned.domains:
        t = totals(planned.settings, d)
        table.add_row(
            d.name,
            str(t.tiles),
            str(t.todo),
            str(t.blocks),
            str(t.windows),
            _size(t.read_bytes),
            f"≤ {_size(t.write_bytes)}",
            str(t.input_files),
            str(t.output_files),
        )
    console.print(table)


def _print_worker(s: "Settings") -> None:
    console.print(
        f"engine {s.engine.name} {s.engine.precision}, {s.engine_threads} threads a worker; core {s.layout.core}, halo "
        f"{s.layout.halo}, window {s.layout.window}: {s.layout.overlap_factor:.3f} × the pixels computed"
    )
    budgets = {"memory_bytes": s.campaign.cluster.memory_bytes}
    if s.memory.device:
        budgets["device_memory_bytes"] = s.campaign.cluster.device_memory_bytes
    allowed = ", ".join(
        f"no {key} given" if budget is None else f"{key} allows {budget / 1e9:.2f} GB"
        for key, budget in budgets.items()
    )
    console.print(f"a worker takes up to {s.memory}; {allowed}", markup=False, highlight=False)


def _print_stale(planned: "RunPlan") -> None:
    from pipeline.runs.planning.summary import stale_lines

    for line in stale_lines(planned):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_reasons(planned: "RunPlan", *, all_tiles: bool) -> None:
    from pipeline.runs.planning.summary import groups

    _print_stale(planned)
    for d in planned.domains:
        if d.inputs.limits:
            limits = ", ".join(d.inputs.limits)
            console.print(f"{d.name}: passes limits of the model's card, accepted: {limits}", markup=False)
        for group in groups(d):
            for line in group.lines(all_tiles=all_tiles):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        for p in d.todo:
            if p.failure:
                console.print(f"{d.name} {p.tile.name} failed last time: {p.failure}", markup=False, highlight=False)


def _size(count: int) -> str:
    """Bytes, for people: `24 MB`, `121 GB`."""
    return f"{count / 1e9:.0f} GB" if count >= 10e9 else f"{count / 1e6:.0f} MB"


def _run_listener(progress: Progress) -> "Callable[[RunStarted | TileEnded], None]":
    from pipeline.runs.mapping.run import RunStarted

    def listen(event: "RunStarted | TileEnded") -> None:
        if isinstance(event, RunStarted):
            progress.start(event.tiles)
            log.info("dashboard: %s", event.dashboard)
        elif event.error:
            log.error("%s %s failed: %s", event.domain, event.tile, event.error)
        else:
            rate = event.pixels / 1e6 / event.seconds
            log.info("%s %s sealed in %.1f s, %.2f Mpx/s", event.domain, event.tile, event.seconds, rate)
        if not isinstance(event, RunStarted):
            progress.advance()

    return listen
