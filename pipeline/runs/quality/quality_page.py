"""The quality report of a domain or of the nation, as one HTML page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np

from pipeline import legend
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.evaluation import product_charts as charts
from pipeline.evaluation.seams import Crossings
from pipeline.grid import PIXELS_PER_M, Tile, union
from pipeline.html_page import render
from pipeline.products.gis.overviews import (
    STATE_COLOURS,
    State,
    class_colours,
    confidence_counts,
    edition_overview,
    overview,
    state_map,
)
from pipeline.products.national.edition_record import Edition
from pipeline.products.national.generalised.layer import class_balance, read_layer
from pipeline.products.national.pyramid.store import check_pyramid
from pipeline.products.national.zarr_store import check_shards
from pipeline.products.tile.seal import SealedTile
from pipeline.runs.planning.provenance import product_origin
from pipeline.runs.quality.quality_metrics import QualityMetrics, SwitchedOff, exceeded_limits, seam_remedy
from pipeline.runs.tracking.run_record import RunRecord
from pipeline.runs.tracking.status import DomainStatus
from pipeline.sources.domain_inputs import DomainInputs
from pipeline.sources.inspection.lowest_level import BandSums
from pipeline.sources.inspection.radiometry import levels


@dataclass(frozen=True, eq=False)
class ReportedDomain:
    """The content of one domain's files."""

    state: DomainStatus
    inputs: DomainInputs
    sealed: tuple[SealedTile, ...]
    metrics: QualityMetrics
    record: RunRecord
    seen: Mapping[str, BandSums]
    """Tile → sums of its imagery's levels, where the catalog has them."""

    @property
    def name(self) -> Domain:
        """`D064_2021`."""
        return self.state.domain

    @property
    def shares(self) -> dict[int, float]:
        """FLAIR value → share of the mapped area."""
        counts = reduce(add, (Counter(dict(s.class_pixels)) for s in self.sealed), Counter[int]())
        mapped = sum(n for value, n in counts.items() if value != legend.NODATA)
        return {value: n / mapped for value, n in counts.items() if value != legend.NODATA and mapped}

    def touches(self, other: "ReportedDomain") -> bool:
        """True where tiles of the two domains overlap or touch."""
        return any(self.inputs.meeting(t.tile.window.grow(1)) for t in other.inputs.tiles)


def quality_page(
    campaign: Campaign,
    parts: Sequence[ReportedDomain],
    *,
    title: str,
    compared: Sequence[ReportedDomain],
    borders: Crossings | None = None,
    edition: Edition | None = None,
) -> str:
    """The HTML page.

    Args:
        campaign: gives recipe, limits, licence and attribution.
        parts: the domains that the page is about.
        title: of the page.
        compared: domains whose class shares are shown: the page's own, then their neighbours.
        borders: changes across borders of domains; None on a domain's page.
        edition: the edition of the nation's page; None on a domain's page.
    """
    metrics = reduce(add, (p.metrics for p in parts))
    coverage = metrics.coverage
    return render(
        "quality.html",
        title=title,
        about=_about(campaign, parts),
        metrics=metrics,
        states=[(state, colour, getattr(coverage, state)) for state, colour in STATE_COLOURS.items()],
        exceeded=[e for p in parts for e in exceeded_limits(p.name, p.metrics, campaign.limits)],
        speeds={p.name: p.state.speed for p in parts if p.state.speed},
        domains={p.name: p.metrics for p in parts} if edition else {},
        borders=borders,
        remedies=dict.fromkeys(r for ratio in metrics.seams.ratios.values() if (r := seam_remedy(campaign, ratio))),
        edition=edition,
        generalised=_generalised(edition) if edition else None,
        area=_area,
        **_tiles(campaign, parts, national=edition is not None),
        **_classes(campaign, compared),
        **_pictures(campaign, parts, edition),
    )


def _generalised(edition: Edition) -> dict[str, Any] | None:
    """The minimum areas of the generalised map, and the pixels that each class gained and lost; None without one."""
    layer = read_layer(edition.path)
    if layer is None:
        return None
    balance, mapped = class_balance(layer.moved), layer.mapped
    units = {int(value): pixels / PIXELS_PER_M**2 for value, pixels in layer.units.items()}
    return {
        "moved": sum(layer.moved.values()) / max(1, sum(mapped.values())),
        "rows": [
            (kind, units.get(kind.value, 0.0), *map(_hectares, (mapped[kind.value], *balance.get(kind.value, (0, 0)))))
            for kind in legend.classes(mapped)
        ],
    }


def _tiles(campaign: Campaign, parts: Sequence[ReportedDomain], *, national: bool) -> dict[str, Any]:
    """The page's values that are about single tiles. The nation's page names their domains too."""
    recipe = campaign.recipe()

    def named(part: ReportedDomain, tile: str) -> str:
        return f"{part.name} {tile}" if national else tile

    gaps = [
        (named(p, s.tile.name), s.class_pixels.get(legend.NODATA, 0) / s.tile.window.pixels)
        for p in parts
        for s in p.sealed
    ]
    tile_levels = {named(p, tile): levels(sums, recipe) for p in parts for tile, sums in p.seen.items()}
    offs: dict[str, list[float]] = {}
    for band in (band for bands in tile_levels.values() for band in bands):
        offs.setdefault(band.band, []).append(band.off)
    outlying = {tile: [band for band in bands if band.outlying] for tile, bands in tile_levels.items()}
    speeds = [t.pixels / 1e6 / t.seconds for p in parts for t in p.record.tiles if t.seconds > 0]
    return {
        "failures": [(named(p, tile), cause) for p in parts for tile, cause in p.state.failures],
        "missing": [named(p, tile) for p in parts for tile in p.state.not_tried],
        "gaps": _largest(gaps),
        "switched_off_tiles": _largest(
            [(named(p, s.tile.name), SwitchedOff.of([s]).share or 0.0) for p in parts for s in p.sealed]
        ),
        "hole_tiles": _largest([(named(p, t.tile.name), t.hole_share or 0.0) for p in parts for t in p.inputs.tiles]),
        "levels": {p.name: levels(reduce(add, p.seen.values()), recipe) for p in parts if p.seen},
        "outlying": {tile: bands for tile, bands in outlying.items() if bands},
        "unseen": sum(len(p.inputs.tiles) - len(p.seen) for p in parts),
        "dots_png": charts.tile_dots(offs, limit=1.0) if offs else None,
        "speed_png": charts.tile_speeds(speeds) if speeds else None,
    }


def _classes(campaign: Campaign, compared: Sequence[ReportedDomain]) -> dict[str, Any]:
    """Shares of the classes by domain, as values and as a chart."""
    shares: dict[str, dict[int, float]] = {p.name: p.shares for p in compared}
    mapped = [v for v in campaign.recipe().live if any(own.get(v) for own in shares.values())]
    return {
        "shares": shares,
        "mapped": legend.classes(mapped),
        "classes_png": charts.class_bars(shares, mapped) if mapped else None,
    }


def _largest(shares: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """(tile, share) of those above 0, the largest share first."""
    return sorted((pair for pair in shares if pair[1] > 0), key=lambda pair: (-pair[1], pair[0]))


def _about(campaign: Campaign, parts: Sequence[ReportedDomain]) -> dict[str, str]:
    recipe = campaign.recipe()
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


def _pictures(campaign: Campaign, parts: Sequence[ReportedDomain], edition: Edition | None) -> dict[str, Any]:
    """Pictures of the edition; of the sealed tiles where there is no edition, or a part of it is damaged."""
    sealed = [tile for p in parts for tile in p.sealed]
    within = union([t.tile.window for p in parts for t in p.inputs.tiles])
    states: dict[State, list[Tile]] = {"sealed": [], "damaged": [], "failed": [], "missing": []}
    for p in parts:
        tiles = {t.tile.name: t.tile for t in p.inputs.tiles}
        states["sealed"] += [tiles[name] for name in p.state.sealed]
        states["damaged"] += [tiles[name] for name in p.state.damaged]
        states["failed"] += [tiles[name] for name, _ in p.state.failures]
        states["missing"] += [tiles[name] for name in p.state.not_tried]
    if edition is not None and not check_shards(edition) and not check_pyramid(edition):
        draw = partial(edition_overview, edition.path, edition.grid, within=within)
    else:
        draw = partial(overview, sealed, within=within)
    classes = draw(layer="landcover")
    # Counts of confidences 0..255 over a sample at full resolution; 0 is no data.
    counts = sum((confidence_counts(s) for s in sealed), np.zeros(256, np.int64))
    pixels = int(counts[1:].sum())
    return {
        "key": legend.classes(v for v in campaign.recipe().live if (classes == v).any()),
        "land_cover_png": charts.picture(class_colours(classes)),
        "confidence_png": charts.picture(charts.confidence_colours(draw(layer="confidence"))),
        "states_png": charts.picture(state_map(states, within=within)),
        "histogram_png": charts.confidence_bars(counts),
        "confidence_pixels": pixels,
        "mean_confidence": float((counts * np.arange(256)).sum()) / pixels / 255 if pixels else None,
        "unsure_share": float(counts[1:128].sum() / pixels) if pixels else None,
    }


def _area(pixels: int) -> str:
    return f"{pixels / PIXELS_PER_M**2 / 1e6:,.2f} km²"


def _hectares(pixels: int) -> float:
    return pixels / PIXELS_PER_M**2 / 1e4
