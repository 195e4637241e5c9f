"""One step of a campaign as a SLURM job of its own, such as publish, report or evaluate."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pipeline.cluster.slurm.script import complete_script
from pipeline.cluster.slurm.site import load_site
from pipeline.config import Campaign
from pipeline.errors import ConfigError
from pipeline.runs.slurm.submit import NO_OPTIONS, PUBLISH, JobOptions, Submission, jobs_folder, one_node_request
from pipeline.sources.catalog.reader import read_domain

JobStep = Literal["publish", "generalise", "vectorize", "verify", "report", "change", "evaluate", "calibrate"]
STEP = "step.sbatch"
NETWORK_STEPS: tuple[JobStep, ...] = ("evaluate", "calibrate")
"""Steps that may run a network, and whose words come from the user instead of the campaign."""
_TILE_S = {"vectorize": 600.0, "generalise": 60.0, "change": 60.0}
"""Seconds of a core for a tile of 25 000² px, in steps that compute with every pixel. A core generalises it in 41 s; it
traces some 2 Mpx/s, so `vectorize` takes half of its time for this, and files and merging take the rest."""


def prepare_step(
    campaign: Campaign,
    config: Path,
    step: JobStep,
    *,
    cluster: str,
    words: Sequence[str] = (),
    options: JobOptions = NO_OPTIONS,
) -> Submission:
    """Sizes the job of a step and completes its script. It writes and submits nothing.

    Args:
        campaign: as `load_campaign` returns it; the time of the job follows from its tiles.
        config: its YAML file, which the job reads when it starts.
        step: the command to run.
        cluster: a site's name or file. Steps that may run a network run there, others where that site publishes.
        words: of `NETWORK_STEPS`: what follows the command, with paths from the present folder.
        options: of the user.

    Raises:
        CatalogError: a domain is not indexed.
        ConfigError: the site does not allow one of the options.
    """
    site = load_site(cluster)
    there = load_site(site.publish) if site.publish and step not in NETWORK_STEPS else site
    tiles = sum(
        len(read_domain(campaign.catalog, s.name, tile_size=campaign.grid.tile).tiles) for s in campaign.domains
    )
    name = f"landcover-{campaign.name}-{step}"
    seconds = {"tile_s": _TILE_S[step]} if step in _TILE_S else {}
    request = one_node_request(name, tiles, there, options, shared=step == "vectorize", **seconds)
    if options.hours is not None:
        limit_h = there.limit_hours(request.qos)
        if not 0 < options.hours <= limit_h:
            raise ConfigError(f"cluster {there.name} allows up to {limit_h:g} h, found --hours {options.hours:g}")
        request = replace(request, minutes=max(1, math.floor(options.hours * 60)))
    if step == "publish":
        script_name, variables = PUBLISH, {"CAMPAIGN": str(config.absolute())}
    else:
        given = shlex.join(words or [str(config.absolute())])
        script_name, variables = STEP, {"STEP": step, "ARGUMENTS": given, "FOLDER": str(Path.cwd())}
    script = complete_script(script_name, there, request, variables=variables)
    return Submission(
        jobs_folder(config), (), (), request, request.minutes * 60, ((script_name, script),), ((there, request),)
    )
