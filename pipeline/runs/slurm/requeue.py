"""Puts a job back into SLURM's queue while its domain makes progress.

<products>/<domain>/requeue.json     the tiles sealed when the last start ended, and the starts without progress
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import fingerprint
from pipeline.cluster.slurm import queue
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.errors import ClusterError, ConfigError, ProductError, RunStopped
from pipeline.products.tile.seal import list_readable
from pipeline.untrusted.documents import DocumentError, read_model

REQUEUE_FILE = "requeue.json"
RESTART_CODES = (RunStopped.exit_code, ClusterError.exit_code)
"""Exit codes of a run that is to be run again: it stopped on request, or its cluster was lost."""
MAX_IDLE_STARTS = 2
"""Starts in a row without a newly sealed tile after which a job is not started again."""


@dataclass(frozen=True)
class RestartProgress:
    """The progress of a domain over the starts of its job."""

    sealed: str
    """Digest of the sealed tiles' fingerprints."""
    idle: int
    """Starts in a row that sealed no tile."""

    @property
    def stuck(self) -> bool:
        """Whether another start would not help."""
        return self.idle >= MAX_IDLE_STARTS


def reset_progress(campaign: Campaign, domain: Domain) -> None:
    """Records the sealed tiles when a domain is submitted. Progress counts from here.

    Raises:
        ProductError: an item is damaged.
        StorageError: the domain's folder cannot be written.
    """
    _write(campaign, domain, RestartProgress(_sealed_digest(campaign, domain), 0))


def record_start(campaign: Campaign, domain: Domain) -> RestartProgress:
    """Compares the sealed tiles with those at the end of the last start, and records the result.

    Raises:
        ProductError: an item or the record is damaged.
        StorageError: the domain's folder cannot be written.
    """
    former, sealed = _read(campaign, domain), _sealed_digest(campaign, domain)
    now = RestartProgress(sealed, former.idle + 1 if sealed == former.sealed else 0)
    _write(campaign, domain, now)
    return now


def restart_job(campaign: Campaign, domain: Domain, *, resubmit: Path | None) -> str:
    """Puts this job back into SLURM's queue, if its last starts sealed tiles.

    Args:
        campaign: of the domain.
        domain: the domain that this job maps.
        resubmit: the job's script, which is submitted again with the publishing job beside it, on sites that forbid
            `scontrol requeue`. None: the job is requeued.

    Returns:
        The number of the job that continues.

    Raises:
        RunStopped: two starts in a row sealed no tile, or this process runs in no job.
        ConfigError: SLURM refuses.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise RunStopped(f"{domain}: more tiles are to be mapped, and there is no SLURM job here to requeue; run again")
    if (now := record_start(campaign, domain)).stuck:
        raise RunStopped(
            f"{domain}: {now.idle} starts in a row sealed no tile, so job {job} is not started again. Check in its log "
            "whether its time is enough for one tile and the warning before it, then submit again"
        )
    if resubmit is None:
        queue.run_slurm("scontrol", "requeue", job, error=ConfigError)
        return job
    element = os.environ.get("SLURM_ARRAY_TASK_ID", "0")
    next_job = queue.submit(resubmit, [f"--array={element}"])
    publishing = resubmit.with_name("publish.sbatch")
    if publishing.is_file():
        # The publishing job that waits for this job publishes before the next one ends, so another one follows.
        queue.submit(publishing, [f"--dependency=afterany:{next_job},singleton"])
    return next_job


def _sealed_digest(campaign: Campaign, domain: Domain) -> str:
    tiles, _ = list_readable(campaign.product_folder(domain), domain, campaign.grid.tile)
    return fingerprint.digest(sorted((t.tile.name, t.fingerprint) for t in tiles))


def _read(campaign: Campaign, domain: Domain) -> RestartProgress:
    path = campaign.product_folder(domain) / REQUEUE_FILE
    try:
        return read_model(RestartProgress, path)
    except FileNotFoundError:
        return RestartProgress("", 0)
    except DocumentError as error:
        raise ProductError(f"{path} is damaged: {error}; delete it, the next job writes it again") from error


def _write(campaign: Campaign, domain: Domain, progress: RestartProgress) -> None:
    write_json(campaign.product_folder(domain) / REQUEUE_FILE, asdict(progress))
