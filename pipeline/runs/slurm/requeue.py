"""What a job does when its run has ended with more to do: again, unless nothing was sealed twice in a row.

<products>/<domain>/requeue.json     what was sealed when the last start ended, and starts without progress
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline import fingerprint
from pipeline.cluster.slurm import queue
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.errors import ClusterError, ProductError, RunStopped
from pipeline.products.tile.seal import list_sealed

REQUEUE_FILE = "requeue.json"
AGAIN = (RunStopped.exit_code, ClusterError.exit_code)
"""Exit codes of a run that is to be run again: stopped when asked, and its cluster lost."""
PATIENCE = 2
"""Starts in a row without a newly sealed tile after which a job gives up."""


@dataclass(frozen=True)
class Progress:
    """Of a domain over the starts of its job."""

    sealed: str
    """Digest of the sealed tiles' fingerprints."""
    idle: int
    """Starts in a row that sealed nothing."""

    @property
    def stuck(self) -> bool:
        """True where another start would do no better."""
        return self.idle >= PATIENCE


def begin(campaign: Campaign, domain: Domain) -> None:
    """Notes what is sealed when a domain is submitted: from here on progress counts.

    Raises:
        ProductError: an item that is damaged.
        StorageError: the domain's folder cannot be written.
    """
    _write(campaign, domain, Progress(_sealed(campaign, domain), 0))


def note_end(campaign: Campaign, domain: Domain) -> Progress:
    """Compares with the last start's end, and keeps the result for the next one.

    Raises:
        ProductError: an item or the note that is damaged.
        StorageError: the domain's folder cannot be written.
    """
    former, sealed = _read(campaign, domain), _sealed(campaign, domain)
    now = Progress(sealed, former.idle + 1 if sealed == former.sealed else 0)
    _write(campaign, domain, now)
    return now


def again(campaign: Campaign, domain: Domain, *, resubmit: Path | None) -> str:
    """Brings this job back into SLURM's queue where the domain makes progress.

    Args:
        campaign: whose domain it is.
        domain: that this job maps.
        resubmit: the script that is submitted anew where the site forbids `scontrol requeue`, with the publishing
            job beside it; None: requeue.

    Returns:
        The number of the job that goes on.

    Raises:
        RunStopped: two starts in a row sealed nothing, or this is no job.
        ConfigError: SLURM refuses.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise RunStopped(f"{domain}: there is more to do, and no SLURM job here to requeue: run again")
    if (now := note_end(campaign, domain)).stuck:
        raise RunStopped(
            f"{domain}: {now.idle} starts in a row sealed no tile, so job {job} is not started again; is its time "
            "enough for one tile and the warning before it? See its log, then submit again"
        )
    if resubmit is None:
        queue.requeue(job)
        return job
    element = os.environ.get("SLURM_ARRAY_TASK_ID", "0")
    later = queue.submit(resubmit, [f"--array={element}"])
    publishing = resubmit.with_name("publish.sbatch")
    if publishing.is_file():
        # The one that waits for this job would publish before the new one has ended; it is repeated after that.
        queue.submit(publishing, [f"--dependency=afterany:{later},singleton"])
    return later


def _sealed(campaign: Campaign, domain: Domain) -> str:
    tiles = list_sealed(campaign.product_folder(domain), domain, campaign.grid.tile)
    return fingerprint.digest(sorted((t.tile.name, t.fingerprint) for t in tiles))


def _read(campaign: Campaign, domain: Domain) -> Progress:
    path = campaign.product_folder(domain) / REQUEUE_FILE
    try:
        return Progress(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return Progress("", 0)
    except (OSError, ValueError, TypeError) as error:
        raise ProductError(f"{path} cannot be read: {error}; remove it, the next job writes it anew") from error


def _write(campaign: Campaign, domain: Domain, progress: Progress) -> None:
    path = campaign.product_folder(domain) / REQUEUE_FILE
    write_json(path, {"sealed": progress.sealed, "idle": progress.idle})
