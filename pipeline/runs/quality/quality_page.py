"""The quality report of a domain or of the nation, as one HTML page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial, reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.evaluation import product_charts as charts
from pipeline.evaluation.seams import Crossings
from pipeline.grid import PIXELS_PER_M, Tile, union
from pipeline.html_page import Wording, render
from pipeline.products.gis.overviews import (
    STATE_COLOURS,
    State,
    class_colours,
    confidence_counts,
    edition_overview,
    overview,
)
from pipeline.products.national.edition_record import Edition
from pipeline.products.national.pyramid.store import check_pyramid
from pipeline.products.national.zarr_store import check_shards
from pipeline.products.tile.seal import SealedTile
from pipeline.runs.planning.provenance import product_origin
from pipeline.runs.quality.generalised_areas import generalised_areas
from pipeline.runs.quality.layer_figures import change_figures, polygon_figures
from pipeline.runs.quality.quality_metrics import LimitState, QualityMetrics, SwitchedOff, limit_states, seam_remedy
from pipeline.runs.quality.report_tiles import MapLinks, TileMap, TileName, imagery_picture, small_imagery
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

    @cached_property
    def tiles(self) -> dict[str, Tile]:
        """The tiles of the catalog by name."""
        return {t.tile.name: t.tile for t in self.inputs.tiles}

    @cached_property
    def confidence(self) -> dict[str, NDArray[np.int64]]:
        """Sealed tile → counts of confidences 0..255, over a sample of its pixels at full resolution."""
        return {s.tile.name: confidence_counts(s) for s in self.sealed}

    @cached_property
    def imagery(self) -> dict[str, NDArray[np.uint8]]:
        """Tile → its imagery, small; without those that cannot be read."""
        return small_imagery(self.inputs.tiles, within=union([t.window for t in self.tiles.values()]))

    def touches(self, other: "ReportedDomain") -> bool:
        """True where tiles of the two domains overlap or touch."""
        return any(self.inputs.meeting(t.tile.window.grow(1)) for t in other.inputs.tiles)


@dataclass(frozen=True)
class _Texts:
    """How a page says things: its language, names of tiles, and links to them."""

    say: Wording
    links: MapLinks
    national: bool

    @property
    def language(self) -> legend.Language:
        return self.links.language

    def tile(self, part: ReportedDomain, name: str) -> TileName:
        """The nation's page names domains too."""
        label = f"{part.name} {name}" if self.national else name
        return TileName(label, self.links.to(part.tiles[name]) if name in part.tiles else None)


def quality_page(
    campaign: Campaign,
    parts: Sequence[ReportedDomain],
    *,
    compared: Sequence[ReportedDomain],
    links: MapLinks,
    borders: Crossings | None = None,
    edition: Edition | None = None,
) -> str:
    """The HTML page.

    Args:
        campaign: gives recipe, limits, licence and attribution.
        parts: the domains that the page is about.
        compared: domains whose class shares are shown: the page's own, then their neighbours.
        links: into the map page, and the language of the page.
        borders: changes across borders of domains; None on a domain's page.
        edition: the edition of the nation's page; None on a domain's page.
    """
    metrics = reduce(add, (p.metrics for p in parts))
    texts = _Texts(Wording(links.language), links, edition is not None)
    title = (
        texts.say("%(name)s: land cover at 0.20 m, edition %(number)s", name=campaign.name, number=edition.number)
        if edition
        else texts.say("%(name)s: land cover at 0.20 m", name=parts[0].name)
    )
    values = {
        **_tiles(campaign, parts, texts),
        **_classes(campaign, compared, texts),
        **_pictures(campaign, parts, edition, texts),
    }
    limits = _limits(campaign, parts)
    ratios = metrics.seams.ratios
    return render(
        "quality.html",
        language=links.language,
        title=title,
        about=_about(campaign, parts, texts.say),
        metrics=metrics,
        states=[(state, colour, getattr(metrics.coverage, state)) for state, colour in STATE_COLOURS.items()],
        limits=limits,
        exceeded=sum(state.state == "exceeded" for _, state in limits),
        speeds={p.name: p.state.speed for p in parts if p.state.speed},
        domains={p.name: p.metrics for p in parts} if edition else {},
        borders=borders,
        remedies=dict.fromkeys(r for ratio in ratios.values() if (r := seam_remedy(campaign, ratio, texts.say))),
        worst_seam=max((r for r in ratios.values() if r), key=lambda ratio: ratio.ratio, default=None),
        edition=edition,
        mapped_km2=_km2(metrics.pixels - metrics.no_data),
        main_class=_main_class(parts),
        km2=_km2,
        generalised=generalised_areas(edition) if edition else None,
        polygons=polygon_figures(edition) if edition else (),
        changes=change_figures(edition) if edition else (),
        **values,
    )


def _main_class(parts: Sequence[ReportedDomain]) -> tuple[legend.LandCover, float] | None:
    """The class with the largest area, and its share of the mapped area; None where nothing is mapped."""
    counts = reduce(add, (Counter(dict(s.class_pixels)) for p in parts for s in p.sealed), Counter[int]())
    counts.pop(legend.NODATA, None)
    if not counts.total():
        return None
    ((value, pixels),) = counts.most_common(1)
    return legend.BY_VALUE[value], pixels / counts.total()


def _limits(campaign: Campaign, parts: Sequence[ReportedDomain]) -> list[tuple[Domain, LimitState]]:
    """Each limit with the domain that comes nearest to it or exceeds it most, then other domains that exceed it."""
    rows: dict[str, list[tuple[Domain, LimitState]]] = {}
    for p in parts:
        for state in limit_states(p.metrics, campaign.limits):
            rows.setdefault(state.figure, []).append((p.name, state))
    found = []
    for states in rows.values():
        order = ("exceeded", "met", "not known", "not set")
        states.sort(key=lambda pair: (order.index(pair[1].state), -(pair[1].value or 0.0), pair[0]))
        found += [states[0], *(pair for pair in states[1:] if pair[1].state == "exceeded")]
    return found


def _tiles(campaign: Campaign, parts: Sequence[ReportedDomain], texts: _Texts) -> dict[str, Any]:
    """The page's values that are about single tiles."""
    recipe, named = campaign.recipe(), texts.tile
    gaps = [
        (named(p, s.tile.name), s.class_pixels.get(legend.NODATA, 0) / s.tile.window.pixels)
        for p in parts
        for s in p.sealed
    ]
    tile_levels = {named(p, tile): levels(sums, recipe) for p in parts for tile, sums in p.seen.items()}
    offs: dict[str, list[tuple[str, float]]] = {}
    for tile, bands in tile_levels.items():
        for band in bands:
            offs.setdefault(band.band, []).append((tile.label, band.off))
    outlying = {tile: [band for band in bands if band.outlying] for tile, bands in tile_levels.items()}
    speeds = [
        (named(p, t.tile).label, t.pixels / 1e6 / t.seconds) for p in parts for t in p.record.tiles if t.seconds > 0
    ]
    return {
        "failures": [(named(p, tile), cause) for p in parts for tile, cause in p.state.failures],
        "missing": [named(p, tile) for p in parts for tile in p.state.not_tried],
        "gaps": _largest(gaps),
        "switched_off_tiles": _largest(
            [(named(p, s.tile.name), SwitchedOff.of([s]).share or 0.0) for p in parts for s in p.sealed]
        ),
        "novel_tiles": _largest(
            [(named(p, s.tile.name), s.novelty or 0.0) for p in parts for s in p.sealed if (s.novelty or 0.0) > 1]
        ),
        "hole_tiles": _largest([(named(p, t.tile.name), t.hole_share or 0.0) for p in parts for t in p.inputs.tiles]),
        "levels": {p.name: levels(reduce(add, p.seen.values()), recipe) for p in parts if p.seen},
        "outlying": {tile: bands for tile, bands in outlying.items() if bands},
        "unseen": sum(len(p.inputs.tiles) - len(p.seen) for p in parts),
        "dots": charts.tile_dots(offs, limit=1.0, language=texts.language) if offs else None,
        "speed_dots": charts.tile_speeds(speeds, language=texts.language) if speeds else None,
    }


def _classes(campaign: Campaign, compared: Sequence[ReportedDomain], texts: _Texts) -> dict[str, Any]:
    """Shares of the classes by domain, as values and as a chart."""
    shares: dict[str, dict[int, float]] = {p.name: p.shares for p in compared}
    mapped = [v for v in campaign.recipe().live if any(own.get(v) for own in shares.values())]
    return {
        "shares": shares,
        "mapped": legend.classes(mapped),
        "bars": charts.class_bars(shares, mapped, language=texts.language) if mapped else None,
    }


def _largest(shares: Sequence[tuple[TileName, float]]) -> list[tuple[TileName, float]]:
    """(tile, share) of those above 0, the largest share first."""
    return sorted((pair for pair in shares if pair[1] > 0), key=lambda pair: (-pair[1], pair[0].label))


def _about(campaign: Campaign, parts: Sequence[ReportedDomain], say: Wording) -> dict[str, str]:
    recipe, grid = campaign.recipe(), campaign.grid
    origins = [product_origin(campaign, recipe, p.inputs.origin) for p in parts]

    def joined(values: Sequence[str]) -> str:
        return "; ".join(dict.fromkeys(v for v in values if v))

    about = {
        say("campaign"): campaign.name,
        say("weights"): say(
            "%(weights)s, recipe %(recipe)s", weights=str(campaign.model.title), recipe=str(recipe.name)
        ),
        say("windows"): say(
            "core %(core)s px, halo %(halo)s, window %(window)s; block %(block)s, tile %(tile)s",
            core=grid.core,
            halo=grid.halo,
            window=grid.window,
            block=grid.block,
            tile=grid.tile,
        ),
        say("data"): joined([o.attribution for o in origins]),
        say("licence"): joined([o.licence for o in origins]),
        say("cite"): joined([o.citation for o in origins]),
        say("written"): datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return {key: value for key, value in about.items() if value}


def _pictures(
    campaign: Campaign, parts: Sequence[ReportedDomain], edition: Edition | None, texts: _Texts
) -> dict[str, Any]:
    """Pictures of the edition; of the sealed tiles where there is no edition, or a part of it is damaged."""
    sealed = [tile for p in parts for tile in p.sealed]
    within = union([t.tile.window for p in parts for t in p.inputs.tiles])
    if edition is not None and not check_shards(edition) and not check_pyramid(edition):
        draw = partial(edition_overview, edition.path, edition.grid, within=within)
    else:
        draw = partial(overview, sealed, within=within)
    classes = draw(layer="landcover")
    # The newest vintage last, as in the index for QGIS.
    drawn = sorted(parts, key=lambda p: p.name.year)
    seen = any(p.imagery for p in parts)
    imagery = imagery_picture([(list(p.tiles.values()), p.imagery) for p in drawn], within=within)
    states = [drawn for p in parts for drawn in _states(p, texts)]
    return {
        "key": legend.classes(v for v in campaign.recipe().live if (classes == v).any()),
        "imagery": charts.photo(imagery) if seen else None,
        "undrawn": sum(len(p.tiles) - len(p.imagery) for p in parts),
        "land_cover_picture": charts.picture(class_colours(classes)),
        "confidence_picture": charts.picture(charts.confidence_colours(draw(layer="confidence"))),
        "confidence_bar": charts.picture(charts.confidence_bar()),
        "tile_map": TileMap.of(states, within=within),
        **_confidence(parts, texts),
    }


def _confidence(parts: Sequence[ReportedDomain], texts: _Texts) -> dict[str, Any]:
    # Counts of confidences 0..255 over a sample at full resolution; 0 is no data.
    counts = sum((own for p in parts for own in p.confidence.values()), np.zeros(256, np.int64))
    pixels = int(counts[1:].sum())
    return {
        "histogram": charts.confidence_bars(counts, language=texts.language),
        "confidence_pixels": pixels,
        "mean_confidence": _mean(counts),
        "unsure_share": float(counts[1:128].sum() / pixels) if pixels else None,
    }


def _mean(counts: NDArray[np.int64]) -> float | None:
    pixels = int(counts[1:].sum())
    return float((counts * np.arange(256)).sum()) / pixels / 255 if pixels else None


def _states(part: ReportedDomain, texts: _Texts) -> list[tuple[Tile, TileName, State, str]]:
    """The tiles of a domain with their state, and with what is known of each as a text."""
    say, by_name = texts.say, {s.tile.name: s for s in part.sealed}
    states: dict[str, tuple[State, str]] = {
        **dict.fromkeys(part.state.sealed, ("sealed", "")),
        **dict.fromkeys(part.state.damaged, ("damaged", "")),
        **{name: ("failed", cause) for name, cause in part.state.failures},
        **dict.fromkeys(part.state.not_tried, ("missing", "")),
    }
    found = []
    for name, (state, cause) in sorted(states.items()):
        said, sealed = [say.plain(state), cause], by_name.get(name)
        if sealed is not None:
            gap = sealed.class_pixels.get(legend.NODATA, 0) / sealed.tile.window.pixels
            said.append(say("%(share)s without data", share=say.percent(gap)))
            if (mean := _mean(part.confidence[name])) is not None:
                said.append(say("mean confidence %(mean)s", mean=say.decimal(mean)))
            if sealed.novelty is not None:
                said.append(say("novelty %(score)s", score=say.decimal(sealed.novelty)))
        label = texts.tile(part, name)
        text = f"{label.label}: {', '.join(filter(None, said))}"
        found.append((part.tiles[name], label, state, text))
    return found


def _km2(pixels: int) -> float:
    return pixels / PIXELS_PER_M**2 / 1e6
