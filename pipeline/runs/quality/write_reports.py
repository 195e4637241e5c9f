"""Writes the quality reports of the domains and of the nation, from items, records, catalog and overviews."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial, reduce
from operator import add
from pathlib import Path

import numpy as np

from pipeline import legend
from pipeline.config import Campaign, Recipe
from pipeline.domain import Domain
from pipeline.durable import write_text
from pipeline.errors import ProductError
from pipeline.evaluation.seams import Crossings
from pipeline.grid import Tile, union
from pipeline.products.gis.overviews import State, confidence_counts, edition_overview, overview, state_map
from pipeline.products.national.edition_record import Edition, current_edition
from pipeline.products.national.pyramid.store import check_pyramid
from pipeline.products.national.zarr_store import check_shards
from pipeline.products.tile.seal import SealedTile, list_sealed, matches
from pipeline.progress import SILENT, Progress
from pipeline.runs.planning.provenance import product_origin
from pipeline.runs.quality.quality_metrics import (
    QualityMetrics,
    cuts_of,
    domain_seams,
    exceeded_limits,
    national_borders,
)
from pipeline.runs.quality.quality_page import ProductPictures, QualityReport, quality_page
from pipeline.runs.tracking.run_record import RunRecord, read_run_record
from pipeline.runs.tracking.status import DomainStatus, status
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.domain_inputs import DomainInputs
from pipeline.sources.inspection.lowest_level import BandSums
from pipeline.sources.inspection.radiometry import cached_levels, levels

REPORT_FILE = "report.html"


@dataclass(frozen=True, eq=False)
class _DomainFiles:
    """The content of one domain's files."""

    state: DomainStatus
    inputs: DomainInputs
    sealed: tuple[SealedTile, ...]
    metrics: QualityMetrics
    record: RunRecord
    seen: Mapping[str, BandSums]

    @property
    def name(self) -> Domain:
        return self.state.domain

    @property
    def failed(self) -> tuple[tuple[str, str], ...]:
        """(tile, cause)."""
        return (*self.state.failed, *self.state.suspect)

    @property
    def missing(self) -> tuple[str, ...]:
        """Tiles that were never sealed, those in flight among them."""
        return (*self.state.missing, *self.state.in_flight)

    @property
    def shares(self) -> dict[int, float]:
        """FLAIR value → share of the mapped area."""
        counts = reduce(add, (Counter(dict(s.class_pixels)) for s in self.sealed), Counter[int]())
        mapped = sum(n for value, n in counts.items() if value != legend.NODATA)
        return {value: n / mapped for value, n in counts.items() if value != legend.NODATA and mapped}

    def touches(self, other: "_DomainFiles") -> bool:
        """True where tiles of the two domains overlap or touch."""
        return any(self.inputs.meeting(t.tile.window.grow(1)) for t in other.inputs.tiles)


def write_reports(
    campaign: Campaign,
    *,
    domains: Sequence[str] = (),
    threads: int = 2,
    progress: Progress = SILENT,
) -> tuple[Path, ...]:
    """Writes `report.html` into each domain's folder, and one of all domains into the current edition.

    Every pixel of the land cover is read once, for its seams; the rest comes from overviews, items and records.

    Args:
        campaign: names domains, folders and limits.
        domains: names of some of its domains, then without the nation's page; all when empty.
        threads: tiles read side by side.
        progress: counts tiles.

    Returns:
        The pages.

    Raises:
        CatalogError: a domain that is not indexed.
        ConfigError: a domain that the campaign does not have.
        ProductError: nothing is sealed, or an item, a record or a tile cannot be read.
        StorageError: a page cannot be written.
    """
    wanted = [campaign.domain(name).name for name in domains] or [section.name for section in campaign.domains]
    recipe = campaign.recipe()
    parts = _read_domains(campaign, wanted, threads=threads, progress=progress)
    if not any(parts[name].sealed for name in wanted):
        raise ProductError(f"{campaign.output.domains}: no tile is sealed yet; `landcover run` maps them")
    pages = {
        campaign.product_folder(name) / REPORT_FILE: _report(
            campaign,
            recipe,
            [own],
            title=f"{name}: land cover at 0.20 m",
            compared=[own, *(p for p in parts.values() if p is not own and p.sealed and p.touches(own))],
        )
        for name in wanted
        if (own := parts[name]).sealed
    }
    edition = current_edition(campaign.output.national)
    if edition is not None and not domains:
        borders = None if check_shards(edition) else national_borders(campaign, {n: p.sealed for n, p in parts.items()})
        mapped = [p for p in parts.values() if p.sealed]
        title = f"{campaign.name}: land cover at 0.20 m, edition {edition.number}"
        pages[edition.path / REPORT_FILE] = _report(
            campaign, recipe, mapped, title=title, compared=mapped, borders=borders or Crossings(), edition=edition
        )
    for path, content in pages.items():
        write_text(path, quality_page(content))
    return tuple(pages)


def _read_domains(
    campaign: Campaign, wanted: Sequence[Domain], *, threads: int, progress: Progress
) -> dict[Domain, _DomainFiles]:
    """Reads all domains of the campaign; seams are counted in the wanted ones only."""
    sealed = {
        s.name: tuple(
            t for t in list_sealed(campaign.product_folder(s.name), s.name, campaign.grid.tile) if not matches(t)
        )
        for s in campaign.domains
    }
    progress.start(sum(len(sealed[name]) for name in wanted))
    parts = {}
    for state in status(campaign):
        name = state.domain
        inputs = read_domain(campaign.catalog, name, tile_size=campaign.grid.tile)
        counted = sealed[name] if name in wanted else ()
        seams = domain_seams(counted, cuts=cuts_of(campaign), threads=threads, progress=progress)
        parts[name] = _DomainFiles(
            state,
            inputs,
            sealed[name],
            QualityMetrics.of(state, inputs, sealed[name], seams),
            read_run_record(campaign.product_folder(name)),
            cached_levels(campaign.catalog, inputs),
        )
    return parts


def _report(
    campaign: Campaign,
    recipe: Recipe,
    parts: Sequence[_DomainFiles],
    *,
    title: str,
    compared: Sequence[_DomainFiles],
    borders: Crossings | None = None,
    edition: Edition | None = None,
) -> QualityReport:
    """Gathers the content of a page of these domains; class shares are those of `compared`."""

    def label(part: _DomainFiles, tile: str) -> str:
        return f"{part.name} {tile}" if edition else tile

    gaps = [
        (label(p, s.tile.name), s.class_pixels.get(legend.NODATA, 0) / s.tile.window.pixels)
        for p in parts
        for s in p.sealed
    ]
    return QualityReport(
        title=title,
        about=_about(campaign, recipe, parts),
        metrics=reduce(add, (p.metrics for p in parts)),
        exceeded=[e for p in parts for e in exceeded_limits(p.name, p.metrics, campaign.limits)],
        pictures=_pictures(parts, edition),
        shares={p.name: p.shares for p in compared},
        live=recipe.live,
        failures=[(label(p, tile), cause) for p in parts for tile, cause in p.failed],
        missing=[label(p, tile) for p in parts for tile in p.missing],
        gaps=_largest(gaps),
        holes=_largest([(label(p, t.tile.name), t.hole_share or 0.0) for p in parts for t in p.inputs.tiles]),
        speeds={p.name: p.state.speed for p in parts if p.state.speed},
        mapped_tiles=[t for p in parts for t in p.record.tiles],
        levels={p.name: levels(reduce(add, p.seen.values()), recipe) for p in parts if p.seen},
        tile_levels={label(p, tile): levels(sums, recipe) for p in parts for tile, sums in p.seen.items()},
        unseen=sum(len(p.inputs.tiles) - len(p.seen) for p in parts),
        domains={p.name: p.metrics for p in parts} if edition else {},
        borders=borders,
        edition=edition,
    )


def _largest(shares: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """(tile, share) of those above 0, the largest share first."""
    return sorted((pair for pair in shares if pair[1] > 0), key=lambda pair: (-pair[1], pair[0]))


def _about(campaign: Campaign, recipe: Recipe, parts: Sequence[_DomainFiles]) -> dict[str, str]:
    origins = [product_origin(campaign, recipe, p.inputs.origin) for p in parts]

    def joined(values: Sequence[str]) -> str:
        return "; ".join(dict.fromkeys(v for v in values if v))

    about = {
        "campaign": campaign.name,
        "weights": f"{campaign.model.weights}, recipe {recipe.name}",
        "windows": f"core {campaign.grid.core} px, halo {campaign.grid.halo}, window {campaign.grid.window}; "
        f"block {campaign.grid.block}, tile {campaign.grid.tile}",
        "data": joined([o.attribution for o in origins]),
        "licence": joined([o.licence for o in origins]),
        "cite": joined([o.citation for o in origins]),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return {key: value for key, value in about.items() if value}


def _pictures(parts: Sequence[_DomainFiles], edition: Edition | None) -> ProductPictures:
    """Pictures of the edition; of the sealed tiles where there is no edition, or a part of it is damaged."""
    sealed = [tile for p in parts for tile in p.sealed]
    within = union([t.tile.window for p in parts for t in p.inputs.tiles])
    states: dict[State, list[Tile]] = {"sealed": [], "damaged": [], "failed": [], "missing": []}
    for p in parts:
        tiles = {t.tile.name: t.tile for t in p.inputs.tiles}
        states["sealed"] += [tiles[name] for name in p.state.sealed]
        states["damaged"] += [tiles[name] for name in p.state.damaged]
        states["failed"] += [tiles[name] for name, _ in p.failed]
        states["missing"] += [tiles[name] for name in p.missing]
    if edition is not None and not check_shards(edition) and not check_pyramid(edition):
        draw = partial(edition_overview, edition.path, edition.grid, within=within)
    else:
        draw = partial(overview, sealed, within=within)
    return ProductPictures(
        draw(layer="landcover"),
        draw(layer="confidence"),
        state_map(states, within=within),
        sum((confidence_counts(s) for s in sealed), np.zeros(256, np.int64)),
    )
