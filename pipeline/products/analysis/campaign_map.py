"""The map page of an edition with all that its campaign adds."""

from pathlib import Path

from pipeline.config import Campaign
from pipeline.grid import Tile
from pipeline.products.analysis.zone_shares import zone_table
from pipeline.products.map_page.page_files import MAP_FOLDER, ZONES, write_map
from pipeline.products.national.edition_record import Edition
from pipeline.products.national.grid import GridIndex
from pipeline.products.stac.collections import ITEMS
from pipeline.products.stac.search import search


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
