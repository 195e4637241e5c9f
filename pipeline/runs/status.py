"""How far a campaign is: sealed, failed and missing tiles of each domain, from the files alone."""

from dataclasses import dataclass

from pipeline.config import Campaign
from pipeline.products.item import matches, read_sealed
from pipeline.runs.record import read_run
from pipeline.sources.catalog import open_domain


@dataclass(frozen=True)
class DomainStatus:
    """Names of a domain's tiles, by state; each tile of the catalogue is in one of them."""

    domain: str
    sealed: tuple[str, ...]
    damaged: tuple[str, ...]
    """Sealed once, and files are gone or have another size."""
    failed: tuple[tuple[str, str], ...]
    """(tile, cause) of the last run."""
    missing: tuple[str, ...]


def status(campaign: Campaign) -> tuple[DomainStatus, ...]:
    """Reads catalogue, items and run records; no raster is opened and no weights are loaded.

    Raises:
        CatalogError: a domain that is not indexed.
        ProductError: an item or record that is damaged.
    """
    return tuple(_of_domain(campaign, section.name) for section in campaign.domains)


def _of_domain(campaign: Campaign, name: str) -> DomainStatus:
    folder = campaign.output.domains / name
    causes = read_run(folder).get("failed", {})
    sealed: list[str] = []
    damaged: list[str] = []
    failed: list[tuple[str, str]] = []
    missing: list[str] = []
    for tile in sorted(t.tile for t in open_domain(campaign.catalog, name, tile_size=campaign.grid.tile).tiles):
        item = read_sealed(folder, name, tile)
        if item is not None:
            (damaged if matches(item) else sealed).append(tile.name)
        elif tile.name in causes:
            failed.append((tile.name, str(causes[tile.name])))
        else:
            missing.append(tile.name)
    return DomainStatus(name, tuple(sealed), tuple(damaged), tuple(failed), tuple(missing))
