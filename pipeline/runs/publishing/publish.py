"""Publishes the sealed tiles of a campaign as a new edition of the national product."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from distributed import Client

from pipeline.cluster.client import open_cluster
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.durable import remove_temporaries
from pipeline.errors import ProductError
from pipeline.products.analysis.campaign_map import update_layers
from pipeline.products.map_page.page_files import MAP_FOLDER
from pipeline.products.national.edition_record import Edition, Tally, read_edition
from pipeline.products.national.edition_writer import begin, commit, remove_abandoned
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.ownership import read_boundary
from pipeline.products.national.publish_plan import DomainProduct, EditionPlan, plan_edition
from pipeline.products.national.pyramid.store import check_pyramid
from pipeline.products.national.shard_writer import ShardFacts, write_shard
from pipeline.products.stac.layer_collection import LAYERS_FOLDER
from pipeline.products.tile.domain_manifest import changed_beside
from pipeline.products.tile.seal import list_readable
from pipeline.progress import SILENT, Progress
from pipeline.runs.planning.provenance import campaign_crs, product_origin
from pipeline.runs.publishing.draft_edition import DraftEdition
from pipeline.runs.publishing.national_lock import lock_national
from pipeline.runs.publishing.sidecars import (
    remove_leftovers,
    write_catalogs,
    write_domain_manifests,
    write_gis_files,
    write_levels,
)
from pipeline.runs.tracking.status import DomainStatus, status
from pipeline.sources.catalog.reader import read_description

log = logging.getLogger("landcover")

EXTRAS: tuple[Callable[[DraftEdition], None], ...] = (
    write_levels,
    write_catalogs,
    write_gis_files,
    write_domain_manifests,
)
"""Writers of the files beside the store, called in this order before an edition becomes current. When the bytes of one
of them change, increase `products.national.publish_plan.EXTRAS_VERSION`."""


@dataclass(frozen=True)
class PublishedEdition:
    """The edition that is current after a publish."""

    edition: int
    """Its number."""
    store: Path
    """The Zarr store, as `xarray.open_zarr` takes it."""
    written: int
    """Shards with new bytes; 0 where the current edition was up to date."""
    linked: int
    """Unchanged shards: hard links to the former edition."""
    unsealed: tuple[tuple[str, int], ...]
    """(domain, number of tiles in its catalog that are not sealed). Their pixels are nodata."""
    damaged: tuple[str, ...]
    """A sentence for each domain whose catalog or run record cannot be read, and for each tile whose item cannot be
    read. Pixels of such tiles are nodata."""
    left_out: tuple[str, ...]
    """Domains of the former edition that the campaign, and so this edition, does not have."""
    tally: Tally
    """Pixels by who claims and who shows them."""
    undelivered_km2: Mapping[str, float]
    """Domain → area of its polygon outside its tiles, where there is any."""


def publish(
    campaign: Campaign,
    *,
    client: Client | None = None,
    workers: int | None = None,
    wait: bool = False,
    recheck: bool = False,
    progress: Progress = SILENT,
) -> PublishedEdition:
    """Publishes the sealed tiles of the campaign's domains. Shards that did not change are linked, not written.

    1. Locks the national product.
    2. Reads the sealed tiles of each domain.
    3. Deletes what killed publishes left in the national product and beside the domains' tiles.
    4. Plans the edition: which shards are written, and which are links.
    5. Begins the edition under a temporary name, and writes its shards and the files beside them.
    6. Commits: makes the edition current, and writes the map page into it.

    Args:
        campaign: its domains, boundaries, extent and chunks are used.
        client: a client of a running cluster, which is left open. By default the campaign's cluster is opened.
        workers: number of worker processes, instead of the campaign's.
        wait: wait while another publish is running. Otherwise this is an error.
        recheck: read all files of the current edition, and write the damaged ones again. Otherwise only files whose
            size or time of the last change differs from the manifest are read.
        progress: counts the pixels of the shards, those of the levels' tiles, then each kind of file beside them.

    Raises:
        ConfigError: the domains lie on several lattices.
        ClusterError: the cluster did not start, or was lost.
        LockError: another publish is running.
        ProductError: no tile is sealed, a boundary cannot be read, or the store cannot be written. The former edition
            stays current.
        StorageError: the national folder cannot be written.

    Examples:
        >>> publish(load_campaign("build/demo/campaign.yaml")).written  # shards; nothing changed since the demo
        0
    """
    national = campaign.output.national
    with lock_national(national, wait=wait) as lock:
        # Read under the lock: a publish that waited publishes the tiles that are sealed now.
        states, crs = status(campaign), campaign_crs(campaign)
        products = read_products(campaign, states, crs)
        damaged = [f"{s.domain}: {s.problem}" for s in states if s.problem]
        damaged += [f"{p.name}: {sentence}" for p in products for sentence in p.damaged]
        remove_abandoned(national)
        remove_leftovers(campaign)
        grid = NationalGrid(campaign.extent, campaign.grid.tile, campaign.shard, campaign.output.chunk, crs)
        plan = plan_edition(national, grid, products, recheck=recheck)
        if plan.parent is not None:
            for folder in (MAP_FOLDER, LAYERS_FOLDER):  # of a publish that was killed after its commit
                remove_temporaries(plan.parent.path / folder, ".")
        beside = any(_changed_beside(campaign, product.name, plan.parent, recheck=recheck) for product in products)
        # What lost a file, also beside the tiles of a domain, is repaired by a new edition.
        if plan.parent is not None and plan.nothing_to_do and not beside and not check_pyramid(plan.parent):
            edition, facts = plan.parent, []
        else:
            begin(plan)
            with open_cluster(campaign, client=client, workers=workers) as opened:
                facts = _write(campaign, products, plan, client=opened, progress=progress)
            lock.check()
            edition = read_edition(commit(plan, facts))
        update_layers(campaign, edition)
    written = sum(f.changed for f in facts)
    return PublishedEdition(
        edition=edition.number,
        store=national / "current" / edition.store.name,
        written=written,
        linked=len(plan.digests) - written,
        unsealed=tuple((s.domain, len(s.unsealed)) for s in states if s.unsealed),
        damaged=tuple(damaged),
        left_out=tuple(sorted(set(plan.parent.domains if plan.parent else ()) - set(edition.domains))),
        tally=edition.tally,
        undelivered_km2=edition.undelivered_km2,
    )


def _changed_beside(campaign: Campaign, domain: Domain, parent: Edition | None, *, recheck: bool) -> bool:
    published = parent is not None and parent.sealed(domain)
    return bool(changed_beside(campaign.product_folder(domain), domain, read_all=recheck, published=published))


def read_products(campaign: Campaign, states: Sequence[DomainStatus], crs: str) -> list[DomainProduct]:
    """The domains of a campaign as publishing needs them, with their sealed tiles.

    Args:
        campaign: gives boundaries and folders.
        states: of its domains.
        crs: `EPSG:…` of the lattice.

    Raises:
        ProductError: no tile is sealed, or a boundary cannot be read.
    """
    products = [_product(campaign, state, crs) for state in states]
    if not any(product.shown for product in products):
        raise ProductError(f"{campaign.output.domains}: no tile is sealed yet; run `landcover run` first")
    return products


def _product(campaign: Campaign, state: DomainStatus, crs: str) -> DomainProduct:
    section = campaign.domain(state.domain)
    description = read_description(campaign.catalog, state.domain)
    origin = asdict(product_origin(campaign, campaign.recipe(), description.origin))
    acquired = [day.isoformat() for day in description.acquired or ()]
    about = {"campaign": campaign.name, "weights": campaign.model.title, **origin, "acquired": acquired}
    sealed, damaged = list_readable(campaign.product_folder(state.domain), state.domain, campaign.grid.tile)
    expected = (*state.sealed, *state.damaged, *state.unsealed)
    return DomainProduct(
        name=state.domain,
        boundary=read_boundary(section.boundary, crs=crs) if section.boundary else None,
        sealed=sealed,
        # Where the catalog cannot be read, the tiles on disk are all that is known.
        expected=tuple(sorted({*(s.tile.name for s in sealed), *damaged})) if state.problem else expected,
        damaged=tuple(str(error) for error in damaged.values()),
        failed=frozenset(name for name, _ in state.failures),
        about={key: value for key, value in about.items() if value},
    )


def _write(
    campaign: Campaign, products: Sequence[DomainProduct], plan: EditionPlan, *, client: Client, progress: Progress
) -> list[ShardFacts]:
    """Writes the shards, one task each, and the files beside them."""
    draft = DraftEdition(campaign, tuple(products), plan, client, progress)
    facts = [
        fact
        for _, fact in draft.map_on_workers(plan.write, partial(write_shard, plan.target), pixels=plan.grid.shard**2)
    ]
    draft = replace(draft, changed=plan.grid.tiles_of(fact.index for fact in facts if fact.changed))
    for extra in EXTRAS:
        extra(draft)
    return facts
