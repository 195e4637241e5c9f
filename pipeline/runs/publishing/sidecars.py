"""Writers of everything beside the national store: levels, catalogs and files for GIS programs."""

from collections.abc import Sequence
from functools import partial

from pipeline.config import Campaign
from pipeline.durable import remove_temporaries
from pipeline.grid import Window, union
from pipeline.legend import LAYERS
from pipeline.products.gis.gis_files import QUICK_LOOK_PX, STYLES, write_gis
from pipeline.products.gis.overviews import edition_overview, overview
from pipeline.products.manifest import SIZES, SUMS
from pipeline.products.national.pyramid.edition_root import write_root
from pipeline.products.national.pyramid.overviews import write_overviews
from pipeline.products.national.pyramid.store import begin_pyramid
from pipeline.products.national.pyramid.tile_writer import write_tile
from pipeline.products.stac.collections import write_domain, write_edition
from pipeline.products.tile.domain_manifest import write_domain_manifest
from pipeline.products.tile.seal import SealedTile
from pipeline.runs.publishing.draft_edition import DraftEdition


def remove_leftovers(campaign: Campaign) -> None:
    """Deletes what a killed publish left beside the domains' tiles.

    Call it while the national product is locked: a publish alone writes files of these names. Temporary files of
    tiles stay, because they belong to a run, which locks the domain.
    """
    for domain in (section.name for section in campaign.domains):
        own = [f".{domain}-{layer}.gti.gpkg." for layer in LAYERS] + [f".{domain}-{name}." for name in STYLES]
        shared = (".collection.json.", ".model-", ".quicklook.png.", f".{SUMS}.", f".{SIZES}.")
        remove_temporaries(campaign.product_folder(domain), *shared, *own)


def write_levels(draft: DraftEdition) -> None:
    """Writes `pyramid.zarr`, the coarser levels and class shares, beside the store: one task per changed tile.

    Unchanged tiles are hard links to those of the former edition.

    Raises:
        ProductError: level 0 cannot be read, or a file cannot be written.
    """
    plan = draft.plan
    tiles = plan.grid.tiles_of(plan.digests)
    left = begin_pyramid(plan.target, former=plan.former, tiles=tiles, changed=draft.changed, damaged=plan.damaged)
    cells = dict(draft.map_on_workers(left, partial(write_tile, plan.target), pixels=plan.grid.tile**2))
    write_overviews(plan.target, cells, former=plan.former, tiles=tiles)
    write_root(plan.target.store, plan.grid)


def write_catalogs(draft: DraftEdition) -> None:
    """Writes the STAC collection of each domain beside its items, and `catalog/` of the edition.

    Raises:
        ProductError: an item cannot be read.
        StorageError: a folder cannot be written.
    """
    campaign = draft.campaign
    recipe = campaign.recipe()
    domains = {
        p.name: (write_domain(campaign.product_folder(p.name), p.shown, recipe=recipe), p.shown)
        for p in draft.products
        if p.shown
    }
    write_edition(draft.folder / "catalog", domains, number=draft.plan.number)


def write_gis_files(draft: DraftEdition) -> None:
    """Writes index, style and quick-look of each domain beside its COGs, and those of the nation into the edition.

    The nation's quick-look is drawn from the edition's levels, in which each pixel belongs to its owner: call it after
    `write_levels`.

    Raises:
        ProductError: a COG or a level cannot be read.
        StorageError: a folder cannot be written.
    """
    products = [product for product in draft.products if product.shown]
    draft.progress.start(len(products) + 1)
    for product in draft.progress.track(products):
        picture = overview(product.shown, "landcover", within=_extent(product.shown), side=QUICK_LOOK_PX)
        folder = draft.campaign.product_folder(product.name)
        write_gis(folder, product.shown, quick_look=picture, prefix=f"{product.name}-")
    tiles = [tile for product in products for tile in product.shown]
    picture = edition_overview(draft.folder, draft.plan.grid, "landcover", within=_extent(tiles), side=QUICK_LOOK_PX)
    write_gis(draft.folder, tiles, quick_look=picture)
    draft.progress.advance()


def write_domain_manifests(draft: DraftEdition) -> None:
    """Writes the manifest of each domain's folder.

    Raises:
        ProductError: a file was removed meanwhile.
        StorageError: a folder cannot be written.
    """
    for product in (product for product in draft.products if product.shown):
        write_domain_manifest(draft.campaign.product_folder(product.name), product.name, product.shown)


def _extent(sealed: Sequence[SealedTile]) -> Window:
    return union([s.tile.window for s in sealed])
