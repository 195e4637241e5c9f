"""Verifies products by reading everything again: COGs, checksums, items, seams, and the national store."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial, reduce
from operator import add
from typing import Any

from pipeline.config import Campaign, LimitsSection
from pipeline.domain import Domain
from pipeline.errors import LandcoverError, ProductError
from pipeline.evaluation.seams import SeamRatio
from pipeline.grid import Window
from pipeline.products.manifest import changed_if_sealed
from pipeline.products.national.edition_record import current_edition, damaged_files
from pipeline.products.national.pyramid.store import check_pyramid
from pipeline.products.national.zarr_store import check_shards
from pipeline.products.tile.seal import SealedTile, list_readable
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
from pipeline.sources.domain_inputs import DomainInputs


@dataclass(frozen=True, eq=False)
class DomainVerification:
    """The verification of one domain's product."""

    domain: Domain
    tiles: int
    files: int
    missing: tuple[str, ...]
    """Tiles of the catalog that are not sealed."""
    problems: tuple[str, ...]
    damaged: tuple[str, ...]
    """Names of the tiles with problems."""
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
    manifest: bool
    """Whether the current edition has a manifest, by which all of its files are checked; older versions wrote none."""
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
    """Reads every sealed tile again, counts changes across its edges, and reads every file of the current edition.

    It continues after a problem, and returns all.

    Args:
        campaign: names domains, folders and limits.
        progress: counts tiles; each is read twice, first to compare it with its item, then for its seams.

    Raises:
        CatalogError: no domain is indexed.
        ConfigError: domains on several lattices.
        ProductError: no domain's run record can be read.
    """
    states, crs = status(campaign), campaign_crs(campaign)
    found = {s.domain: list_readable(campaign.product_folder(s.domain), s.domain, campaign.grid.tile) for s in states}
    sealed = {domain: tiles for domain, (tiles, _) in found.items()}
    jobs = [tile for tiles in sealed.values() for tile in tiles]
    progress.start(2 * len(jobs))
    with ThreadPoolExecutor(TILES_AT_ONCE) as pool:
        checked = progress.track(pool.map(partial(_check, crs=crs), jobs))
        problems = dict(zip(jobs, checked, strict=True))
    domains = []
    for state in states:
        own = sealed[state.domain]
        whole = [t for t in own if not problems[t]]
        seams = domain_seams(whole, cuts=cuts_of(campaign), progress=progress)
        progress.advance(len(own) - len(whole))
        inputs = DomainInputs(state.domain, Window(0, 0, 0, 0), ())
        if not state.problem:
            inputs = read_domain(campaign.catalog, state.domain, tile_size=campaign.grid.tile)
        unreadable = found[state.domain][1]
        listed = [state.problem] if state.problem else []
        listed += [f"{name}: {error}" for name, error in unreadable.items()]
        listed += [f"{t.tile.name}: {problem}" for t in own for problem in problems[t]]
        folder = campaign.product_folder(state.domain)
        listed += [f"{folder / name}: {problem}" for name, problem in changed_if_sealed(folder, read_all=True).items()]
        metrics = QualityMetrics.of(state, inputs, own, seams)
        domains.append(
            DomainVerification(
                state.domain,
                len(own),
                sum(len(t.files) for t in own),
                state.unsealed,
                tuple(listed),
                (*unreadable, *(t.tile.name for t in own if problems[t])),
                metrics,
                exceeded_limits(state.domain, metrics, campaign.limits),
            )
        )
    national, manifest = _check_nation(campaign, crs)
    borders = national_borders(campaign, sealed) if national == () else None
    ratio = borders.seam_ratio if borders else None
    return Verification(tuple(domains), national, manifest, ratio, campaign.limits)


def _check(tile: SealedTile, *, crs: str) -> list[str]:
    try:
        return check(tile, crs=crs)
    except (OSError, LandcoverError) as error:
        return [str(error)]  # such as a COG that was deleted meanwhile


def _check_nation(campaign: Campaign, crs: str) -> tuple[tuple[str, ...] | None, bool]:
    """Problems of the national product, None where nothing is published; and whether it has a manifest."""
    try:
        edition = current_edition(campaign.output.national)
    except ProductError as error:
        return (str(error),), True
    if edition is None:
        return None, True
    damaged = [f"{edition.path / name}: {p}" for name, p in damaged_files(edition, read_all=True).items()]
    # Without a manifest, and where it was made of an incomplete store, what must be there is known from the record.
    return tuple(damaged) or (*check_shards(edition, crs=crs), *check_pyramid(edition)), edition.manifest
