"""The state of a campaign: each domain's tiles by state, and the run that is at work. Only files are read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar

from pipeline.cluster.slurm.queue import JobState, QueuedJob, job_states, queued_jobs
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.errors import CatalogError, ConfigError, LandcoverError, ProductError
from pipeline.grid import Tile
from pipeline.lock import Owner, lock_owner, why_stale
from pipeline.products.tile.seal import matches, read_sealed
from pipeline.runs.tracking.run_record import RunRecord, read_run_record
from pipeline.sources.catalog.reader import read_tiles
from pipeline.untrusted.in_threads import map_in_threads

_Value = TypeVar("_Value")
_TileState = Literal["sealed", "in flight", "failed", "suspect", "damaged", "missing"]


@dataclass(frozen=True)
class MappingSpeed:
    """How fast a run maps."""

    seconds: float
    """From the start of the run to its last event."""
    sealed_pixels: int
    left_pixels: int
    """Pixels of the tiles that this run still has to map; failed tiles do not count."""
    predicted_s: float | None
    """Seconds that the forecast gave for the whole run, if there was one."""
    mapped_pixels: int = 0
    """Pixels of the mapped blocks of the tiles in flight, which are among those left."""

    @property
    def mpx_per_s(self) -> float:
        """Mapped megapixels per second, with the start of the cluster."""
        return (self.sealed_pixels + self.mapped_pixels) / 1e6 / self.seconds if self.seconds else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds to the end of the run at this speed; None before the first mapped block."""
        speed = self.mpx_per_s
        return (self.left_pixels - self.mapped_pixels) / 1e6 / speed if speed else None


@dataclass(frozen=True)
class DomainStatus:
    """Names of a domain's tiles by state. Each tile of the catalog is in exactly one of them."""

    domain: Domain
    sealed: tuple[str, ...]
    damaged: tuple[str, ...]
    """Sealed, but the item is damaged, or files are missing or have another size."""
    failed: tuple[tuple[str, str], ...]
    """(tile, cause) of the last attempt."""
    missing: tuple[str, ...]
    in_flight: tuple[str, ...] = ()
    """Submitted by the run that owns the domain's lock."""
    suspect: tuple[tuple[str, str], ...] = ()
    """(tile, cause): the last attempt cost several workers."""
    owner: Owner | None = None
    """The process that owns the domain's lock, if it is alive."""
    job: JobState | None = None
    """SLURM's state of the owner's job."""
    queued: QueuedJob | None = None
    """The user's own job for this domain, running or waiting."""
    speed: MappingSpeed | None = None
    """Of the present run, or of the last one."""
    problem: str | None = None
    """Why the state is not known: the domain's catalog or run record is damaged. No tile is listed then."""

    @property
    def failures(self) -> tuple[tuple[str, str], ...]:
        """(tile, cause) of failed and suspect tiles."""
        return (*self.failed, *self.suspect)

    @property
    def not_tried(self) -> tuple[str, ...]:
        """Tiles without a product and without a failure: missing, or in flight."""
        return (*self.missing, *self.in_flight)

    @property
    def unsealed(self) -> tuple[str, ...]:
        """Tiles without a product, for any reason."""
        return tuple(sorted((*self.not_tried, *(name for name, _ in self.failures))))

    @property
    def done(self) -> bool:
        """Whether no run is at work, and no job is queued."""
        return self.owner is None and self.queued is None

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `landcover status --json` prints them."""
        values = asdict(self)
        # `holder` and `pace` are the keys of the first release.
        values["holder"], values["pace"] = values.pop("owner"), values.pop("speed")
        if self.speed:
            values["pace"] |= {"mpx_per_s": self.speed.mpx_per_s, "left_s": self.speed.left_s}
        return values | {"failed": dict(self.failed), "suspect": dict(self.suspect)}


def status(campaign: Campaign, *, all_may_fail: bool = False) -> tuple[DomainStatus, ...]:
    """Reads the state of each domain from the catalog, items, run records and locks. It opens no raster.

    Args:
        campaign: as `load_campaign` returns it.
        all_may_fail: no error where no domain can be read.

    Raises:
        CatalogError: no domain's catalog can be read. A single one is named in its state.
        ProductError: no domain's run record can be read.

    Example:
        >>> [(s.domain, len(s.sealed)) for s in status(campaign)]  # doctest: +SKIP
        [('D034_2021', 6)]
    """
    names = [section.name for section in campaign.domains]
    owners = {name: owner for name in names if (owner := lock_owner(campaign.product_folder(name)))}
    jobs = job_states(owner.job for owner in owners.values())

    def is_running(job: str) -> bool | None:
        return None if jobs is None else job in jobs and jobs[job].is_running

    alive = {name: owner for name, owner in owners.items() if why_stale(owner, job_runs=is_running) is None}
    queued = _queued(campaign)
    read, damaged = read_each(
        names, lambda name: _domain_status(campaign, name, alive.get(name), jobs or {}), all_may_fail=all_may_fail
    )
    read |= {name: DomainStatus(name, (), (), (), (), problem=problem) for name, problem in damaged.items()}
    return tuple(replace(read[name], queued=queued.get(name)) for name in names)


def read_each(
    names: Iterable[Domain], read: Callable[[Domain], _Value], *, all_may_fail: bool = False
) -> tuple[dict[Domain, _Value], dict[Domain, str]]:
    """Reads something of each domain; one whose files are damaged does not keep the others from being read.

    Returns:
        Domain → value, and domain → problem of those whose files cannot be read.

    Raises:
        CatalogError, ProductError: no domain can be read, unless `all_may_fail`.
    """
    values: dict[Domain, _Value] = {}
    errors: dict[Domain, LandcoverError] = {}
    for name in names:
        try:
            values[name] = read(name)
        except (CatalogError, ProductError) as error:
            errors[name] = error
    if errors and not values and not all_may_fail:
        raise next(iter(errors.values()))
    return values, {name: str(error) for name, error in errors.items()}


def _queued(campaign: Campaign) -> dict[str, QueuedJob]:
    """Domain → job; empty where SLURM does not answer, because the files alone give the tiles' states."""
    try:
        return {job.domain: job for job in queued_jobs(campaign.output.domains)}
    except ConfigError:
        return {}


def _domain_status(campaign: Campaign, name: Domain, owner: Owner | None, jobs: Mapping[str, JobState]) -> DomainStatus:
    record = read_run_record(campaign.product_folder(name))
    found = read_tiles(campaign.catalog, name, tile_size=campaign.grid.tile)
    states = map_in_threads(lambda tile: _tile_state(campaign, name, tile, record, alive=owner is not None), found)
    tiles: dict[_TileState, list[str]] = {}
    for tile, state in zip(found, states, strict=True):
        tiles.setdefault(state, []).append(tile.name)
    return DomainStatus(
        domain=name,
        sealed=tuple(tiles.get("sealed", ())),
        damaged=tuple(tiles.get("damaged", ())),
        failed=tuple((t, record.failed[t]) for t in tiles.get("failed", ())),
        missing=tuple(tiles.get("missing", ())),
        in_flight=tuple(tiles.get("in flight", ())),
        suspect=tuple((t, record.suspect[t]) for t in tiles.get("suspect", ())),
        owner=owner,
        job=jobs.get(owner.job) if owner else None,
        speed=mapping_speed(record),
    )


def mapping_speed(record: RunRecord) -> MappingSpeed | None:
    """How fast a run maps; None where its record has no times."""
    if record.elapsed_s is None:
        return None
    sealed = sum(tile.pixels for tile in record.tiles)
    return MappingSpeed(
        record.elapsed_s, sealed, record.left_pixels, record.predicted.get("wall_s"), record.mapped_pixels
    )


def _tile_state(campaign: Campaign, domain: Domain, tile: Tile, record: RunRecord, *, alive: bool) -> _TileState:
    if alive and tile.name in record.in_flight:
        return "in flight"
    try:
        sealed = read_sealed(campaign.product_folder(domain), domain, tile)
    except ProductError:
        return "damaged"
    if sealed is not None:
        return "damaged" if matches(sealed) else "sealed"
    if tile.name in record.failed:
        return "failed"
    return "suspect" if tile.name in record.suspect else "missing"
