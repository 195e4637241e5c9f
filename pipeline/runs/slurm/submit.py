"""A campaign to SLURM: one array element a domain, and a publishing job that waits for all of them.

<campaign's folder>/jobs/<time>/map.sbatch, publish.sbatch, <job>.log
"""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cluster.slurm import queue
from pipeline.cluster.slurm.script import Request, fill_in
from pipeline.cluster.slurm.site import Site, load_site
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.durable import replacing
from pipeline.errors import ConfigError
from pipeline.runs.planning.forecast import Machine, forecast, rates_for
from pipeline.runs.planning.plan import DomainPlan, Only, RunPlan, make_plan, totals
from pipeline.runs.planning.throughput import read_rates
from pipeline.runs.slurm import requeue
from pipeline.runs.tracking.run_record import read_run

MAP, PUBLISH = "map.sbatch", "publish.sbatch"
_RUN_OPTIONS = "--cluster slurm"
"""Workers on all nodes of the job, one a GPU where there are some."""
_AIM_S = 4 * 3600
"""GPUs are added until a domain is expected to take no more: short jobs wait less in queues."""
_MARGIN = 1.5
"""Forecasts are wrong; a job that ends early costs nothing, one that is stopped starts again."""
_ROUND_MIN = 10
_PUBLISH_S_A_TILE = 10
"""A shard of 25 000² px is written in 6 s on one core, both layers."""


@dataclass(frozen=True)
class Wishes:
    """What a user chose; None and 0 leave it to the plan and the site."""

    project: str | None = None
    """Whose hours are charged."""
    qos: str | None = None
    hours: float | None = None
    gpus: int | None = None
    """Of a node."""
    only_missing: bool = False
    publish: bool = True


NO_WISHES = Wishes()


@dataclass(frozen=True)
class Submission:
    """Job scripts, ready to be submitted."""

    folder: Path
    """Where scripts and logs go."""
    domains: tuple[Domain, ...]
    skipped: tuple[str, ...]
    """Why domains of the campaign are not submitted, in sentences."""
    request: Request
    expected_s: float
    """Wall time of the largest domain."""
    scripts: tuple[tuple[str, str], ...]
    """(name, content): the mapping script, then the publishing one where it is wanted."""


def campaign_for(site: Site, campaign: Campaign) -> Campaign:
    """The campaign as the site's nodes will read it: `auto` is torch where jobs have GPUs, whatever plans."""
    on_gpus = bool(site.gpus_per_node) and campaign.engine == "auto" and campaign.precision != "int8"
    return campaign.model_copy(update={"engine": "torch"}) if on_gpus else campaign


def prepare(
    campaign: Campaign,
    config: Path,
    *,
    cluster: str,
    domains: Sequence[str] = (),
    wishes: Wishes = NO_WISHES,
    taken: Sequence[queue.Queued] = (),
) -> Submission:
    """Plans, sizes and fills in the job scripts; writes and submits nothing.

    Args:
        campaign: as `load_campaign` gives it.
        config: its YAML, which the jobs read again when they start.
        cluster: a site's name or file.
        domains: names of some of its domains; all when empty.
        wishes: what the user chose.
        taken: jobs of the queue; a domain that has one is left to it.

    Raises:
        ConfigError: what is wished is not what the site allows.
    """
    site = load_site(cluster)
    plan = make_plan(campaign_for(site, campaign), domains=domains, only=Only(missing=wishes.only_missing))
    chosen, skipped = _choose(plan, {job.domain: job for job in taken})
    if len(chosen) > site.max_array:
        raise ConfigError(
            f"{len(chosen)} domains; cluster {site.name} takes {site.max_array} at once: name some --domain"
        )
    folder = config.absolute().parent / "jobs" / dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S")
    names = tuple(d.name for d in chosen)
    request, expected_s = _size(plan, chosen, site, wishes)
    request = replace(
        request,
        name=f"landcover-{campaign.name}",
        comment=queue.comment(campaign.output.domains, names),
        array=f"0-{max(0, len(names) - 1)}%{site.throttle}",
        log="%x-%A_%a.log",
    )
    variables = {
        "CAMPAIGN": str(config.absolute()),
        "DOMAINS": " ".join(names),
        "RUN_OPTIONS": _RUN_OPTIONS + " --only-missing" * wishes.only_missing,
    }
    if not site.requeue:
        variables["RESUBMIT"] = str(folder / MAP)
    scripts = [(MAP, fill_in(MAP, site, request, variables=variables))]
    if wishes.publish:
        again = f"landcover submit {config} --cluster {cluster} --only-missing"
        again += f" --account {wishes.project}" if wishes.project else ""
        scripts.append((PUBLISH, _publishing_script(plan, site, wishes, config=config, again=again)))
    return Submission(folder, names, tuple(skipped), request, expected_s, tuple(scripts))


def submit(submission: Submission, campaign: Campaign) -> tuple[str, ...]:
    """Writes the scripts and submits them; the publishing job waits for the end of all domains.

    Returns:
        The jobs' numbers: the array's, then the publishing one's.

    Raises:
        ConfigError: SLURM refuses; the message is its own, and nothing stays queued.
        StorageError: the folder cannot be written.
    """
    for name, content in submission.scripts:
        with replacing(submission.folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    for domain in submission.domains:
        requeue.begin(campaign, domain)
    jobs: list[str] = []
    for name, _ in submission.scripts:
        # Singleton: the publishing job of another submission of this campaign ends first.
        waits = [f"--dependency=afterany:{jobs[0]},singleton"] if jobs else []
        try:
            jobs.append(queue.submit(submission.folder / name, waits))
        except ConfigError:
            for job in jobs:
                queue.cancel(job)
            raise
    return tuple(jobs)


def _choose(plan: RunPlan, taken: Mapping[str, queue.Queued]) -> tuple[list[DomainPlan], list[str]]:
    """The domains to submit, and why the others are not."""
    chosen, skipped = [], []
    for domain in plan.domains:
        if (job := taken.get(domain.name)) is not None:
            skipped.append(f"{domain.name}: job {job.job} has it ({job.state}, {job.reason}); scancel {job.job} first")
        elif not domain.todo:
            skipped.append(f"{domain.name}: nothing to do")
        else:
            chosen.append(domain)
    return chosen, skipped


def _size(plan: RunPlan, domains: Sequence[DomainPlan], site: Site, wishes: Wishes) -> tuple[Request, float]:
    """Nodes, GPUs, cores and time of one element, by the largest domain; and the time that it is expected to take."""
    if wishes.gpus is not None and not 0 < wishes.gpus <= site.gpus_per_node:
        raise ConfigError(f"cluster {site.name} has {site.gpus_per_node} GPUs a node, got --gpus {wishes.gpus}")
    qos = wishes.qos or next(iter(site.qos), None)
    limit_h = site.limit_hours(qos)
    if wishes.hours is not None and not 0 < wishes.hours <= limit_h:
        under = f"QoS {qos}" if qos else f"cluster {site.name}"
        raise ConfigError(
            f"{under} allows up to {limit_h:g} h, got --hours {wishes.hours:g}; "
            "a job that has more to do goes on by itself"
        )
    machine, expected_s = _smallest(plan, domains, site, wishes)
    lead_s = _lead_s(plan, domains, site)
    predicted = math.ceil((_MARGIN * expected_s + lead_s) / 60 / _ROUND_MIN) * _ROUND_MIN
    minutes = max(1, math.floor(min(wishes.hours * 60 if wishes.hours else predicted, limit_h * 60)))
    request = Request(
        "",
        site.account(wishes.project),
        qos,
        minutes,
        machine.cores,
        gpus=machine.gpus,
        nodes=machine.nodes,
        # A job has to work for a while before it is warned, however short it is.
        lead_s=min(lead_s, minutes * 30),
    )
    return request, expected_s


def _smallest(plan: RunPlan, domains: Sequence[DomainPlan], site: Site, wishes: Wishes) -> tuple[Machine, float]:
    """The smallest part of the site that maps the largest domain in `_AIM_S`, or all that one job may have."""
    counts = [wishes.gpus] if wishes.gpus else list(range(1, site.gpus_per_node + 1)) or [0]
    shapes = [(1, gpus) for gpus in counts] + [(nodes, counts[-1]) for nodes in range(2, site.max_nodes + 1)]
    for nodes, gpus in shapes:
        cores = gpus * site.cores_per_gpu if gpus else site.cores_per_node
        machine = Machine(site.name, nodes, cores, gpus, site.gpu or "")
        expected_s = max((_expected_s(plan, d, machine) for d in domains), default=0.0)
        if expected_s <= _AIM_S:
            break
    return machine, expected_s


def _expected_s(plan: RunPlan, domain: DomainPlan, machine: Machine) -> float:
    settings = plan.settings
    rates = rates_for(settings, machine, measured=read_rates())
    return forecast(settings, totals(settings, domain), rates, machine).wall_s


def _lead_s(plan: RunPlan, domains: Sequence[DomainPlan], site: Site) -> int:
    """Seconds from the warning to the limit: the site's, or twice the longest tile that a run has recorded."""
    recorded = [
        float(tile["seconds"]) for d in domains for tile in read_run(plan.settings.folder(d.name)).get("tiles", ())
    ]
    return math.ceil(max(site.lead_minutes * 60, 2 * max(recorded, default=0.0)))


def _publishing_script(plan: RunPlan, site: Site, wishes: Wishes, *, config: Path, again: str) -> str:
    """One node's cores, or those that come with one GPU, for as long as all shards take."""
    there = load_site(site.publish) if site.publish else site
    qos = next(iter(there.qos), None)
    minutes = 10 + math.ceil(sum(len(d.tiles) for d in plan.domains) * _PUBLISH_S_A_TILE / 60)
    request = Request(
        name=f"landcover-{plan.settings.campaign.name}-publish",
        # The same project's hours, of the machine that publishes.
        account=there.account(wishes.project.partition("@")[0] if wishes.project else None),
        qos=qos,
        minutes=min(minutes, math.floor(there.limit_hours(qos) * 60)),
        cores=there.cores_per_gpu if there.gpus_per_node else there.cores_per_node,
        gpus=1 if there.gpus_per_node else 0,
    )
    return fill_in(PUBLISH, there, request, variables={"CAMPAIGN": str(config.absolute()), "AGAIN": again})
