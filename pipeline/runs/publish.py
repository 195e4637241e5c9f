"""Domain products → a new edition of the national product: plan → begin → one task a shard → commit."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distributed import Client, Future

from pipeline.cluster import in_flight, open_cluster, worker_count
from pipeline.cluster.squeue import job_runs
from pipeline.config import Campaign, ClusterSection, load_recipe
from pipeline.errors import ProductError
from pipeline.lock import holding
from pipeline.products.edition import abandoned, begin, commit, write_shard
from pipeline.products.item import list_sealed
from pipeline.products.national import DomainProduct, EditionPlan, NationalGrid, ShardPlan, plan_edition
from pipeline.products.ownership import read_boundary
from pipeline.products.record import current_edition
from pipeline.products.stac import vintage
from pipeline.runs.origin import lattice_of, product_origin
from pipeline.runs.status import DomainStatus, status
from pipeline.sources.catalog import read_about


@dataclass(frozen=True)
class Published:
    """The edition that is current now."""

    edition: int
    store: Path
    """The Zarr store, as `xarray.open_zarr` takes it."""
    written: int
    """Shards written."""
    linked: int
    """Shards that did not change: hard links to the edition before."""
    lacking: tuple[tuple[str, int], ...]
    """(domain, tiles of its catalogue that are not sealed); their pixels are no data."""


def publish(
    campaign: Campaign,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Published:
    """Publishes what is sealed of the campaign's domains; what did not change costs nothing.

    Args:
        campaign: names domains, boundaries, extent and chunks.
        workers: processes, instead of the campaign's number.
        progress: told (shards written, shards to write).

    Raises:
        ConfigError: domains on several lattices.
        LockError: somebody else publishes.
        ProductError: nothing is sealed, a boundary cannot be read, or the store cannot be written; the edition
            before stays current.
        StorageError: the national folder cannot be written.
    """
    national = campaign.output.national
    crs = lattice_of(campaign)
    grid = NationalGrid(campaign.extent, campaign.grid.tile, campaign.shard, campaign.output.chunk, crs)
    states = status(campaign)
    products = [_product(campaign, state, crs) for state in states]
    if not any(product.sealed for product in products):
        raise ProductError(f"{campaign.output.domains}: no tile is sealed yet; `landcover run` maps them")
    with holding(national, what=f"the national product {national}", job_runs=job_runs) as lock:
        abandoned(national)
        plan = plan_edition(national, grid, products)
        if not plan.nothing_to_do:
            begin(plan)
            with open_cluster(campaign, workers=workers) as client:
                _write_shards(client, plan, campaign.cluster, progress)
            lock.check()
            commit(plan)
        edition = current_edition(national)
    if edition is None:
        raise ProductError(f"{national}: no edition is current after the publish; publish again")
    lacking = tuple((s.domain, s.unsealed) for s in states if s.unsealed)
    store = national / "current" / edition.store.name
    return Published(edition.number, store, len(plan.write), len(plan.link), lacking)


def _product(campaign: Campaign, state: DomainStatus, crs: str) -> DomainProduct:
    """A domain as publishing sees it; its table row says with what it was mapped, and from whose data of when."""
    section = campaign.domain(state.domain)
    failed = frozenset(name for name, _ in (*state.failed, *state.suspect))
    return DomainProduct(
        name=state.domain,
        year=vintage(state.domain),
        boundary=read_boundary(section.boundary, crs=crs) if section.boundary else None,
        sealed=list_sealed(campaign.output.domains / state.domain, state.domain, campaign.grid.tile),
        expected=(*state.sealed, *state.damaged, *state.in_flight, *failed, *state.missing),
        failed=failed,
        about={"campaign": campaign.name, "weights": campaign.model.weights} | _told(campaign, state.domain),
    )


def _told(campaign: Campaign, domain: str) -> dict[str, Any]:
    """What the domain's catalogue says of data and days, as its items do; what is unknown is left out."""
    about = read_about(campaign.catalog, domain)
    origin = product_origin(campaign, load_recipe(campaign.model.recipe, base=campaign.base), about.origin)
    acquired = [day.isoformat() for day in about.acquired or ()]
    return {key: value for key, value in (asdict(origin) | {"acquired": acquired}).items() if value}


def _write_shards(
    client: Client, plan: EditionPlan, section: ClusterSection, progress: Callable[[int, int], None]
) -> None:
    """One task writes one shard: no locks."""

    def submit(shard: ShardPlan) -> Future[Any]:
        return client.submit(write_shard, plan.target, shard, pure=False)

    def limit() -> int:
        return 2 * section.threads * worker_count(client)

    ended = in_flight(plan.write, submit, client=client, limit=limit, lost_s=section.lost_s)
    for done, (_, future) in enumerate(ended, start=1):
        future.result()
        progress(done, len(plan.write))
