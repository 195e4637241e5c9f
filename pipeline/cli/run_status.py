"""The commands `run` and `status`: map a campaign, and see how far it is."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.cli import options
from pipeline.cli.help import command, option
from pipeline.cli.output import console, count, log, number_table, progress_bar, say, say_next, shown
from pipeline.cli.plan import show_nothing_to_do, show_stale
from pipeline.errors import RunFailed
from pipeline.progress import Progress

if TYPE_CHECKING:
    from pipeline.runs.mapping.events import OnEvent, RunStarted, TileEnded
    from pipeline.runs.tracking.status import DomainStatus

_REFRESH_S = 5.0


@command(
    "landcover run campaign.yaml --domain D034_2021 --workers 2",
    "landcover run campaign.yaml --failed",
)
def run(
    config: options.Config,
    domain: options.Domains = None,
    tile: options.Tiles = None,
    force: options.Force = False,
    failed: options.Failed = False,
    only_missing: options.OnlyMissing = False,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    scheduler: options.Scheduler = None,
) -> None:
    """Map all tiles that are not mapped yet or no longer up to date.

    After an interruption run the same command again: sealed tiles are kept. Ctrl-C, SIGTERM or SIGUSR1 stop the run
    with exit code 5 once the tiles in flight are sealed; a second Ctrl-C stops it at once.
    """
    from pipeline.runs.mapping.shutdown import stop_on_signals

    # Before the slow imports: a signal during them must stop the run in order, not kill the process.
    with stop_on_signals() as stop:
        campaign = options.open_campaign(config, domain, tile).on_cluster(cluster, scheduler)
        from pipeline.runs.mapping.run import run as run_plan
        from pipeline.runs.planning.forecast import forecast_domains
        from pipeline.runs.planning.plan import ALL_TILES, TileFilter, make_plan

        only = TileFilter(failed=failed, missing=only_missing)
        planned = make_plan(campaign, domains=domain or (), tiles=tile or (), force=force, only=only)
        show_stale(planned)
        if not planned.todo:
            run_plan(planned)
            show_nothing_to_do(chosen=only != ALL_TILES)
            return
        with progress_bar("run") as progress:
            ended = run_plan(
                planned,
                workers=workers,
                on_event=_log_events(progress),
                stop=stop,
                predicted=forecast_domains(planned),
            )
    for part in planned.domains:
        sealed = count(sum(e.domain == part.name for e in ended), "tile")
        say(f"{part.name}: {sealed} sealed in {shown(campaign.product_folder(part.name))}")
    say_next("verify", config)


def _log_events(progress: Progress) -> "OnEvent":
    from pipeline.runs.mapping.events import RunStarted

    def on_event(event: "RunStarted | TileEnded") -> None:
        if isinstance(event, RunStarted):
            progress.start(event.tiles)
            log.info("Dask dashboard: %s", event.dashboard)
            return
        if event.error:
            log.error("%s %s failed: %s", event.domain, event.tile, event.error)
        else:
            rate = event.pixels / 1e6 / event.seconds
            log.info("%s %s sealed in %.1f s, %.2f Mpx/s", event.domain, event.tile, event.seconds, rate)
        progress.advance()

    return on_event


@command("landcover status campaign.yaml --watch")
def status(
    config: options.Config,
    watch: Annotated[bool, option("--watch", "Refresh the table every few seconds until no run is active.")] = False,
    as_json: Annotated[bool, option("--json", "Print JSON instead of a table.")] = False,
) -> None:
    """Count each domain's tiles by state, with speed and time left.

    Sealed tiles are complete. Suspect tiles made several workers crash; damaged tiles were sealed, but their files
    are gone or changed.
    """
    campaign = options.open_campaign(config)
    from pipeline.runs.tracking.status import status as read_status

    if as_json:
        console.print_json(data=[state.as_json() for state in read_status(campaign)])
        return
    states = _watch(lambda: read_status(campaign)) if watch else read_status(campaign)
    if not watch:
        console.print(_table(states))
        for line in _remarks(states):
            say(line)
    _show_next(config, states)
    if damaged := [f"{s.domain}: {s.problem}" for s in states if s.problem]:
        raise RunFailed("\n  ".join(["these domains cannot be read:", *damaged]))


def _watch(read: "Callable[[], Sequence[DomainStatus]]") -> "Sequence[DomainStatus]":
    """Refreshes the table until no run is active; returns the last states."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            states = read()
            live.update(Group(_table(states), *map(Text, _remarks(states))), refresh=True)
            if all(state.done for state in states):
                return states
            time.sleep(_REFRESH_S)


def _table(states: "Sequence[DomainStatus]") -> Table:
    groups = ("sealed", "in flight", "failed", "suspect", "damaged", "missing")
    rows = ((s.domain, *(len(getattr(s, group.replace(" ", "_"))) for group in groups), *_speed(s)) for s in states)
    return number_table(("domain", *groups, "Mpx/s", "time", "left"), rows)


def _remarks(states: "Sequence[DomainStatus]") -> list[str]:
    """Who maps each domain, the predicted time, and a line for each tile that failed."""
    lines = []
    for s in states:
        if s.owner:
            lines.append(f"{s.domain} is being mapped by {s.owner}" + ("" if s.queued else _job(s)))
        if s.queued:
            lines.append(f"{s.domain}: SLURM job {s.queued.job} is {s.queued.state}: {s.queued.reason}")
        if s.speed and s.speed.predicted_s:
            lines.append(f"{s.domain}: {_clock(s.speed.seconds)} elapsed, {_clock(s.speed.predicted_s)} predicted")
        lines += [f"{s.domain} {tile} failed: {cause}" for tile, cause in s.failed]
        lines += [f"{s.domain} {tile} is suspect: {cause}" for tile, cause in s.suspect]
    return lines


def _speed(state: "DomainStatus") -> tuple[str, str, str]:
    """Speed, time taken, and time left."""
    speed = state.speed
    if speed is None:
        return ("", "", "")
    left = _clock(speed.left_s) if state.owner and speed.left_s is not None else ""
    return (f"{speed.mpx_per_s:.2f}", _clock(speed.seconds), left)


def _job(state: "DomainStatus") -> str:
    if state.job is None:
        return ""
    reason = f", {state.job.reason}" if state.job.reason not in ("", "None") else ""
    return f": {state.job.state}{reason}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _show_next(config: Path, states: "Sequence[DomainStatus]") -> None:
    """The command to run next, where no run is active."""
    if any(not state.done for state in states):
        return
    if any(state.missing or state.damaged for state in states):
        say_next("run", config)
    elif any(state.failed or state.suspect for state in states):
        say_next("run", config, "--failed")
    else:
        say_next("verify", config)
