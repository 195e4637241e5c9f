"""What a run does in domains without tiles to map, without torch and Dask: "nothing to do" is then said at once."""

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from pipeline.cluster.slurm.queue import is_job_running
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.durable import remove_temporaries
from pipeline.errors import LockError, RunFailed
from pipeline.lock import FolderLock, has_lock, lock_folder
from pipeline.products.tile.domain_manifest import RUN_FILE
from pipeline.products.tile.optional_layers import layer_folders
from pipeline.products.tile.seal import remove_unfinished
from pipeline.runs.planning.plan import RunPlan
from pipeline.runs.planning.provenance import software
from pipeline.runs.planning.resolved_campaign import ResolvedCampaign
from pipeline.runs.tracking.run_record import RunRecordWriter


def run_empty_plan(plan: RunPlan) -> None:
    """Runs a plan without tiles to map: cleans its domains, and keeps choices that were made again.

    Raises:
        StorageError: a product folder cannot be written.
        RunFailed: a domain's files are damaged.
    """
    clean_idle_domains(plan)
    if plan.resolved.choices:
        plan.resolved.choices.keep()
    refuse_damaged(plan)


def clean_idle_domains(plan: RunPlan) -> None:
    """Deletes what killed runs left in domains without tiles to map, and writes lost run records of them again.

    Domains where another run is alive are skipped.
    """
    campaign = plan.resolved.campaign
    for domain in (domain for domain in plan.domains if not domain.todo):
        folder = campaign.product_folder(domain.name)
        if domain.record_problem or has_lock(folder):
            with suppress(LockError), lock_domain(campaign, domain.name):
                remove_leftovers(folder, domain.name)
                remove_temporaries(folder, f".{RUN_FILE}.")
                if domain.record_problem:
                    RunRecordWriter(folder, constant_fields(plan.resolved), tiles={}).write("ended")


def remove_leftovers(folder: Path, domain: Domain) -> None:
    """Deletes what killed runs left of tiles and optional layers in a locked folder of products."""
    for own in (folder, *layer_folders(folder)):
        remove_unfinished(own, domain)


def refuse_damaged(plan: RunPlan) -> None:
    """Raises RunFailed where the plan lacks a domain."""
    if plan.damaged:
        listed = "".join(f"\n  {sentence}" for sentence in plan.damaged)
        raise RunFailed(
            f"tiles of other domains are sealed; {len(plan.damaged)} domains cannot be read and are left out:{listed}"
        )


def lock_domain(campaign: Campaign, domain: Domain) -> AbstractContextManager[FolderLock]:
    """Locks the folder of a domain's products until the block ends.

    Raises:
        LockError: another run owns the lock.
        StorageError: the folder cannot be written.
    """
    return lock_folder(campaign.product_folder(domain), what=f"domain {domain}", job_runs=is_job_running)


def constant_fields(resolved: ResolvedCampaign) -> dict[str, Any]:
    """The fields of a run record that do not change during the run."""
    return {
        "campaign": resolved.campaign.model_dump(mode="json")
        | {"engine": resolved.engine.name, "engine_threads": resolved.engine_threads},
        "weights_sha256": resolved.weights.weights_hash,
        "quantized_sha256": resolved.engine.quantized.sha256 if resolved.engine.quantized else None,
        "recipe": resolved.recipe.model_dump(mode="json"),
        "software": software(),
    }
