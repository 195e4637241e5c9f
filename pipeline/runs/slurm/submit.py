"""Submits a campaign to SLURM: an array with one element per domain, and a publishing job that waits for all of them.

<campaign's folder>/jobs/<time>/map.sbatch, publish.sbatch, <job>.log
"""

import datetime as dt
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cluster.slurm import queue
from pipeline.cluster.slurm.cluster_nodes import check_request, read_nodes
from pipeline.cluster.slurm.script import JobRequest, complete_script
from pipeline.cluster.slurm.site import Site, load_site
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.durable import write_text
from pipeline.errors import ConfigError
from pipeline.runs.planning.forecast import Machine, forecast, rates_for
from pipeline.runs.planning.plan import DomainPlan, RunPlan, TileFilter, make_plan
from pipeline.runs.planning.totals import domain_totals
from pipeline.runs.slurm.requeue import reset_progress
from pipeline.runs.tracking.run_record import read_run_record

MAP, PUBLISH = "map.sbatch", "publish.sbatch"
_RUN_OPTIONS = "--cluster slurm"
"""Workers on all nodes of the job, one per GPU where there are GPUs."""
_TARGET_S = 4 * 3600
"""GPUs are added until a domain is expected to take no longer: short jobs wait less in queues."""
_MARGIN = 1.5
"""Forecasts are inexact. A job that ends early costs nothing; one that is stopped starts again."""
_ROUND_MIN = 10
_PUBLISH_S_A_TILE = 10
"""One core writes a shard of 25 000² px, both layers, in 6 s."""


@dataclass(frozen=True)
class JobOptions:
    """The user's options. None leaves the choice to the plan and the site."""

    project: str | None = None
    """The project whose hours are charged."""
    qos: str | None = None
    hours: float | None = None
    gpus: int | None = None
    """Per node."""
    only_missing: bool = False
    publish: bool = True


NO_OPTIONS = JobOptions()


@dataclass(frozen=True)
class Submission:
    """Job scripts, ready to be submitted."""

    folder: Path
    """For scripts and logs."""
    domains: tuple[Domain, ...]
    skipped: tuple[str, ...]
    """Why other domains of the campaign are not submitted, a sentence each."""
    request: JobRequest
    expected_s: float
    """Wall time of the largest domain."""
    scripts: tuple[tuple[str, str], ...]
    """(name, content): the mapping script, then the publishing one if the user wants it."""
    requests: tuple[tuple[Site, JobRequest], ...]
    """What each script asks for, and where."""


def campaign_on_site(site: Site, campaign: Campaign) -> Campaign:
    """The campaign with the engine of the site's nodes: `auto` is torch where jobs have GPUs, whatever plans them.

    Raises:
        ConfigError: windows would be chosen for GPUs without a limit of their memory.
    """
    on_gpus = bool(site.gpus_per_node) and campaign.engine != "openvino" and campaign.precision != "int8"
    if on_gpus and campaign.grid.auto and campaign.cluster.device_memory_bytes is None:
        raise ConfigError(
            f"grid: auto on the GPUs of cluster {site.name} needs cluster.device_memory_bytes, the memory of a "
            "GPU that a worker may take, such as 28_000_000_000 of 32 GB"
        )
    return campaign.model_copy(update={"engine": "torch"}) if on_gpus else campaign


def prepare(
    campaign: Campaign,
    config: Path,
    *,
    cluster: str,
    domains: Sequence[str] = (),
    options: JobOptions = NO_OPTIONS,
    queued: Sequence[queue.QueuedJob] = (),
) -> Submission:
    """Plans the campaign, sizes its jobs and completes the scripts. It writes and submits nothing.

    Args:
        campaign: as `load_campaign` returns it.
        config: its YAML file, which the jobs read when they start.
        cluster: a site's name or file.
        domains: names of some of its domains; all when empty.
        options: of the user.
        queued: jobs in the queue; a domain that has one is skipped.

    Raises:
        ConfigError: the site does not allow one of the options.
    """
    site = load_site(cluster)
    plan = make_plan(campaign_on_site(site, campaign), domains=domains, only=TileFilter(missing=options.only_missing))
    chosen, skipped = _choose(plan, {job.domain: job for job in queued})
    if len(chosen) > site.max_array:
        raise ConfigError(
            f"{len(chosen)} domains exceed the {site.max_array} that cluster {site.name} accepts at once; choose some "
            "with --domain"
        )
    folder = jobs_folder(config)
    names = tuple(d.name for d in chosen)
    request, expected_s = _size(plan, chosen, site, options)
    variables = {
        "CAMPAIGN": str(config.absolute()),
        "DOMAINS": " ".join(names),
        "RUN_OPTIONS": _RUN_OPTIONS + " --only-missing" * options.only_missing,
    }
    if not site.requeue:
        variables["RESUBMIT"] = str(folder / MAP)
    scripts, requests = [(MAP, complete_script(MAP, site, request, variables=variables))], [(site, request)]
    if options.publish:
        again = ["landcover", "submit", str(config), "--cluster", cluster, "--only-missing"]
        again += ["--account", options.project] if options.project else []
        there = load_site(site.publish) if site.publish else site
        tiles = sum(len(d.tiles) for d in plan.domains)
        publishing = one_node_request(f"landcover-{campaign.name}-publish", tiles, there, options)
        variables = {"CAMPAIGN": str(config.absolute()), "AGAIN": shlex.join(again)}
        scripts.append((PUBLISH, complete_script(PUBLISH, there, publishing, variables=variables)))
        requests.append((there, publishing))
    return Submission(folder, names, tuple(skipped), request, expected_s, tuple(scripts), tuple(requests))


def submit(submission: Submission, campaign: Campaign) -> tuple[str, ...]:
    """Checks the requests, writes the scripts and submits them. The publishing job waits until all domains have ended.

    The requests are compared with the nodes that the cluster has, then SLURM tests the scripts (`sbatch --test-only`),
    so a job that can never start is refused before anything is in the queue.

    Returns:
        The numbers of the jobs: of the array, then of the publishing job.

    Raises:
        ConfigError: a job could never start, or SLURM refuses. Nothing stays in the queue.
        StorageError: the folder cannot be written.
    """
    nodes = read_nodes()
    for site, request in submission.requests:
        check_request(site, request, nodes)
    for name, content in submission.scripts:
        write_text(submission.folder / name, content)
    for name, _ in submission.scripts:
        queue.check_script(submission.folder / name)
    for domain in submission.domains:
        reset_progress(campaign, domain)
    jobs: list[str] = []
    for name, _ in submission.scripts:
        # Singleton: the publishing job of an earlier submission of this campaign ends first.
        dependency = [f"--dependency=afterany:{jobs[0]},singleton"] if jobs else []
        try:
            jobs.append(queue.submit(submission.folder / name, dependency))
        except ConfigError:
            for job in jobs:
                queue.run_slurm("scancel", job, error=ConfigError)
            raise
    return tuple(jobs)


def _choose(plan: RunPlan, queued: Mapping[str, queue.QueuedJob]) -> tuple[list[DomainPlan], list[str]]:
    """The domains to submit, and why the others are skipped."""
    chosen, skipped = [], [f"{sentence}; it is skipped" for sentence in plan.damaged]
    for domain in plan.domains:
        if (job := queued.get(domain.name)) is not None:
            skipped.append(
                f"{domain.name} is skipped: job {job.job} maps it ({job.state}, {job.reason}). To replace the job, run "
                f"`scancel {job.job}` first"
            )
        elif not domain.todo:
            skipped.append(f"{domain.name} is skipped: all of its tiles are sealed")
        else:
            chosen.append(domain)
    return chosen, skipped


def _size(plan: RunPlan, domains: Sequence[DomainPlan], site: Site, options: JobOptions) -> tuple[JobRequest, float]:
    """The request of an element, sized for the largest domain; and the time that this domain is expected to take."""
    if options.gpus is not None and not 0 < options.gpus <= site.gpus_per_node:
        raise ConfigError(f"cluster {site.name} has {site.gpus_per_node} GPUs per node, found --gpus {options.gpus}")
    qos = options.qos or next(iter(site.qos), None)
    limit_h = site.limit_hours(qos)
    if options.hours is not None and not 0 < options.hours <= limit_h:
        under = f"QoS {qos}" if qos else f"cluster {site.name}"
        raise ConfigError(
            f"{under} allows up to {limit_h:g} h, found --hours {options.hours:g}; a job that does not finish in time "
            "continues by itself"
        )
    machine, expected_s = _smallest_machine(plan, domains, site, options)
    lead_s = _lead_s(plan, domains, site)
    predicted = math.ceil((_MARGIN * expected_s + lead_s) / 60 / _ROUND_MIN) * _ROUND_MIN
    minutes = max(1, math.floor(min(options.hours * 60 if options.hours else predicted, limit_h * 60)))
    campaign = plan.resolved.campaign
    request = JobRequest(
        f"landcover-{campaign.name}",
        site.account(options.project),
        qos,
        minutes,
        machine.cores,
        comment=queue.job_comment(campaign.output.domains, [d.name for d in domains]),
        array=f"0-{max(0, len(domains) - 1)}%{site.throttle}",
        log="%x-%A_%a.log",
        gpus=machine.gpus,
        nodes=machine.nodes,
        # A job must work for some time before its warning, however short it is.
        lead_s=min(lead_s, minutes * 30),
    )
    return request, expected_s


def _smallest_machine(
    plan: RunPlan, domains: Sequence[DomainPlan], site: Site, options: JobOptions
) -> tuple[Machine, float]:
    """The smallest part of the site that maps the largest domain in `_TARGET_S`, or all that one job may have."""
    counts = [options.gpus] if options.gpus else list(range(1, site.gpus_per_node + 1)) or [0]
    shapes = [(1, gpus) for gpus in counts] + [(nodes, counts[-1]) for nodes in range(2, site.max_nodes + 1)]
    for nodes, gpus in shapes:
        cores = gpus * site.cores_per_gpu if gpus else site.cores_per_node
        machine = Machine(site.name, nodes, cores, gpus, site.gpu or "")
        expected_s = max((_expected_s(plan, d, machine) for d in domains), default=0.0)
        if expected_s <= _TARGET_S:
            break
    return machine, expected_s


def _expected_s(plan: RunPlan, domain: DomainPlan, machine: Machine) -> float:
    rates = rates_for(plan.resolved, machine)
    return forecast(plan.resolved, domain_totals(plan.resolved, domain), rates, machine).wall_s


def _lead_s(plan: RunPlan, domains: Sequence[DomainPlan], site: Site) -> int:
    """Seconds from the warning to the time limit: the site's, or twice the longest tile in a run record."""
    records = (read_run_record(plan.resolved.campaign.product_folder(d.name)) for d in domains)
    longest_s = max((tile.seconds for record in records for tile in record.tiles), default=0.0)
    return math.ceil(max(site.lead_minutes * 60, 2 * longest_s))


def one_node_request(
    name: str,
    tiles: int,
    there: Site,
    options: JobOptions,
    *,
    tile_s: float = _PUBLISH_S_A_TILE,
    shared: bool = False,
) -> JobRequest:
    """The cores of one node, or those that come with one GPU, for as long as reading or writing all tiles takes.

    Args:
        name: of the job.
        tiles: number of tiles of the campaign.
        there: where the job runs.
        options: of the user; hours and GPUs are those of the mapping jobs.
        tile_s: seconds that one core works for a tile.
        shared: whether all cores share the tiles.
    """
    qos = next(iter(there.qos), None)
    cores = there.cores_per_gpu if there.gpus_per_node else there.cores_per_node
    minutes = 10 + math.ceil(tiles * tile_s / (cores if shared else 1) / 60)
    return JobRequest(
        name=name,
        # The hours of the same project, on the machine that publishes.
        account=there.account(options.project.partition("@")[0] if options.project else None),
        qos=qos,
        minutes=min(minutes, math.floor(there.limit_hours(qos) * 60)),
        cores=cores,
        gpus=1 if there.gpus_per_node else 0,
    )


def jobs_folder(config: Path) -> Path:
    """A new folder for scripts and logs beside the campaign, named after this second."""
    return config.absolute().parent / "jobs" / dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S")
