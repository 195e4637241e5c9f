"""The commands `status`, `submit` and `requeue`: how far a campaign is, and a campaign on a SLURM cluster."""

import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from pipeline.cli import options
from pipeline.cli.help import app, argument, command, option
from pipeline.cli.output import cell, console, count, log, number_table, print_json, say, say_next, shown
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.errors import ConfigError, RunFailed

if TYPE_CHECKING:
    from pipeline.runs.slurm.submit import Submission
    from pipeline.runs.tracking.status import DomainStatus

_REFRESH_S = 5.0

SiteOption = Annotated[
    str,
    option(
        "--cluster NAME|FILE",
        "A name under configs/clusters, or such a YAML file.",
        autocompletion=options.complete_clusters,
    ),
]
PublishOption = Annotated[
    bool, option("--publish/--no-publish", "Add a job that publishes after all others have ended.")
]
StepOption = Annotated[
    Literal["map", "publish", "generalise", "vectorize", "verify", "report", "change", "evaluate", "calibrate"] | None,
    option(
        "--step STEP",
        "Submit only this step: map, publish, generalise, vectorize, verify, report, change, evaluate or calibrate. By "
        "default map, and publish after it.",
    ),
]
WordsArgument = Annotated[
    list[str] | None, argument("-- WORDS", "With --step evaluate or calibrate: what follows this command.")
]
DryRunOption = Annotated[bool, option("--dry-run", "Show the job scripts without submitting or asking SLURM anything.")]


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
        print_json([state.as_json() for state in read_status(campaign)])
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
            live.update(Group(_table(states), *map(cell, _remarks(states))), refresh=True)
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
            why = f" ({s.queued.meaning})" if s.queued.meaning else ""
            lines.append(f"{s.domain}: SLURM job {s.queued.job} is {s.queued.state}: {s.queued.reason}{why}")
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


@command(
    "landcover submit campaign.yaml --cluster generic --dry-run",
    "landcover submit campaign.yaml --cluster jean-zay-a100 --account xxx",
    "landcover submit campaign.yaml --cluster generic --step report",
    "landcover submit campaign.yaml --cluster generic --step evaluate -- \\\n"
    "    products/D034_2021 --reference truth.gpkg --field class --out scores",
)
def submit(
    config: options.Config,
    *,
    words: WordsArgument = None,
    cluster: SiteOption,
    account: Annotated[str | None, option("--account NAME", "The project whose hours are charged.")] = None,
    domain: options.Domains = None,
    only_missing: options.OnlyMissing = False,
    qos: Annotated[str | None, option("--qos NAME", "One of the QoS that the cluster's file lists.")] = None,
    hours: Annotated[float | None, option("--hours N", "Time limit of a job, instead of the predicted one.")] = None,
    gpus: Annotated[int | None, option("--gpus N", "GPUs per node, instead of the predicted number.")] = None,
    publish: PublishOption = True,
    step: StepOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Submit a campaign to SLURM, one job per domain.

    A last job publishes. A job that reaches its time limit goes back into the queue until its domain is mapped.
    Domains that already have a job in the queue are skipped.
    """
    campaign = options.open_campaign(config, domain)
    if not dry_run and shutil.which("sbatch") is None:
        raise ConfigError(
            "SLURM is not installed here: there is no command sbatch. Submit from a login node of the cluster; "
            "--dry-run shows the job scripts anywhere"
        )
    from pipeline.runs.slurm.submit import JobOptions, prepare

    _check_words(step, words or [])
    publish = publish and step is None
    job_options = JobOptions(account, qos, hours, gpus, only_missing=only_missing, publish=publish)
    if step is None or step == "map":
        from pipeline.cluster.slurm.queue import queued_jobs

        queued = () if dry_run else queued_jobs(campaign.output.domains)
        prepared = prepare(campaign, config, cluster=cluster, domains=domain or (), options=job_options, queued=queued)
        for sentence in prepared.skipped:
            log.info("%s", sentence)
        if not prepared.domains:
            say("nothing to submit")
            return
    elif domain or only_missing or qos or gpus:
        raise ConfigError(f"--step {step} takes no --domain, --only-missing, --qos or --gpus: mapping jobs do")
    else:
        from pipeline.runs.slurm.step import prepare_step

        prepared = prepare_step(campaign, config, step, cluster=cluster, words=words or (), options=job_options)
    _show_request(prepared)
    _submit(prepared, campaign, config, dry_run=dry_run)


def _check_words(step: str | None, words: list[str]) -> None:
    """Reads the words after `--` as their command would, so that a wrong one is refused before the job waits."""
    if step in ("evaluate", "calibrate"):
        if not words:
            raise ConfigError(f"--step {step} needs what follows `landcover {step}`, after --; see its --help")
        landcover: Any = typer.main.get_command(app)
        landcover.commands[step].make_context(f"landcover {step}", list(words))
    elif words:
        raise ConfigError(f"{shlex.join(words)}: only --step evaluate and --step calibrate take words after --")


def _show_request(prepared: "Submission") -> None:
    """The resources of each job, or of the single one."""
    r = prepared.request
    size = f"{count(r.nodes, 'node')} with {count(r.cores, 'core')}"
    size += f" and {count(r.gpus, 'GPU')}" if r.gpus else ""
    if not prepared.domains:
        say(f"one job: {size}, up to {r.minutes} min")
        return
    from pipeline.runs.planning.forecast import duration

    say(f"{count(len(prepared.domains), 'domain')}, one job each: {', '.join(prepared.domains)}")
    say(f"each job: {size}, up to {r.minutes} min, warned {r.lead_s} s before its end")
    say(f"predicted time of the largest domain: {duration(prepared.expected_s)}")


def _submit(prepared: "Submission", campaign: Campaign, config: Path, *, dry_run: bool) -> None:
    """Submits the jobs, or shows their scripts."""
    from pipeline.runs.slurm.submit import submit as submit_jobs

    if dry_run:
        for name, content in prepared.scripts:
            console.rule(name)
            for line in content.splitlines():
                say(line)
        say("dry run: nothing was submitted")
        return
    for job, (name, _) in zip(submit_jobs(prepared, campaign), prepared.scripts, strict=True):
        say(f"job {job}: {shown(prepared.folder / name)}")
    say(f"logs: {shown(prepared.folder)}/*.log")
    say_next("status", config)


@command("landcover requeue campaign.yaml --domain D034_2021 --exit-code 5", hidden=True)
def requeue(
    config: options.Config,
    domain: options.OneDomain,
    exit_code: Annotated[int, option("--exit-code N", "The exit code of `landcover run` in this job.")],
    resubmit: Annotated[
        Path | None,
        option(
            "--resubmit FILE",
            "The job's script, to be submitted again on clusters that do not allow requeueing.",
            envvar="RESUBMIT",
        ),
    ] = None,
) -> None:
    """Put the current job back into the queue (job scripts call this).

    Only if its run left tiles to map and made progress; otherwise the job ends with the run's exit code.
    """
    from pipeline.runs.slurm.requeue import RESTART_CODES, restart_job

    if exit_code not in RESTART_CODES:
        raise typer.Exit(exit_code)
    job = restart_job(options.open_campaign(config), Domain(domain), resubmit=resubmit)
    say(f"{domain}: tiles are left to map; job {job} continues")
