"""Verifies products by reading everything again: COGs, checksums, items, seams, and the national store."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any

from pipeline.config import Campaign, LimitsSection
from pipeline.domain import Domain
from pipeline.evaluation.seams import SeamRatio
from pipeline.products.national.edition_record import current_edition
from pipeline.products.national.pyramid.store import check_pyramid
from pipeline.products.national.zarr_store import check_shards
from pipeline.products.tile.seal import list_sealed
from pipeline.products.tile.verify import check
from pipeline.progress import SILENT, Progress
from pipeline.runs.planning.provenance import campaign_crs
from pipeline.runs.quality.quality_metrics import (
    TILES_AT_ONCE,
    ExceededLimit,
    QualityMetrics,
    cuts_of,
    domain_seams,
    exceeded_limits,
    national_borders,
    ratio_json,
)
from pipeline.runs.tracking.status import status
from pipeline.sources.catalog.reader import read_domain


@dataclass(frozen=True, eq=False)
class DomainVerification:
    """The verification of one domain's product."""

    domain: Domain
    tiles: int
    files: int
    missing: tuple[str, ...]
    """Tiles of the catalog that are not sealed."""
    problems: tuple[str, ...]
    metrics: QualityMetrics
    exceeded: tuple[ExceededLimit, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "domain": self.domain,
            "tiles": self.tiles,
            "files": self.files,
            "missing": list(self.missing),
            "problems": list(self.problems),
            **self.metrics.as_json(),
            "exceeded": [asdict(e) for e in self.exceeded],
        }


@dataclass(frozen=True, eq=False)
class Verification:
    """The result of a verification; `clean` where nothing is wrong and all limits are met."""

    domains: tuple[DomainVerification, ...]
    national: tuple[str, ...] | None
    """Problems of the national product; None where nothing is published."""
    borders: SeamRatio | None
    """Across borders of domains in the national store; None where it has no border or is damaged."""
    limits: LimitsSection

    @property
    def clean(self) -> bool:
        """True where nothing is wrong and all limits are met."""
        return not self.national and not any(d.exceeded or d.problems for d in self.domains)

    @property
    def metrics(self) -> QualityMetrics:
        """Of all domains together."""
        return reduce(add, (d.metrics for d in self.domains))

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "clean": self.clean,
            "checksums_checked": sum(d.files for d in self.domains),
            "tiles_checked": sum(d.tiles for d in self.domains),
            **self.metrics.as_json(),
            "border_ratio": ratio_json(self.borders),
            "limits": self.limits.model_dump(),
            "exceeded": [asdict(e) for d in self.domains for e in d.exceeded],
            "domains": [d.as_json() for d in self.domains],
            "national": None if self.national is None else list(self.national),
        }


def verify(campaign: Campaign, *, progress: Progress = SILENT) -> Verification:
    """Reads every sealed tile again, counts changes across its edges, and checks the national store's current edition.

    Args:
        campaign: names domains, folders and limits.
        progress: counts tiles; each is read twice, first to compare it with its item, then for its seams.

    Raises:
        CatalogError: a domain that is not indexed.
        ConfigError: domains on several lattices.
        ProductError: an item or an edition's record that cannot be read.
    """
    states, crs = status(campaign), campaign_crs(campaign)
    sealed = {s.domain: list_sealed(campaign.product_folder(s.domain), s.domain, campaign.grid.tile) for s in states}
    jobs = [tile for tiles in sealed.values() for tile in tiles]
    progress.start(2 * len(jobs))
    with ThreadPoolExecutor(TILES_AT_ONCE) as pool:
        problems = dict(zip(jobs, progress.track(pool.map(lambda job: check(job, crs=crs), jobs)), strict=True))
    domains = []
    for state in states:
        own = sealed[state.domain]
        whole = [t for t in own if not problems[t]]
        seams = domain_seams(whole, cuts=cuts_of(campaign), progress=progress)
        progress.advance(len(own) - len(whole))
        inputs = read_domain(campaign.catalog, state.domain, tile_size=campaign.grid.tile)
        metrics = QualityMetrics.of(state, inputs, own, seams)
        domains.append(
            DomainVerification(
                state.domain,
                len(own),
                sum(len(t.files) for t in own),
                state.unsealed,
                tuple(f"{t.tile.name}: {problem}" for t in own for problem in problems[t]),
                metrics,
                exceeded_limits(state.domain, metrics, campaign.limits),
            )
        )
    edition = current_edition(campaign.output.national)
    national = None if edition is None else (*check_shards(edition, crs=crs), *check_pyramid(edition))
    borders = national_borders(campaign, sealed) if national == () else None
    return Verification(tuple(domains), national, borders.seam_ratio if borders else None, campaign.limits)
