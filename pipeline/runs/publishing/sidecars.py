"""Catalogue and files for GIS people, written by a publish before its edition becomes current."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.config import Campaign, load_recipe
from pipeline.domain import Domain
from pipeline.durable import remove_temporaries
from pipeline.grid import Window, union
from pipeline.legend import LAYERS
from pipeline.products.gis.gis_files import QUICK_LOOK_PX, write_gis
from pipeline.products.gis.overviews import edition_overview, overview
from pipeline.products.stac.collections import write_domain, write_edition
from pipeline.products.tile.seal import SealedTile
from pipeline.runs.publishing.draft_edition import Draft


def tidy(campaign: Campaign, domains: Iterable[Domain]) -> None:
    """Removes what a killed publish left beside the domains' tiles; a run's own temporary files stay.

    Call it while the nation is held: these names are a publish's alone, as tiles' are a run's, which holds the domain.
    """
    for domain in domains:
        folder = campaign.output.domains / domain
        own = [f".{domain}-{layer}.gti.gpkg." for layer in LAYERS] + [f".{domain}-landcover.qml."]
        for prefix in (".collection.json.", ".model-", ".quicklook.png.", *own):
            remove_temporaries(folder, prefix)


def catalogue(draft: Draft) -> None:
    """Writes each domain's collection beside its items, and `catalog/` of the edition.

    Raises:
        ProductError: an item that cannot be read.
        StorageError: a folder cannot be written.
    """
    campaign = draft.campaign
    recipe = load_recipe(campaign.model.recipe, base=campaign.base)
    domains = {
        product.name: (write_domain(_folder(draft, product.name), product.shown, recipe=recipe), product.shown)
        for product in draft.products
        if product.shown
    }
    write_edition(draft.folder / "catalog", domains, number=draft.plan.number)


def gis(draft: Draft) -> None:
    """Writes index, style and quick-look of each domain beside its COGs, and those of the nation in the edition.

    The nation's picture is drawn from the edition's levels, so that each pixel is its owner's; call it after them.

    Raises:
        ProductError: a COG or a level that cannot be read.
        StorageError: a folder cannot be written.
    """
    products = [product for product in draft.products if product.shown]
    draft.progress.start(len(products) + 1)
    for product in draft.progress.track(products):
        picture = overview(product.shown, "landcover", within=_extent(product.shown), side=QUICK_LOOK_PX)
        write_gis(_folder(draft, product.name), product.shown, quick_look=picture, prefix=f"{product.name}-")
    tiles = [tile for product in products for tile in product.shown]
    picture = edition_overview(draft.folder, draft.plan.grid, "landcover", within=_extent(tiles), side=QUICK_LOOK_PX)
    write_gis(draft.folder, tiles, quick_look=picture)
    draft.progress.advance()


def _extent(sealed: Sequence[SealedTile]) -> Window:
    return union([s.tile.window for s in sealed])


def _folder(draft: Draft, domain: Domain) -> Path:
    return draft.campaign.output.domains / domain
