"""Writes the quality reports of the domains and of the nation, from items, records, catalog and overviews."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.durable import write_text
from pipeline.errors import ProductError
from pipeline.evaluation.seams import Crossings
from pipeline.legend import Language
from pipeline.products.manifest import write_manifest
from pipeline.products.national.edition_record import current_edition
from pipeline.products.national.zarr_store import check_shards
from pipeline.products.tile.seal import list_readable, matches
from pipeline.progress import SILENT, Progress
from pipeline.runs.planning.automatic_choices import with_choices
from pipeline.runs.quality.quality_metrics import (
    QualityMetrics,
    cuts_of,
    domain_seams,
    national_borders,
)
from pipeline.runs.quality.quality_page import ReportedDomain, quality_page
from pipeline.runs.quality.report_tiles import MapLinks
from pipeline.runs.tracking.run_record import read_run_record
from pipeline.runs.tracking.status import status
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.inspection.radiometry import cached_levels
from pipeline.untrusted.own_files import is_own

log = logging.getLogger("landcover")

REPORT_FOLDER, REPORT_FILE = "report", "report.html"


def write_reports(
    campaign: Campaign,
    *,
    domains: Sequence[str] = (),
    language: Language = "en",
    progress: Progress = SILENT,
) -> tuple[Path, ...]:
    """Writes `report/report.html` into each domain's folder, and one of all domains into the current edition.

    The folder `report` has its own manifest, because those of domain and edition are sealed before.

    Every pixel of the land cover is read once, for its seams; the rest comes from overviews, items and records. Tiles
    are linked to their place in the current edition's map page, if it has one.

    Args:
        campaign: names domains, folders and limits.
        domains: names of some of its domains, then without the nation's page; all when empty.
        language: of the pages; causes of failures are in English.
        progress: counts pixels, then pages.

    Returns:
        The pages.

    Raises:
        CatalogError: no domain is indexed.
        ConfigError: a domain that the campaign does not have, or `auto` sizes that no plan resolved yet.
        ProductError: nothing is sealed, or an item, a record or a tile cannot be read.
        StorageError: a page cannot be written.
    """
    campaign = with_choices(campaign)
    wanted = [campaign.domain(name).name for name in domains] or [section.name for section in campaign.domains]
    parts = _read_domains(campaign, wanted, progress=progress)
    wanted = [name for name in wanted if name in parts]
    if not any(parts[name].sealed for name in wanted):
        raise ProductError(f"{campaign.output.domains}: no tile is sealed yet; `landcover run` maps them")
    edition = current_edition(campaign.output.national)
    nation = None if domains else edition
    shown = [parts[name] for name in wanted if parts[name].sealed]
    progress.start(len(shown) + (nation is not None))

    def links(folder: Path) -> MapLinks:
        return MapLinks.of(edition, folder / REPORT_FOLDER, language)

    pages = {
        campaign.product_folder(own.name): quality_page(
            campaign,
            [own],
            compared=[own, *(p for p in parts.values() if p is not own and p.sealed and p.touches(own))],
            links=links(campaign.product_folder(own.name)),
        )
        for own in progress.track(shown)
    }
    if nation is not None:
        borders = None if check_shards(nation) else national_borders(campaign, {n: p.sealed for n, p in parts.items()})
        mapped = [p for p in parts.values() if p.sealed]
        pages[nation.path] = quality_page(
            campaign,
            mapped,
            compared=mapped,
            links=links(nation.path),
            borders=borders or Crossings(),
            edition=nation,
        )
        progress.advance()
    return tuple(_write(folder, page) for folder, page in pages.items())


def _write(product: Path, page: str) -> Path:
    """Writes a page and its manifest; removes the page that an older version wrote outside of the folder."""
    folder = product / REPORT_FOLDER
    write_text(folder / REPORT_FILE, page)
    write_manifest(folder, [REPORT_FILE])
    if is_own(product / REPORT_FILE, kind="file"):
        (product / REPORT_FILE).unlink()
    return folder / REPORT_FILE


def _read_domains(campaign: Campaign, wanted: Sequence[Domain], *, progress: Progress) -> dict[Domain, ReportedDomain]:
    """Reads all domains of the campaign; seams are counted in the wanted ones only."""
    sealed = {
        s.name: tuple(
            t for t in list_readable(campaign.product_folder(s.name), s.name, campaign.grid.tile)[0] if not matches(t)
        )
        for s in campaign.domains
    }
    progress.start(sum(tile.tile.window.pixels for name in wanted for tile in sealed[name]), "pixels")
    parts = {}
    for state in status(campaign):
        name = state.domain
        if state.problem:
            log.warning("%s: no report: %s", name, state.problem)
            continue
        inputs = read_domain(campaign.catalog, name, tile_size=campaign.grid.tile)
        counted = sealed[name] if name in wanted else ()
        seams = domain_seams(counted, cuts=cuts_of(campaign), progress=progress)
        parts[name] = ReportedDomain(
            state,
            inputs,
            sealed[name],
            QualityMetrics.of(state, inputs, sealed[name], seams),
            read_run_record(campaign.product_folder(name)),
            cached_levels(campaign.catalog, inputs),
        )
    return parts
