"""Measures a domain's product: coverage, gaps, elevation holes, seams, and which limits they exceed."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from pipeline import legend
from pipeline.config import Campaign, LimitsSection
from pipeline.domain import Domain
from pipeline.evaluation.seams import Crossings, Cuts, SeamRatio
from pipeline.html_page import Wording
from pipeline.products.assessment.edge_changes import Seams, between_tiles, border_seams, neighbours, tile_seams
from pipeline.products.national.edition_record import current_edition
from pipeline.products.tile.seal import SealedTile
from pipeline.progress import SILENT, Progress
from pipeline.runs.tracking.status import DomainStatus
from pipeline.sources.domain_inputs import DomainInputs
from pipeline.sources.inspection.model_card_limits import wider_halo

VISIBLE_SEAMS = 1.1
"""Seam ratio from which on `verify` names a remedy where the campaign sets no limit."""
TILES_AT_ONCE = 2
"""Tiles that threads read side by side. Counting seams takes a strip of a tile and the pixels beside its lines."""


@dataclass(frozen=True, eq=False)
class _Summed:
    """Values of domains, which are added field by field."""

    def __add__(self, other: Self) -> Self:
        return replace(self, **{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Coverage(_Summed):
    """Tiles of the input catalog by state; each is counted once."""

    expected: int
    sealed: int
    failed: int
    """Suspect ones among them."""
    missing: int
    """Never sealed, those in flight among them."""
    damaged: int

    @classmethod
    def of(cls, state: DomainStatus) -> "Coverage":
        """Counts a domain's tiles."""
        counts = [len(tiles) for tiles in (state.sealed, state.failures, state.not_tried, state.damaged)]
        return cls(sum(counts), *counts)

    @property
    def share(self) -> float:
        """0..1 of the tiles that are sealed and whole."""
        return self.sealed / self.expected if self.expected else 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"share": self.share}


@dataclass(frozen=True)
class ElevationHoles(_Summed):
    """Shares of tiles without elevation, from `landcover stage`; heights made while reading are not counted."""

    tiles: int
    """Tiles."""
    counted: int
    """Tiles whose share is known."""
    shares: float
    """Sum of their shares, 0..1 each."""

    @classmethod
    def of(cls, inputs: DomainInputs) -> "ElevationHoles":
        """Of a domain's catalog."""
        known = [t.hole_share for t in inputs.tiles if t.hole_share is not None]
        return cls(len(inputs.tiles), len(known), sum(known))

    @property
    def share(self) -> float | None:
        """0..1 of the area of the counted tiles; None where none is."""
        return self.shares / self.counted if self.counted else None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"tiles": self.tiles, "tiles_counted": self.counted, "share": self.share}


@dataclass(frozen=True)
class SwitchedOff(_Summed):
    """How often a class that is switched off would have won, over the tiles where it was counted."""

    tiles: int
    """Tiles that were counted; items of older versions lack the figure."""
    mapped: int
    """Their pixels with data."""
    pixels: int
    """Of these, those where a logit that is switched off is greater than all live ones."""

    @classmethod
    def of(cls, sealed: Sequence[SealedTile]) -> "SwitchedOff":
        """Of a domain's sealed tiles."""
        counted = [s for s in sealed if s.switched_off is not None]
        mapped = sum(s.tile.window.pixels - s.class_pixels.get(legend.NODATA, 0) for s in counted)
        return cls(len(counted), mapped, sum(s.switched_off or 0 for s in counted))

    @property
    def share(self) -> float | None:
        """0..1 of the mapped pixels of the counted tiles; None where there are none."""
        return self.pixels / self.mapped if self.mapped else None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"tiles_counted": self.tiles, "pixels": self.pixels, "share": self.share}


@dataclass(frozen=True)
class NovelTiles(_Summed):
    """Tiles by their novelty score, over those that have one."""

    scored: int
    novel: int
    """Of these, those above 1: their imagery is unlike that of the training."""

    @classmethod
    def of(cls, sealed: Sequence[SealedTile]) -> "NovelTiles":
        """Of a domain's sealed tiles."""
        scores = [s.novelty for s in sealed if s.novelty is not None]
        return cls(len(scores), sum(score > 1 for score in scores))

    @property
    def share(self) -> float | None:
        """0..1 of the scored tiles; None where there are none."""
        return self.novel / self.scored if self.scored else None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"tiles_scored": self.scored, "tiles_novel": self.novel, "share": self.share}


@dataclass(frozen=True, eq=False)
class QualityMetrics(_Summed):
    """Values that limits are compared with, of one domain or of all."""

    coverage: Coverage
    holes: ElevationHoles
    pixels: int
    """Of the sealed tiles."""
    no_data: int
    """Of these pixels."""
    seams: Seams
    switched_off: SwitchedOff
    novelty: NovelTiles

    @classmethod
    def of(
        cls, state: DomainStatus, inputs: DomainInputs, sealed: Sequence[SealedTile], seams: Seams
    ) -> "QualityMetrics":
        """Of one domain."""
        return cls(
            Coverage.of(state),
            ElevationHoles.of(inputs),
            sum(s.tile.window.pixels for s in sealed),
            sum(s.class_pixels.get(legend.NODATA, 0) for s in sealed),
            seams,
            SwitchedOff.of(sealed),
            NovelTiles.of(sealed),
        )

    @property
    def no_data_share(self) -> float | None:
        """0..1 of the sealed pixels; None where nothing is sealed."""
        return self.no_data / self.pixels if self.pixels else None

    def as_json(self) -> dict[str, Any]:
        """Plain values; `seam_ratio` has an object or null for each kind of edge."""
        return {
            "coverage": self.coverage.as_json(),
            "no_data_share": self.no_data_share,
            "elevation_holes": self.holes.as_json(),
            "switched_off": self.switched_off.as_json(),
            "novelty": self.novelty.as_json(),
            "seam_ratio": {kind: ratio_json(ratio) for kind, ratio in self.seams.ratios.items()},
        }


@dataclass(frozen=True)
class ExceededLimit:
    """A limit of the campaign that a domain exceeds."""

    domain: Domain
    figure: str
    """The limit's key under `limits`, with the kind of edge for seams: `seam_ratio.block`."""
    value: float
    limit: float
    standard_error: float | None = None

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" ± {self.standard_error:.4g}"
        return f"{self.domain}: {self.figure} is {self.value:.4g}{error}; the limit is {self.limit:g}"


@dataclass(frozen=True)
class LimitState:
    """A figure beside its limit."""

    figure: str
    """The limit's key under `limits`, with the kind of edge for seams: `seam_ratio.block`."""
    value: float | None
    """None where the figure is not known."""
    limit: float | None
    """None where the campaign sets none."""
    standard_error: float | None = None
    by_chance: bool = False
    """Whether a value above the limit may be above it by chance."""

    @property
    def state(self) -> Literal["met", "exceeded", "not set", "not known"]:
        """A limit whose figure is not known is neither met nor exceeded."""
        if self.limit is None:
            return "not set"
        if self.value is None:
            return "not known"
        return "exceeded" if self.value > self.limit and not self.by_chance else "met"


def limit_states(metrics: QualityMetrics, limits: LimitsSection) -> tuple[LimitState, ...]:
    """All limits that a campaign can set, beside a domain's figures."""
    unsealed = metrics.coverage.expected - metrics.coverage.sealed - metrics.coverage.damaged
    seams = [
        LimitState(f"seam_ratio.{kind}", None, limits.seam_ratio)
        if ratio is None
        else LimitState(
            f"seam_ratio.{kind}",
            ratio.ratio,
            limits.seam_ratio,
            ratio.standard_error,
            by_chance=limits.seam_ratio is not None and not ratio.exceeds(limits.seam_ratio),
        )
        for kind, ratio in metrics.seams.ratios.items()
    ]
    return (
        LimitState("missing_tiles", unsealed, limits.missing_tiles),
        LimitState("no_data_share", metrics.no_data_share, limits.no_data_share),
        LimitState("hole_share", metrics.holes.share, limits.hole_share),
        LimitState("novel_share", metrics.novelty.share, limits.novel_share),
        *seams,
    )


def exceeded_limits(domain: Domain, metrics: QualityMetrics, limits: LimitsSection) -> tuple[ExceededLimit, ...]:
    """The limits that a domain exceeds."""
    return tuple(
        ExceededLimit(domain, s.figure, s.value, s.limit, s.standard_error)
        for s in limit_states(metrics, limits)
        if s.state == "exceeded" and s.value is not None and s.limit is not None
    )


def ratio_json(ratio: SeamRatio | None) -> dict[str, float | None] | None:
    """`ratio` and `standard_error`; None where there is no edge."""
    return None if ratio is None else asdict(ratio)


_ENGLISH = Wording()


def seam_remedy(campaign: Campaign, ratio: SeamRatio | None, say: Wording = _ENGLISH) -> str:
    """What lessens seams; empty where they do not exceed the campaign's limit, or `VISIBLE_SEAMS` without one."""
    if ratio is None or not ratio.exceeds(campaign.limits.seam_ratio or VISIBLE_SEAMS):
        return ""
    recipe, grid = campaign.recipe(), campaign.grid
    if recipe.architecture == "upernet" and not recipe.centred_upsampling:
        return say("its head moves borders at the edges of windows: set centred_upsampling: true in the recipe")
    if recipe.pools_whole_window:
        return say(
            "no halo lessens them: %(decoder)s on %(encoder)s sees whole windows",
            decoder=recipe.architecture,
            encoder=recipe.encoder,
        )
    halo = max(recipe.smallest_halo or 0, grid.halo + recipe.stride)
    wider = wider_halo(grid.layout(recipe.stride), halo)
    return say("a wider halo lessens them: in the campaign's grid set %(halo)s", halo=wider)


def cuts_of(campaign: Campaign) -> Cuts:
    """Positions at which the campaign cuts its tiles."""
    recipe = campaign.recipe()
    return Cuts(block=campaign.grid.block, core=campaign.grid.core, stride=recipe.stride)


def domain_seams(sealed: Sequence[SealedTile], *, cuts: Cuts, progress: Progress = SILENT) -> Seams:
    """Counts changes across all edges of a domain's sealed tiles.

    Args:
        sealed: whole tiles of one domain.
        cuts: where they were cut.
        progress: counts the pixels of the tiles; its total is the caller's.

    Raises:
        ProductError: a tile cannot be read.
    """
    pairs: dict[SealedTile, list[SealedTile]] = {}
    for one, other in neighbours(sealed):
        pairs.setdefault(one, []).append(other)
    found = Seams()
    with ThreadPoolExecutor(TILES_AT_ONCE) as pool:
        for counted in pool.map(lambda s: _of_tile(s, pairs.get(s, ()), cuts, progress), sealed):
            found += counted
    return found


def _of_tile(sealed: SealedTile, beside: Sequence[SealedTile], cuts: Cuts, progress: Progress) -> Seams:
    """A tile's own edges, and those with its eastern and southern neighbours."""
    with progress.part(sealed.tile.window.pixels) as part:
        own = tile_seams(sealed, cuts=cuts, progress=part)
        return sum((between_tiles(sealed, other, cuts=cuts) for other in beside), own)


def national_borders(campaign: Campaign, sealed: Mapping[Domain, Sequence[SealedTile]]) -> Crossings | None:
    """Changes across borders of domains in the current edition, which must be whole; None without an edition.

    They are not seams: imagery of two days differs, and so do fields.

    Args:
        campaign: names the national folder.
        sealed: domain → its tiles; borders are searched there.
    """
    edition = current_edition(campaign.output.national)
    if edition is None or edition.grid.tile != campaign.grid.tile:
        return None
    tiles = {name: [s.tile for s in own] for name, own in sealed.items()}
    return border_seams(edition, tiles, cuts=cuts_of(campaign))
