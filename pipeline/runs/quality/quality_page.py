"""The quality report of a domain or of the nation, as one HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.evaluation import product_charts as charts
from pipeline.evaluation.seams import Crossings
from pipeline.grid import PIXELS_PER_M
from pipeline.html_page import render
from pipeline.products.gis.overviews import STATE_COLOURS, class_colours
from pipeline.products.national.edition_record import Edition
from pipeline.runs.quality.quality_metrics import ExceededLimit, QualityMetrics
from pipeline.runs.tracking.run_record import MappedTile, MappingSpeed
from pipeline.sources.inspection.radiometry import BandLevels


@dataclass(frozen=True, eq=False)
class ProductPictures:
    """Small pictures of a product: uint8 (y, x) or (y, x, 3)."""

    classes: NDArray[np.uint8]
    """FLAIR values."""
    confidence: NDArray[np.uint8]
    states: NDArray[np.uint8]
    """rgb: the state of each tile."""
    confidence_counts: NDArray[np.int64]
    """int64 (256,): of a sample at full resolution."""

    @property
    def confidence_pixels(self) -> int:
        """Counted pixels that have data."""
        return int(self.confidence_counts[1:].sum())

    @property
    def mean_confidence(self) -> float:
        """0..1 over the counted pixels, of which there must be some."""
        return float((self.confidence_counts * np.arange(256)).sum()) / self.confidence_pixels / 255

    @property
    def unsure_share(self) -> float:
        """0..1 of the counted pixels that have a confidence below one half; there must be some."""
        return float(self.confidence_counts[1:128].sum() / self.confidence_pixels)


@dataclass(frozen=True, eq=False)
class QualityReport:
    """The content of the quality page of one domain, or of the nation."""

    title: str
    about: Mapping[str, str]
    metrics: QualityMetrics
    exceeded: Sequence[ExceededLimit]
    pictures: ProductPictures
    shares: Mapping[str, Mapping[int, float]]
    """Domain → FLAIR value → share of its mapped area; the page's own first, then its neighbours."""
    live: Sequence[int]
    """FLAIR values that may appear."""
    failures: Sequence[tuple[str, str]]
    """(tile, cause)."""
    missing: Sequence[str]
    gaps: Sequence[tuple[str, float]]
    """(tile, 0..1 of it without data), the largest first."""
    holes: Sequence[tuple[str, float]]
    """(tile, 0..1 of it without elevation), the largest first."""
    speeds: Mapping[str, MappingSpeed]
    """Domain → speed of its last run."""
    mapped_tiles: Sequence[MappedTile]
    """Sealed tiles in the run records: `tile`, `seconds`, `pixels`."""
    levels: Mapping[str, Sequence[BandLevels]]
    """Domain → its imagery's levels by band."""
    tile_levels: Mapping[str, Sequence[BandLevels]]
    """Tile → the same."""
    unseen: int
    """Tiles whose levels are missing in the catalog."""
    domains: Mapping[str, QualityMetrics]
    """Domain → its metrics on the nation's page; empty on a domain's page."""
    borders: Crossings | None = None
    """Across borders of domains; None on a domain's page."""
    edition: Edition | None = None
    """The edition of the nation's page; None on a domain's page."""


def quality_page(report: QualityReport) -> str:
    """The HTML page."""
    pictures, coverage = report.pictures, report.metrics.coverage
    offs: dict[str, list[float]] = {}
    for band in (band for bands in report.tile_levels.values() for band in bands):
        offs.setdefault(band.band, []).append(band.off)
    mapped = [v for v in report.live if any(own.get(v) for own in report.shares.values())]
    speeds = [t.pixels / 1e6 / t.seconds for t in report.mapped_tiles if t.seconds > 0]
    return render(
        "quality.html",
        title=report.title,
        report=report,
        key=legend.classes(v for v in report.live if (pictures.classes == v).any()),
        mapped=legend.classes(mapped),
        states=[(state, colour, getattr(coverage, state)) for state, colour in STATE_COLOURS.items()],
        outlying={
            tile: outlying
            for tile, bands in report.tile_levels.items()
            if (outlying := [band for band in bands if band.outlying])
        },
        land_cover_png=charts.picture(class_colours(pictures.classes)),
        confidence_png=charts.picture(charts.confidence_colours(pictures.confidence)),
        states_png=charts.picture(pictures.states),
        classes_png=charts.class_bars(report.shares, mapped) if mapped else None,
        histogram_png=charts.confidence_bars(pictures.confidence_counts),
        dots_png=charts.tile_dots(offs, limit=1.0) if offs else None,
        speed_png=charts.tile_speeds(speeds) if speeds else None,
        area=_area,
    )


def _area(pixels: int) -> str:
    return f"{pixels / PIXELS_PER_M**2 / 1e6:,.2f} km²"
