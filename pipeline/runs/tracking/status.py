"""How far a campaign is: the state of each domain's tiles, from the files alone, and who is at work there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.cluster.slurm.queue import Job, Queued, look_up, queued
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.errors import ConfigError
from pipeline.lock import Owner, ended, holder
from pipeline.products.tile.seal import matches, read_sealed
from pipeline.runs.tracking.run_record import Pace, read_run
from pipeline.sources.catalog.index import open_domain


@dataclass(frozen=True)
class DomainStatus:
    """Names of a domain's tiles, by state; each tile of the catalogue is in one of them."""

    domain: Domain
    sealed: tuple[str, ...]
    damaged: tuple[str, ...]
    """Sealed once, and files are gone or have another size."""
    failed: tuple[tuple[str, str], ...]
    """(tile, cause) of when it was tried last."""
    missing: tuple[str, ...]
    in_flight: tuple[str, ...] = ()
    """Submitted by the run that holds the domain now."""
    suspect: tuple[tuple[str, str], ...] = ()
    """(tile, cause): they cost several workers."""
    holder: Owner | None = None
    """Who is at work on it."""
    job: Job | None = None
    """The holder's job, as SLURM has it."""
    queued: Queued | None = None
    """The user's own job for this domain, running or waiting."""
    pace: Pace | None = None
    """Of the run that is at work, or of the last one."""

    @property
    def unsealed(self) -> int:
        """Tiles of which there is no product, whatever the reason."""
        return len(self.failed) + len(self.suspect) + len(self.in_flight) + len(self.missing)

    @property
    def done(self) -> bool:
        """True where nobody is at work, and no job waits to be."""
        return self.holder is None and self.queued is None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        own = asdict(self)
        if self.pace:
            own["pace"] |= {"mpx_per_s": self.pace.mpx_per_s, "left_s": self.pace.left_s}
        return own | {"failed": dict(self.failed), "suspect": dict(self.suspect)}


def status(campaign: Campaign) -> tuple[DomainStatus, ...]:
    """Reads catalogue, items, records and locks; no raster is opened and no weights are loaded.

    Raises:
        CatalogError: a domain that is not indexed.
        ProductError: an item or record that is damaged.
    """
    names = [section.name for section in campaign.domains]
    owners = {name: owner for name in names if (owner := holder(campaign.product_folder(name)))}
    jobs = look_up(owner.job for owner in owners.values())

    def runs(job: str) -> bool | None:
        return None if jobs is None else job in jobs and jobs[job].runs

    alive = {name: owner for name, owner in owners.items() if ended(owner, job_runs=runs) is None}
    waiting = _queued(campaign)
    return tuple(
        replace(_of_domain(campaign, name, alive.get(name), jobs or {}), queued=waiting.get(name)) for name in names
    )


def _queued(campaign: Campaign) -> dict[str, Queued]:
    """Domain → job; empty without a SLURM that answers: what the files say is true all the same."""
    try:
        return {job.domain: job for job in queued(campaign.output.domains)}
    except ConfigError:
        return {}


def _of_domain(campaign: Campaign, name: Domain, owner: Owner | None, jobs: Mapping[str, Job]) -> DomainStatus:
    folder = campaign.product_folder(name)
    record = read_run(folder)
    failed, suspect = record.get("failed", {}), record.get("suspect", {})
    in_flight = record.get("in_flight", {}) if owner else {}
    tiles: dict[str, list[str]] = {}
    for tile in sorted(t.tile for t in open_domain(campaign.catalog, name, tile_size=campaign.grid.tile).tiles):
        item = read_sealed(folder, name, tile)
        if tile.name in in_flight:
            state = "in flight"
        elif item is not None:
            state = "damaged" if matches(item) else "sealed"
        elif tile.name in failed:
            state = "failed"
        else:
            state = "suspect" if tile.name in suspect else "missing"
        tiles.setdefault(state, []).append(tile.name)
    return DomainStatus(
        domain=name,
        sealed=tuple(tiles.get("sealed", ())),
        damaged=tuple(tiles.get("damaged", ())),
        failed=tuple((t, str(failed[t])) for t in tiles.get("failed", ())),
        missing=tuple(tiles.get("missing", ())),
        in_flight=tuple(tiles.get("in flight", ())),
        suspect=tuple((t, str(suspect[t])) for t in tiles.get("suspect", ())),
        holder=owner,
        job=jobs.get(owner.job) if owner else None,
        pace=Pace.of(record),
    )
