"""One step of a campaign as a SLURM job of its own: publish, generalise, verify, report or change."""

from pathlib import Path
from typing import Literal

from pipeline.cluster.slurm.script import complete_script
from pipeline.cluster.slurm.site import load_site
from pipeline.config import Campaign
from pipeline.runs.slurm.submit import NO_OPTIONS, PUBLISH, JobOptions, Submission, jobs_folder, one_node_request
from pipeline.sources.catalog.reader import read_domain

JobStep = Literal["publish", "generalise", "verify", "report", "change"]
STEP = "step.sbatch"
_PIXEL_STEPS = ("generalise", "change")
_PIXEL_STEP_S = 60.0
"""Seconds a tile of 25 000² px in steps that compute with every pixel: one core generalises it in 41 s."""


def prepare_step(
    campaign: Campaign, config: Path, step: JobStep, *, cluster: str, options: JobOptions = NO_OPTIONS
) -> Submission:
    """Sizes the job of a step and completes its script. It writes and submits nothing.

    Args:
        campaign: as `load_campaign` returns it.
        config: its YAML file, which the job reads when it starts.
        step: the command to run.
        cluster: a site's name or file; the job runs where that site publishes.
        options: of the user.

    Raises:
        CatalogError: a domain is not indexed.
        ConfigError: the site does not allow one of the options.
    """
    site = load_site(cluster)
    there = load_site(site.publish) if site.publish else site
    tiles = sum(
        len(read_domain(campaign.catalog, s.name, tile_size=campaign.grid.tile).tiles) for s in campaign.domains
    )
    name = f"landcover-{campaign.name}-{step}"
    if step in _PIXEL_STEPS:
        request = one_node_request(name, tiles, there, options, tile_s=_PIXEL_STEP_S)
    else:
        request = one_node_request(name, tiles, there, options)
    script_name, variables = (PUBLISH, {}) if step == "publish" else (STEP, {"STEP": step})
    script = complete_script(script_name, there, request, variables={"CAMPAIGN": str(config.absolute())} | variables)
    return Submission(
        jobs_folder(config), (), (), request, request.minutes * 60, ((script_name, script),), ((there, request),)
    )
