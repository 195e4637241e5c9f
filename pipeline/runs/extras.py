"""Catalogue and files for GIS people, written by a publish before its edition becomes current."""

from pathlib import Path

from pipeline.config import load_recipe
from pipeline.products.catalogue import write_domain, write_edition
from pipeline.products.gis import write_gis
from pipeline.runs.draft import Draft


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
