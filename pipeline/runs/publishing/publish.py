"""Domain products → a new edition of the national product: plan → begin → one task a shard → extras → commit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.cluster import open_cluster
from pipeline.config import Campaign, load_recipe
from pipeline.domain import Domain
from pipeline.errors import ProductError
from pipeline.products.national.edition_record import Tally, current_edition
from pipeline.products.national.edition_writer import abandoned, begin, commit
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.ownership import read_boundary
from pipeline.products.national.publish_plan import DomainProduct, EditionPlan, plan_edition
from pipeline.products.national.pyramid.store import check_pyramid
from pipeline.products.national.shard_writer import ShardFacts, write_shard
from pipeline.products.tile.seal import list_sealed
from pipeline.progress import SILENT, Progress
from pipeline.runs.provenance import lattice_of, product_origin
from pipeline.runs.publishing.draft_edition import Draft, spread
from pipeline.runs.publishing.editions import held
from pipeline.runs.publishing.levels import write_levels
from pipeline.runs.publishing.sidecars import catalogue, gis, tidy
from pipeline.runs.tracking.status import DomainStatus, status
from pipeline.sources.catalog.index import read_description

EXTRAS: tuple[Callable[[Draft], None], ...] = (write_levels, catalogue, gis)
"""Writers of what an edition has beside its store, called in this order before it becomes current. When one of them
gives other bytes, `products.national.publish_plan.EXTRAS_VERSION` rises."""


@dataclass(frozen=True)
class Published:
    """The edition that is current now."""

    edition: int
    store: Path
    """The Zarr store, as `xarray.open_zarr` takes it."""
    written: int
    """Shards with new bytes; 0 where the current edition was already what was to be published."""
    linked: int
    """Shards that did not change: hard links to the edition before."""
    lacking: tuple[tuple[str, int], ...]
    """(domain, tiles of its catalogue that are not sealed); their pixels are no data."""
    left: tuple[str, ...]
    """Domains of the edition before that the campaign does not have, and this edition neither."""
    tally: Tally
    """Pixels by who claims and who shows them."""
    undelivered_km2: Mapping[str, float]
    """Domain → how much of its polygon lies outside its tiles, where any does."""


def publish(
    campaign: Campaign,
    *,
    workers: int | None = None,
    wait: bool = False,
    progress: Progress = SILENT,
) -> Published:
    """Publishes what is sealed of the campaign's domains; what did not change costs nothing.

    Args:
        campaign: names domains, boundaries, extent and chunks.
        workers: processes, instead of the campaign's number.
        wait: until nobody else publishes, instead of an error.
        progress: counts shards, then each kind of file that is written beside them.

    Raises:
        ConfigError: domains on several lattices.
        LockError: somebody else publishes.
        ProductError: nothing is sealed, a boundary cannot be read, or the store cannot be written; the edition
            before stays current.
        StorageError: the national folder cannot be written.
    """
    national = campaign.output.national
    with held(national, wait=wait) as lock:
        # Read while nobody else publishes: who waited publishes what is sealed now.
        states, crs = status(campaign), lattice_of(campaign)
        products = [_product(campaign, state, crs) for state in states]
        if not any(product.shown for product in products):
            raise ProductError(f"{campaign.output.domains}: no tile is sealed yet; `landcover run` maps them")
        abandoned(national)
        tidy(campaign, (product.name for product in products))
        grid = NationalGrid(campaign.extent, campaign.grid.tile, campaign.shard, campaign.output.chunk, crs)
        plan = plan_edition(national, grid, products)
        facts: list[ShardFacts] = []
        # A pyramid that lost a file is made whole by an edition of links.
        if not plan.nothing_to_do or (plan.parent is not None and check_pyramid(plan.parent)):
            facts = _write(campaign, products, plan, workers=workers, progress=progress)
            lock.check()
            commit(plan, facts)
        edition = current_edition(national)
    if edition is None:
        raise ProductError(f"{national}: no edition is current after the publish; publish again")
    written = sum(f.changed for f in facts)
    return Published(
        edition=edition.number,
        store=national / "current" / edition.store.name,
        written=written,
        linked=len(plan.digests) - written,
        lacking=tuple((s.domain, s.unsealed) for s in states if s.unsealed),
        left=tuple(sorted(set(plan.parent.domains if plan.parent else ()) - set(edition.domains))),
        tally=edition.tally,
        undelivered_km2=edition.undelivered_km2,
    )


def _write(
    campaign: Campaign,
    products: Sequence[DomainProduct],
    plan: EditionPlan,
    *,
    workers: int | None,
    progress: Progress,
) -> list[ShardFacts]:
    """All of the edition but its record. One task writes one shard: no locks."""
    begin(plan)
    with open_cluster(campaign, workers=workers) as client:
        write = partial(write_shard, plan.target)
        ended = spread(write, plan.write, client=client, section=campaign.cluster, progress=progress)
        facts = [fact for _, fact in ended]
        changed = plan.grid.tiles_of(fact.index for fact in facts if fact.changed)
        draft = Draft(campaign, tuple(products), plan, changed, client, progress)
        for extra in EXTRAS:
            extra(draft)
    return facts


def _product(campaign: Campaign, state: DomainStatus, crs: str) -> DomainProduct:
    """A domain as publishing sees it; its table row says with what it was mapped, and from whose data of when."""
    section = campaign.domain(state.domain)
    failed = frozenset(name for name, _ in (*state.failed, *state.suspect))
    return DomainProduct(
        name=state.domain,
        year=state.domain.year,
        boundary=read_boundary(section.boundary, crs=crs) if section.boundary else None,
        sealed=list_sealed(campaign.output.domains / state.domain, state.domain, campaign.grid.tile),
        expected=(*state.sealed, *state.damaged, *state.in_flight, *failed, *state.missing),
        failed=failed,
        about={"campaign": campaign.name, "weights": campaign.model.weights} | _told(campaign, state.domain),
    )


def _told(campaign: Campaign, domain: Domain) -> dict[str, Any]:
    """What the domain's catalogue says of data and days, as its items do; what is unknown is left out."""
    about = read_description(campaign.catalog, domain)
    origin = product_origin(campaign, load_recipe(campaign.model.recipe, base=campaign.base), about.origin)
    acquired = [day.isoformat() for day in about.acquired or ()]
    return {key: value for key, value in (asdict(origin) | {"acquired": acquired}).items() if value}
