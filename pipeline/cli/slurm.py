"""Commands for SLURM clusters: submit, requeue and doctor."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from pipeline.cli.options import ConfigArgument, DomainOption, MissingOption, console, log
from pipeline.config import load_campaign
from pipeline.domain import Domain
from pipeline.errors import MachineError

if TYPE_CHECKING:
    from pipeline.runs.slurm.submit import Submission

app = typer.Typer()


@app.command(epilog="Example: landcover submit campaign.yaml --cluster jean-zay-a100 --account xxx --dry-run")
def submit(
    config: ConfigArgument,
    *,
    cluster: Annotated[
        str, typer.Option("--cluster", help="A name in configs/clusters, or the path of such a YAML file.")
    ],
    account: Annotated[str | None, typer.Option("--account", help="The project whose hours are charged.")] = None,
    domain: DomainOption = None,
    only_missing: MissingOption = False,
    qos: Annotated[str | None, typer.Option("--qos", help="A quality of service (QoS) of the cluster's file.")] = None,
    hours: Annotated[float | None, typer.Option("--hours", help="Hours of a job, instead of the plan's.")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", help="GPUs per node, instead of the plan's.")] = None,
    publish: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Publish when all domains have ended.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the job scripts; submit nothing.")] = False,
) -> None:
    """Submit a campaign to SLURM: a job per domain, restarted until the domain is mapped, then a publishing job.

    A domain that already has a job is skipped. A dry run does not contact SLURM.
    """
    from pipeline.cluster.slurm.queue import queued_jobs
    from pipeline.runs.slurm.submit import JobOptions, prepare
    from pipeline.runs.slurm.submit import submit as submit_jobs

    campaign = load_campaign(config)
    options = JobOptions(account, qos, hours, gpus, only_missing=only_missing, publish=publish)
    queued = () if dry_run else queued_jobs(campaign.output.domains)
    prepared = prepare(campaign, config, cluster=cluster, domains=domain or (), options=options, queued=queued)
    for sentence in prepared.skipped:
        log.info("%s", sentence)
    if not prepared.domains:
        console.print("nothing to submit")
        return
    _print_submission(prepared)
    if dry_run:
        for name, content in prepared.scripts:
            console.rule(name)
            console.print(content, markup=False, highlight=False, soft_wrap=True)
        return
    jobs = submit_jobs(prepared, campaign)
    for job, (name, _) in zip(jobs, prepared.scripts, strict=True):
        console.print(f"job {job}: {prepared.folder / name}", soft_wrap=True, highlight=False)
    console.print(f"logs: {prepared.folder}/*.log; `landcover status {config}` shows the progress", soft_wrap=True)


@app.command(epilog="Example: landcover requeue campaign.yaml --domain D034_2021 --exit-code 5")
def requeue(
    config: ConfigArgument,
    *,
    domain: Annotated[str, typer.Option("--domain", help="The domain that this job maps.")],
    exit_code: Annotated[int, typer.Option("--exit-code", help="Exit code of `landcover run`.")],
    resubmit: Annotated[
        Path | None,
        typer.Option(
            "--resubmit", envvar="RESUBMIT", help="The job's script: submitted again on sites that forbid requeueing."
        ),
    ] = None,
) -> None:
    """Used by job scripts: put this job back into the queue if its run has more to do and makes progress."""
    from pipeline.runs.slurm.requeue import RESTART_CODES, restart_job

    if exit_code not in RESTART_CODES:
        raise typer.Exit(exit_code)
    job = restart_job(load_campaign(config), Domain(domain), resubmit=resubmit)
    console.print(f"{domain}: more tiles are to be mapped; job {job} continues")


@app.command(epilog="Example: landcover doctor campaign.yaml --json doctor.json")
def doctor(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="The campaign's YAML file.", show_default=False)
    ] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", help="Also write the results to doctor.json beside this domain's product.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results to this file.")] = None,
) -> None:
    """Check this machine: packages, GDAL, GPUs and SLURM; with a campaign also its weights, engine and disks.

    On a login node it also downloads weights from a hub into the cache that the compute nodes read.
    """
    from pipeline.durable import write_json
    from pipeline.runs.diagnostics.doctor import DOCTOR_FILE, diagnose

    campaign = load_campaign(config) if config else None
    diagnosis = diagnose(campaign)
    files = [json_file] if json_file else []
    if campaign and domain:
        files.append(campaign.product_folder(campaign.domain(domain).name) / DOCTOR_FILE)
    for file in files:
        write_json(file, diagnosis.as_json())
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table("", "check", Column("found", overflow="fold"), "how to fix it", box=None)
    for c in diagnosis.checks:
        table.add_row(f"[{colours[c.state]}]{c.state}[/]", c.name, c.found, c.remedy)
    console.print(table)
    if diagnosis.failed:
        failed = ", ".join(check.name for check in diagnosis.failed)
        raise MachineError(f"these checks failed on {diagnosis.host}: {failed}; the table shows how to fix them")


def _print_submission(prepared: "Submission") -> None:
    from pipeline.runs.planning.forecast import duration

    r = prepared.request
    size = f"{r.nodes} × {r.cores} cores" + (f" and {r.gpus} GPUs" if r.gpus else "")
    say = partial(console.print, soft_wrap=True, highlight=False)
    say(f"{len(prepared.domains)} domains, one job each: {', '.join(prepared.domains)}")
    say(f"a job has {size} for up to {r.minutes} min, and is warned {r.lead_s} s before its end")
    say(f"the largest domain is expected to take {duration(prepared.expected_s)}")
