"""The map page of an edition with all that its campaign adds, and what names the edition's added layers."""

import logging
from pathlib import Path

from pipeline.config import Campaign
from pipeline.errors import MachineError, ProductError
from pipeline.grid import Tile
from pipeline.products.analysis.zone_shares import zone_table
from pipeline.products.map_page.page_files import MAP_FOLDER, ZONES, can_show, write_map
from pipeline.products.national.edition_record import Edition
from pipeline.products.national.grid import GridIndex
from pipeline.products.stac.collections import ITEMS
from pipeline.products.stac.layer_collection import write_layer_collection
from pipeline.products.stac.search import search

log = logging.getLogger("landcover")


def novel_tiles(edition: Edition) -> list[GridIndex]:
    """(row, column) of an edition's tiles whose imagery is unlike that of the training, in any of their domains.

    Raises:
        ProductError: its catalog cannot be read.
    """
    if not (edition.path / "catalog" / ITEMS).is_file():
        return []
    names = {item.properties["landcover:tile"] for item in search(edition.path, min_novelty=1)}
    tiles = (Tile.named(name, edition.grid.tile) for name in names)
    return sorted(edition.grid.tile_index(tile) for tile in tiles if edition.grid.extent.contains(tile.window))


def write_campaign_map(campaign: Campaign, edition: Edition) -> Path:
    """Writes the page of an edition, unless it has the same one; returns its HTML file.

    Args:
        campaign: gives the domains' folders and boundaries, the classes, and the zones if it has any.
        edition: of its national product.

    Raises:
        MachineError: the package was built without the page.
        ProductError: the edition is of an older version, or its domains, a boundary or the zones cannot be read.
        StorageError: the folder cannot be written.
    """
    output = campaign.output
    former = edition.path / MAP_FOLDER / ZONES
    return write_map(
        edition,
        domains=output.domains,
        live=campaign.recipe().live,
        boundaries=campaign.boundaries,
        novel=novel_tiles(edition),
        zones=zone_table(edition, output.zones, output.zones_name, former=former) if output.zones else None,
    )


def update_layers(campaign: Campaign, edition: Edition) -> None:
    """Writes what names the layers of an edition, after one was added: their STAC collection, and the map page.

    Where one cannot be written, a warning says why; everything else is there without it.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        write_layer_collection(edition.path)
        if can_show(edition):
            write_campaign_map(campaign, edition)
    except (MachineError, ProductError) as error:
        log.warning("the map page or the list of layers of the edition is not written: %s", error)
