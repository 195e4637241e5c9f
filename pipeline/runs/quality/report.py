"""Reports of the domains and of the nation: gathered from items, records, catalogue and overviews, then written."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import legend
from pipeline.config import Campaign, Recipe, load_recipe
from pipeline.domain import Domain
from pipeline.durable import replacing
from pipeline.errors import ProductError
from pipeline.evaluation.seams import Crossings
from pipeline.grid import Tile, union
from pipeline.products.gis.overviews import State, confidence_counts, edition_overview, overview, state_map
from pipeline.products.national.edition_record import Edition, current_edition
from pipeline.products.national.pyramid.store import check_pyramid
from pipeline.products.national.zarr_store import check_shards
from pipeline.products.tile.seal import SealedTile, list_sealed, matches
from pipeline.progress import SILENT, Progress
from pipeline.runs.provenance import product_origin
from pipeline.runs.quality.metrics import Figures, cuts_of, domain_seams, exceeded, national_borders
from pipeline.runs.quality.report_page import Pictures, Report, page
from pipeline.runs.tracking.run_record import read_run
from pipeline.runs.tracking.status import DomainStatus, status
from pipeline.sources.catalog.index import open_domain
from pipeline.sources.domain_inputs import DomainInputs
from pipeline.sources.inspection.lowest_level import Sums
from pipeline.sources.inspection.radiometry import levels, seen_levels

REPORT_FILE = "report.html"


@dataclass(frozen=True, eq=False)
class _Part:
    """A domain, as its files say."""

    state: DomainStatus
    inputs: DomainInputs
    sealed: tuple[SealedTile, ...]
    figures: Figures
    record: Mapping[str, Any]
    seen: Mapping[str, Sums]

    @property
    def name(self) -> Domain:
        return self.state.domain

    @property
    def shares(self) -> dict[int, float]:
        """FLAIR value → share of the mapped area."""
        counts = reduce(add, (Counter(dict(s.class_pixels)) for s in self.sealed), Counter[int]())
        mapped = sum(n for value, n in counts.items() if value != legend.NODATA)
        return {value: n / mapped for value, n in counts.items() if value != legend.NODATA and mapped}

    def meets(self, other: "_Part") -> bool:
        """True where tiles of the two overlap or touch."""
        return any(self.inputs.meeting(t.tile.window.grow(1)) for t in other.inputs.tiles)


def report(
    campaign: Campaign,
    *,
    domains: Sequence[str] = (),
    threads: int = 2,
    progress: Progress = SILENT,
) -> tuple[Path, ...]:
    """Writes `report.html` into each domain's folder, and, of all domains, into the current edition.

    Every pixel of the land cover is read once, for its seams; the rest comes from overviews, items and records.

    Args:
        campaign: names domains, folders and limits.
        domains: names of some of its domains, then without the nation; all when empty.
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
    recipe = load_recipe(campaign.model.recipe, base=campaign.base)
    parts = _parts(campaign, wanted, threads=threads, progress=progress)
    if not any(parts[name].sealed for name in wanted):
        raise ProductError(f"{campaign.output.domains}: no tile is sealed yet; `landcover run` maps them")
    pages = {
        campaign.output.domains / name / REPORT_FILE: _of_domain(campaign, recipe, parts[name], parts)
        for name in wanted
        if parts[name].sealed
    }
    edition = current_edition(campaign.output.national)
    if edition is not None and not domains:
        borders = None if check_shards(edition) else national_borders(campaign, {n: p.sealed for n, p in parts.items()})
        pages[edition.path / REPORT_FILE] = _of_nation(campaign, recipe, parts, borders, edition=edition)
    for path, given in pages.items():
        with replacing(path) as temporary:
            temporary.write_text(page(given), encoding="utf-8")
    return tuple(pages)


def _parts(campaign: Campaign, wanted: Sequence[Domain], *, threads: int, progress: Progress) -> dict[Domain, _Part]:
    """All domains of the campaign; seams are counted of the wanted ones, the others are only compared with."""
    sealed = {
        s.name: tuple(
            t for t in list_sealed(campaign.output.domains / s.name, s.name, campaign.grid.tile) if not matches(t)
        )
        for s in campaign.domains
    }
    progress.start(sum(len(sealed[name]) for name in wanted))
    parts = {}
    for state in status(campaign):
        name = state.domain
        inputs = open_domain(campaign.catalog, name, tile_size=campaign.grid.tile)
        counted = sealed[name] if name in wanted else ()
        seams = domain_seams(counted, cuts=cuts_of(campaign), threads=threads, progress=progress)
        parts[name] = _Part(
            state,
            inputs,
            sealed[name],
            Figures.of(state, inputs, sealed[name], seams),
            read_run(campaign.output.domains / name),
            seen_levels(campaign.catalog, inputs),
        )
    return parts


def _of_domain(campaign: Campaign, recipe: Recipe, part: _Part, parts: Mapping[Domain, _Part]) -> Report:
    near = [p for p in parts.values() if p is not part and p.sealed and p.meets(part)]
    return _report(
        campaign,
        recipe,
        [part],
        title=f"{part.name}: land cover at 0.20 m",
        shares={p.name: p.shares for p in (part, *near)},
    )


def _of_nation(
    campaign: Campaign, recipe: Recipe, parts: Mapping[Domain, _Part], borders: Crossings | None, *, edition: Edition
) -> Report:
    return _report(
        campaign,
        recipe,
        [p for p in parts.values() if p.sealed],
        title=f"{campaign.name}: land cover at 0.20 m, edition {edition.number}",
        shares={p.name: p.shares for p in parts.values() if p.sealed},
        borders=borders or Crossings(),
        edition=edition,
    )


def _report(
    campaign: Campaign,
    recipe: Recipe,
    parts: Sequence[_Part],
    *,
    title: str,
    shares: Mapping[str, Mapping[int, float]],
    borders: Crossings | None = None,
    edition: Edition | None = None,
) -> Report:
    nation = edition is not None

    def called(part: _Part, tile: str) -> str:
        return f"{part.name} {tile}" if nation else tile

    def largest(found: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
        return sorted((pair for pair in found if pair[1] > 0), key=lambda pair: (-pair[1], pair[0]))

    failed = [(called(p, t), cause) for p in parts for t, cause in (*p.state.failed, *p.state.suspect)]
    return Report(
        title=title,
        about=_about(campaign, recipe, parts),
        figures=reduce(add, (p.figures for p in parts)),
        exceeded=[e for p in parts for e in exceeded(p.name, p.figures, campaign.limits)],
        pictures=_pictures(parts, edition),
        shares=shares,
        live=recipe.live,
        failures=failed,
        missing=[called(p, t) for p in parts for t in (*p.state.missing, *p.state.in_flight)],
        gaps=largest(
            [
                (called(p, s.tile.name), s.class_pixels.get(legend.NODATA, 0) / s.tile.window.pixels)
                for p in parts
                for s in p.sealed
            ]
        ),
        holes=largest([(called(p, t.tile.name), t.hole_share or 0.0) for p in parts for t in p.inputs.tiles]),
        pace={p.name: p.state.pace for p in parts if p.state.pace},
        sealed_tiles=[t for p in parts for t in p.record.get("tiles", ())],
        levels={p.name: levels(reduce(add, p.seen.values()), recipe) for p in parts if p.seen},
        tile_levels={called(p, t): levels(sums, recipe) for p in parts for t, sums in p.seen.items()},
        unseen=sum(len(p.inputs.tiles) - len(p.seen) for p in parts),
        domains={p.name: p.figures for p in parts} if nation else {},
        borders=borders,
        edition=edition,
    )


def _about(campaign: Campaign, recipe: Recipe, parts: Sequence[_Part]) -> dict[str, str]:
    origins = [product_origin(campaign, recipe, p.inputs.origin) for p in parts]

    def joined(values: Sequence[str]) -> str:
        return "; ".join(dict.fromkeys(v for v in values if v))

    given = {
        "campaign": campaign.name,
        "weights": f"{campaign.model.weights}, recipe {recipe.name}",
        "windows": f"core {campaign.grid.core} px, halo {campaign.grid.halo}, window {campaign.grid.window}; "
        f"block {campaign.grid.block}, tile {campaign.grid.tile}",
        "data": joined([o.attribution for o in origins]),
        "licence": joined([o.licence for o in origins]),
        "cite": joined([o.citation for o in origins]),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return {key: value for key, value in given.items() if value}


def _pictures(parts: Sequence[_Part], edition: Edition | None) -> Pictures:
    """Of an edition as it shows its pixels; of tiles where there is none, or where something of it is lost."""
    sealed = [tile for p in parts for tile in p.sealed]
    within = union([t.tile.window for p in parts for t in p.inputs.tiles])
    states: dict[State, list[Tile]] = {"sealed": [], "damaged": [], "failed": [], "missing": []}
    for p in parts:
        at = {t.tile.name: t.tile for t in p.inputs.tiles}
        states["sealed"] += [at[name] for name in p.state.sealed]
        states["damaged"] += [at[name] for name in p.state.damaged]
        states["failed"] += [at[name] for name, _ in (*p.state.failed, *p.state.suspect)]
        states["missing"] += [at[name] for name in (*p.state.missing, *p.state.in_flight)]
    if edition is not None and not check_shards(edition) and not check_pyramid(edition):
        draw = partial(edition_overview, edition.path, edition.grid, within=within)
    else:
        draw = partial(overview, sealed, within=within)
    return Pictures(
        draw(layer="landcover"),
        draw(layer="confidence"),
        state_map(states, within=within),
        sum((confidence_counts(s) for s in sealed), np.zeros(256, np.int64)),
    )
