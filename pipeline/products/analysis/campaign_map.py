"""The map page of an edition with all that its campaign adds."""

from pathlib import Path

from pipeline.config import Campaign
from pipeline.products.analysis.zone_shares import zone_table
from pipeline.products.map_page.page_files import MAP_FOLDER, ZONES, write_map
from pipeline.products.national.edition_record import Edition


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
        zones=zone_table(edition, output.zones, output.zones_name, former=former) if output.zones else None,
    )
