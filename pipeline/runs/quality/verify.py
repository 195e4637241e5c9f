"""Verifies products by reading everything again: COGs, checksums, items, seams, and the national store."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial, reduce
from operator import add
from typing import Any

from pipeline.config import Campaign, LimitsSection
from pipeline.domain import Domain
from pipeline.errors import LandcoverError
from pipeline.evaluation.seams import SeamRatio
from pipeline.grid import Window
from pipeline.legend import OptionalLayer
from pipeline.products.manifest import changed_additions
from pipeline.products.tile.domain_manifest import RUN_FILE, changed_beside, lost_by_runs, tile_of
from pipeline.products.tile.optional_layers import check_layer
from pipeline.products.tile.seal import SealedTile, list_readable
from pipeline.products.tile.verify import changes_of, check
from pipeline.progress import SILENT, Progress
from pipeline.runs.planning.automatic_choices import with_choices
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
from pipeline.runs.quality.verify_nation import NationVerification, check_nation
from pipeline.runs.tracking.run_record import record_problem
from pipeline.runs.tracking.status import DomainStatus, status
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
    """Names of the tiles with problems: `landcover run --force` maps them again."""
    incomplete: bool
    """Whether `landcover run` has tiles to map, or a run record to write again."""
    beside: bool
    """Whether there are problems of files that a publish writes beside the tiles."""
    report: bool
    """Whether there are problems of what `landcover report` writes."""
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
    nation: NationVerification
    borders: SeamRatio | None
    """Across borders of domains in the national store; None where it has no border or is damaged."""
    limits: LimitsSection

    @property
    def clean(self) -> bool:
        """True where nothing is wrong and all limits are met."""
        return not self.nation.problems and not any(d.exceeded or d.problems for d in self.domains)

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
            "national": None if self.nation.problems is None else list(self.nation.problems),
        }


def verify(campaign: Campaign, *, progress: Progress = SILENT) -> Verification:
    """Reads every sealed tile again, counts changes across its edges, and reads every file of the current edition.

    It continues after a problem, and returns all.

    Args:
        campaign: names domains, folders and limits.
        progress: counts the bytes of the current edition, then the pixels of the tiles, twice: each tile is compared
            with its item, and read again for its seams.

    Raises:
        CatalogError: no domain's input catalog can be read.
        ConfigError: domains on several lattices, or `auto` sizes that no plan resolved yet.
    """
    campaign = with_choices(campaign)
    states, crs = status(campaign, all_may_fail=True), campaign_crs(campaign)
    nation = check_nation(campaign.output.national, crs, progress=progress)
    found = {s.domain: list_readable(campaign.product_folder(s.domain), s.domain, campaign.grid.tile) for s in states}
    sealed = {domain: tiles for domain, (tiles, _) in found.items()}
    jobs = [tile for tiles in sealed.values() for tile in tiles]
    progress.start(2 * _pixels(jobs), "pixels")
    with ThreadPoolExecutor(TILES_AT_ONCE) as pool:
        checked = pool.map(partial(_check, crs=crs, layers=campaign.layers, progress=progress), jobs)
        problems = dict(zip(jobs, checked, strict=True))
    domains = []
    for state in states:
        own, unreadable = found[state.domain]
        listed: dict[str, list[str]] = {
            name: [str(error), *_changes(campaign, state.domain, name)] for name, error in unreadable.items()
        }
        listed |= {tile.tile.name: problems[tile] for tile in own if problems[tile]}
        published = nation.edition is not None and nation.edition.sealed(state.domain)
        domains.append(_check_domain(campaign, state, own, listed, published=published, progress=progress))
    borders = national_borders(campaign, sealed) if nation.problems == () else None
    ratio = borders.seam_ratio if borders else None
    return Verification(tuple(domains), nation, ratio, campaign.limits)


def _pixels(tiles: Iterable[SealedTile]) -> int:
    return sum(tile.tile.window.pixels for tile in tiles)


def _check(tile: SealedTile, *, crs: str, layers: Sequence[OptionalLayer], progress: Progress) -> list[str]:
    try:
        with progress.part(tile.tile.window.pixels) as part:
            return check(tile, crs=crs, progress=part) or [p for layer in layers for p in check_layer(tile, layer)]
    except (OSError, LandcoverError) as error:
        return [str(error)]  # such as a COG that was deleted meanwhile


def _changes(campaign: Campaign, domain: Domain, name: str) -> list[str]:
    try:
        return changes_of(campaign.product_folder(domain), domain, campaign.tile(name))
    except LandcoverError:
        return []  # no name of a tile


def _check_domain(
    campaign: Campaign,
    state: DomainStatus,
    sealed: tuple[SealedTile, ...],
    of_tiles: Mapping[str, Sequence[str]],
    *,
    published: bool,
    progress: Progress,
) -> DomainVerification:
    """Puts together the problems of a domain's tiles, of the files beside them, and its figures."""
    whole = [tile for tile in sealed if tile.tile.name not in of_tiles]
    seams = domain_seams(whole, cuts=cuts_of(campaign), progress=progress)
    progress.advance(_pixels(sealed) - _pixels(whole))
    inputs = DomainInputs(state.domain, Window(0, 0, 0, 0), ())
    if not state.problem:
        inputs = read_domain(campaign.catalog, state.domain, tile_size=campaign.grid.tile)
    folder = campaign.product_folder(state.domain)
    metrics = QualityMetrics.of(state, inputs, sealed, seams)
    exceeded = exceeded_limits(state.domain, metrics, campaign.limits)
    missing = any(limit.figure == "missing_tiles" for limit in exceeded)
    # A lost item is a missing tile, of which the campaign may allow some.
    checked = {tile.tile.name for tile in sealed} | set(() if missing else state.unsealed)
    lost = lost_by_runs(folder, state.domain, checked=checked)
    beside = changed_beside(folder, state.domain, read_all=True, published=published)
    added = changed_additions(folder)
    record = record_problem(folder)
    problems = [problem for tile in of_tiles.values() for problem in tile]
    problems += [f"{folder / name}: {problem}" for name, problem in {**lost, **beside, **added}.items()]
    # The state's own problem is that of the run record, or of the input catalog.
    problems += [problem for problem in dict.fromkeys((record, state.problem)) if problem]
    damaged = of_tiles.keys() | {tile for name in lost if (tile := tile_of(name, state.domain))}
    rerun = bool(record or RUN_FILE in lost or (missing and set(state.unsealed) - damaged))
    return DomainVerification(
        domain=state.domain,
        tiles=len(sealed),
        files=sum(len(tile.files) + len(campaign.layers) for tile in sealed),
        missing=state.unsealed,
        problems=tuple(problems),
        damaged=tuple(sorted(damaged)),
        incomplete=rerun,
        beside=bool(beside),
        report=bool(added),
        metrics=metrics,
        exceeded=exceeded,
    )
