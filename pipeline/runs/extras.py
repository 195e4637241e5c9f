"""Catalogue and files for GIS people, written by a publish before its edition becomes current."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.config import Campaign, load_recipe
from pipeline.durable import remove_temporaries
from pipeline.legend import LAYERS
from pipeline.products.catalogue import write_domain, write_edition
from pipeline.products.gis import write_gis
from pipeline.runs.draft import Draft


def tidy(campaign: Campaign, domains: Iterable[str]) -> None:
    """Removes what a killed publish left beside the domains' tiles; a run's own temporary files stay.

    Call it while no other publish is at work.
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
        product.name: (write_domain(_folder(draft, product.name), product.sealed, recipe=recipe), product.sealed)
        for product in draft.products
        if product.sealed
    }
    write_edition(draft.folder / "catalog", domains, number=draft.plan.number)


def gis(draft: Draft) -> None:
    """Writes index, style and quick-look of each domain beside its COGs, and those of the nation in the edition.

    Raises:
        ProductError: a COG that cannot be read.
        StorageError: a folder cannot be written.
    """
    products = [product for product in draft.products if product.sealed]
    for done, product in enumerate(products, start=1):
        write_gis(_folder(draft, product.name), product.sealed, prefix=f"{product.name}-")
        draft.progress(done, len(products) + 1)
    write_gis(draft.folder, [tile for product in products for tile in product.sealed])
    draft.progress(len(products) + 1, len(products) + 1)


def _folder(draft: Draft, domain: str) -> Path:
    return draft.campaign.output.domains / domain
