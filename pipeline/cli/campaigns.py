"""Commands that take a campaign: plan, run, status, verify, report and publish."""

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
    from pipeline.runs.mapping.events import OnEvent, RunStarted, TileEnded
    from pipeline.runs.planning.forecast import Forecast
    from pipeline.runs.planning.plan import RunPlan
    from pipeline.runs.planning.resolved_campaign import ResolvedCampaign

app = typer.Typer()


@app.command(epilog="Example: landcover plan campaign.yaml --domain D034_2021")
def plan(
    config: ConfigArgument,
    domain: DomainOption = None,
    tile: TileOption = None,
    force: ForceOption = False,
    failed: FailedOption = False,
    only_missing: MissingOption = False,
    all_tiles: Annotated[bool, typer.Option("--tiles", help="Print a line for each tile to map.")] = False,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Predict for this many nodes.")] = 1,
    cores: Annotated[
        int | None, typer.Option("--cores", min=1, help="Cores per node; by default this machine's.")
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=0, help="GPUs per node; by default this machine's.")] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="The GPU's model, such as a100.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the plan to this file.")] = None,
) -> None:
    """Show what a run would do and why, and predict its resources. Nothing is computed.

    Speeds were measured by `landcover bench`, or are stated ones; the output names the source of each.
    """
    from pipeline.durable import write_json
    from pipeline.runs.planning.forecast import described_machine, forecast, rates_for
    from pipeline.runs.planning.plan import TileFilter, make_plan
    from pipeline.runs.planning.summary import plan_as_json
    from pipeline.runs.planning.throughput import read_rates
    from pipeline.runs.planning.totals import plan_totals

    only = TileFilter(failed=failed, missing=only_missing)
    planned = make_plan(load_campaign(config), domains=domain or (), tiles=tile or (), force=force, only=only)
    resolved = planned.resolved
    machine = described_machine(resolved, nodes=nodes, cores=cores, gpus=gpus, gpu=gpu)
    rates = rates_for(resolved, machine, measured=read_rates())
    predicted = forecast(resolved, plan_totals(planned), rates, machine)
    _print_plan(planned, predicted, all_tiles=all_tiles)
    if json_file:
        write_json(json_file, plan_as_json(planned, predicted))
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
    """Map the tiles that are not up to date, and seal each. Run it again after an interruption.

    After SIGUSR1, SIGTERM or Ctrl-C it seals the tiles in flight and ends with exit code 5. A second Ctrl-C ends it
    at once.
    """
    from pipeline.runs.mapping.shutdown import stop_on_signals

    # Before the slow imports: an early warning must not end the process.
    with stop_on_signals() as stop:
        from pipeline.runs.mapping.run import run as run_plan
        from pipeline.runs.planning.forecast import forecast_domains
        from pipeline.runs.planning.plan import ALL_TILES, TileFilter, make_plan

        campaign = load_campaign(config).on_cluster(cluster, scheduler)
        only = TileFilter(failed=failed, missing=only_missing)
        planned = make_plan(campaign, domains=domain or (), tiles=tile or (), force=force, only=only)
        _print_stale(planned)
        if not planned.todo:
            run_plan(planned)
            console.print(f"nothing to do: all {'such ' if only != ALL_TILES else ''}tiles are sealed and up to date")
            return
        with progress_bar("run") as progress:
            sealed = run_plan(
                planned,
                workers=workers,
                on_event=_log_events(progress),
                stop=stop,
                predicted=forecast_domains(planned),
            )
    for part in planned.domains:
        count = sum(event.domain == part.name for event in sealed)
        console.print(f"{part.name}: {count} tiles sealed in {campaign.product_folder(part.name)}")


@app.command(epilog="Example: landcover status campaign.yaml --watch")
def status(
    config: ConfigArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Update the table until no run is at work.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Count each domain's tiles by state, and show the present run, its speed and the time left."""
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

    Fails when anything is wrong, or when a domain passes a limit of the campaign.
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
    for kind, ratio in verified.figures.seams.ratios.items():
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
    from pipeline.runs.quality.report import report as write_reports

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
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another publish is running; otherwise this is an error.")
    ] = False,
) -> None:
    """Publish the sealed tiles as a new edition of the national Zarr. Unchanged shards are linked."""
    from pipeline.cli.editions import show_published
    from pipeline.runs.publishing.publish import publish as publish_edition

    with progress_bar("publish") as progress:
        campaign = load_campaign(config).on_cluster(cluster, scheduler)
        done = publish_edition(campaign, workers=workers, wait=wait, progress=progress)
    show_published(done)


def _print_plan(planned: "RunPlan", predicted: "Forecast", *, all_tiles: bool) -> None:
    _print_counts(planned)
    _print_worker(planned.resolved)
    _print_reasons(planned, all_tiles=all_tiles)
    if planned.todo:
        for line in predicted.lines():
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_counts(planned: "RunPlan") -> None:
    from pipeline.runs.planning.totals import domain_totals

    # Logs and pipes have 80 columns: headings may wrap there, but the name of a domain must not be cut.
    counts = ("tiles", "to do", "blocks", "windows", "to read", "to write", "files in", "files out")
    table = Table(Column("domain", no_wrap=True), *counts, box=None, pad_edge=False, collapse_padding=True)
    for d in planned.domains:
        t = domain_totals(planned.resolved, d)
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


def _print_worker(s: "ResolvedCampaign") -> None:
    console.print(
        f"engine {s.engine.name} {s.engine.precision}, {s.engine_threads} threads per worker; core {s.layout.core}, "
        f"halo {s.layout.halo}, window {s.layout.window}: {s.layout.overlap_factor:.3f} × the map's pixels are computed"
    )
    budgets = {"memory_bytes": s.campaign.cluster.memory_bytes}
    if s.memory.device:
        budgets["device_memory_bytes"] = s.campaign.cluster.device_memory_bytes
    allowed = ", ".join(
        f"no {key} is set" if budget is None else f"{key} allows {budget / 1e9:.2f} GB"
        for key, budget in budgets.items()
    )
    console.print(f"a worker needs up to {s.memory}; {allowed}", markup=False, highlight=False)


def _print_stale(planned: "RunPlan") -> None:
    from pipeline.runs.planning.summary import stale_lines

    for line in stale_lines(planned):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_reasons(planned: "RunPlan", *, all_tiles: bool) -> None:
    from pipeline.runs.planning.summary import group_by_reason

    _print_stale(planned)
    for d in planned.domains:
        if d.inputs.limits:
            limits = ", ".join(d.inputs.limits)
            console.print(
                f"{d.name}: exceeds limits of the model's card, which the campaign accepts: {limits}", markup=False
            )
        for group in group_by_reason(d):
            for line in group.lines(all_tiles=all_tiles):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        for p in d.todo:
            if p.failure:
                console.print(f"{d.name} {p.tile.name} failed last time: {p.failure}", markup=False, highlight=False)


def _size(count: int) -> str:
    """Bytes, for people: `24 MB`, `121 GB`."""
    return f"{count / 1e9:.0f} GB" if count >= 10e9 else f"{count / 1e6:.0f} MB"


def _log_events(progress: Progress) -> "OnEvent":
    """A callback that logs each event and moves the progress bar."""
    from pipeline.runs.mapping.events import RunStarted

    def on_event(event: "RunStarted | TileEnded") -> None:
        if isinstance(event, RunStarted):
            progress.start(event.tiles)
            log.info("dashboard: %s", event.dashboard)
            return
        progress.advance()
        if event.error:
            log.error("%s %s failed: %s", event.domain, event.tile, event.error)
        else:
            speed = event.pixels / 1e6 / event.seconds
            log.info("%s %s sealed in %.1f s, %.2f Mpx/s", event.domain, event.tile, event.seconds, speed)

    return on_event
