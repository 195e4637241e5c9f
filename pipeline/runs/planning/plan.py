"""The plan of a run: which tiles it maps, and why. The dry run prints the same plan that the run executes."""

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from pipeline.config import Campaign, DomainSection
from pipeline.domain import Domain
from pipeline.errors import ConfigError, ProductError
from pipeline.grid import Tile
from pipeline.html_page import notebook_table
from pipeline.legend import OptionalLayer
from pipeline.products.tile.domain_manifest import RUN_FILE
from pipeline.products.tile.optional_layers import layers_to_make
from pipeline.products.tile.seal import SealedTile, matches, read_sealed
from pipeline.runs.planning.provenance import campaign_crs
from pipeline.runs.planning.resolved_campaign import ResolvedCampaign, resolve
from pipeline.runs.tracking.run_record import RunRecord, read_run_record, record_problem
from pipeline.runs.tracking.status import read_each
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.domain_inputs import Asset, DomainInputs
from pipeline.sources.http_path import WebPath
from pipeline.sources.inspection.model_card_limits import check_halo, check_windows
from pipeline.untrusted.in_threads import map_in_threads

NOT_SCORED = "not scored"
"""Reason to map a tile again whose map is up to date: its novelty score is missing, or of another reference."""
_PART_NAMES = {
    "inputs": "inputs",
    "weights": "weights",
    "recipe": "recipe",
    "tta": "test-time augmentation",
    "temperature": "temperature of the average",
    "layout": "windows",
    "engine": "engine",
    "tile": "tile",
    "crs": "lattice",
    "version": "product version",
}
"""Part of a fingerprint → its name in a plan."""


@dataclass(frozen=True)
class PlannedTile:
    """A tile, its fingerprint of today, and whether it is to be mapped."""

    tile: Tile
    fingerprint: str
    reason: str | None
    """Why it is to be mapped: `not mapped yet`, `inputs changed`, `weights and recipe changed`, `item damaged`, `files
    missing or damaged`, `not scored`, `forced`, `probabilities not made yet`. None: its product is up to date."""
    broken: tuple[str, ...]
    """A sentence for each input file that is missing or changed since it was indexed: the tile will fail."""
    sealed: SealedTile | None
    """The sealed product, up to date or not."""
    failure: str | None = None
    """Why the last attempt failed."""
    suspect: bool = False
    """The last attempt cost several workers."""
    inputs: tuple[Asset, ...] = ()
    """The files that a tile to map depends on; empty for other tiles."""
    layers: Mapping[OptionalLayer, str] = field(default_factory=dict, hash=False)
    """Optional layer → fingerprint of those that are to be made."""
    keeps_map: bool = False
    """The sealed map is up to date and stays as it is: only `layers` are made."""


@dataclass(frozen=True)
class DomainPlan:
    """The tiles of a domain."""

    section: DomainSection
    inputs: DomainInputs
    tiles: tuple[PlannedTile, ...]
    stale: tuple[str, ...] = ()
    """A sentence for each local input file of a sealed tile that changed since it was indexed. Such tiles are mapped
    again only after the domain is indexed again. Missing files are not listed."""
    record_problem: str | None = None
    """Why the run record cannot be used: it is damaged, or missing although tiles are sealed. A run writes it again."""

    @property
    def name(self) -> Domain:
        """`D064_2021`."""
        return self.section.name

    @cached_property
    def todo(self) -> tuple[PlannedTile, ...]:
        """The tiles to map."""
        return tuple(t for t in self.tiles if t.reason)

    @cached_property
    def files(self) -> tuple[Asset, ...]:
        """The files that the tiles to map depend on, each once."""
        return tuple(dict.fromkeys(asset for tile in self.todo for asset in tile.inputs))


@dataclass(frozen=True)
class RunPlan:
    """Everything that a run would do."""

    resolved: ResolvedCampaign
    domains: tuple[DomainPlan, ...]
    damaged: tuple[str, ...] = ()
    """A sentence for each domain whose catalog cannot be read. It is left out of the plan."""

    @property
    def todo(self) -> int:
        """Number of tiles to map."""
        return sum(len(d.todo) for d in self.domains)

    @property
    def remapped(self) -> int:
        """Number of sealed tiles to map again because windows or engine changed."""
        reasons = (t.reason or "" for d in self.domains for t in d.todo if t.sealed)
        return sum("windows" in reason or "engine" in reason for reason in reasons)

    def _repr_html_(self) -> str:
        """A notebook shows the tiles of each domain by what is to be done with them."""
        resolved = self.resolved
        rows = [
            (d.name, len(d.tiles), len(d.todo), "; ".join(f"{n} {why}" for why, n in Counter(_reasons(d)).items()))
            for d in self.domains
        ]
        layout, engine = resolved.layout, resolved.engine
        how = f"{resolved.recipe.name} by {engine.name} {engine.precision}, windows of {layout.window} px"
        title = f"campaign {resolved.campaign.name}, tiles to map: {self.todo}"
        return notebook_table(title, ("domain", "tiles", "to map", "because"), rows, (how, *self.damaged))


def _reasons(domain: DomainPlan) -> list[str]:
    return [planned.reason for planned in domain.tiles if planned.reason]


@dataclass(frozen=True)
class TileFilter:
    """Selects tiles by the result of the last attempt. With both conditions, tiles that meet both."""

    failed: bool = False
    """Only tiles whose last attempt failed, or that are suspect."""
    missing: bool = False
    """Only tiles without any product: not those that changed or are damaged."""

    def matches(self, planned: PlannedTile) -> bool:
        """Whether the tile meets the conditions."""
        return (not self.failed or planned.failure is not None) and (not self.missing or planned.sealed is None)


ALL_TILES = TileFilter()


def make_plan(
    campaign: Campaign,
    *,
    domains: Sequence[str] = (),
    tiles: Sequence[str] = (),
    force: bool = False,
    unscored: bool = False,
    only: TileFilter = ALL_TILES,
    re_resolve: bool = False,
) -> RunPlan:
    """Compares the sealed tiles with what the campaign would make today.

    Args:
        campaign: as `load_campaign` returns it.
        domains: names of some of its domains; all when empty.
        tiles: names of some tiles; all when empty.
        force: map all chosen tiles again.
        unscored: also map tiles again whose novelty score is missing, or of another reference.
        only: keeps only the tiles that it matches.
        re_resolve: choose again what is `auto` in the campaign. Nothing is written: `run` keeps the choices.

    Raises:
        ConfigError: the campaign has no such domain or tile, its domains lie on several lattices, its network
            depends on whole windows, its halo is too small, or `unscored` without a reference.
        WeightsError: the weights are missing, or there are tiles to map and the weights do not fit the recipe.
        CatalogError: no domain is indexed. A single one whose catalog is damaged is named in the plan.

    Examples:
        >>> plan = make_plan(load_campaign("build/demo/campaign.yaml"))
        >>> plan.todo  # tiles to map; the demo has mapped them all
        0
    """
    sections = [campaign.domain(name) for name in domains] or list(campaign.domains)
    campaign_crs(campaign)  # refuses several lattices
    resolved = resolve(campaign, again=re_resolve)
    check_windows(resolved.recipe, resolved.layout, campaign.accept_limits)
    check_halo(resolved.recipe, resolved.layout, campaign.accept_limits)
    if unscored and resolved.reference is None:
        raise ConfigError(
            f"campaign {campaign.name} has no model.reference, so no tile can be scored; make one with `landcover "
            "calibrate --reference`"
        )
    chosen = {campaign.tile(name).name for name in tiles}
    by_name = {section.name: section for section in sections}
    with _cycles_left():
        read, damaged = read_each(
            by_name, lambda name: _plan_domain(resolved, by_name[name], chosen, force=force, unscored=unscored)
        )
    plans = tuple(read.values())
    if unknown := chosen - {t.tile.name for p in plans for t in p.tiles}:
        raise ConfigError(
            f"tile {', '.join(sorted(unknown))} is not in the catalog of {', '.join(s.name for s in sections)}; "
            "`landcover status` lists the tiles"
        )
    plans = tuple(replace(p, tiles=tuple(filter(only.matches, p.tiles))) for p in plans)
    plan = RunPlan(resolved, plans, tuple(f"{name}: {problem}" for name, problem in damaged.items()))
    if plan.todo:
        resolved.check_weights()  # those that do not fit stop a campaign before anything starts
    return plan


@contextmanager
def _cycles_left() -> Iterator[None]:
    """Does not look for garbage in cycles: plans have none, and going through a nation's tiles takes a fifth of one."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _plan_domain(
    resolved: ResolvedCampaign, section: DomainSection, chosen: set[str], *, force: bool, unscored: bool
) -> DomainPlan:
    campaign = resolved.campaign
    inputs = read_domain(campaign.catalog, section.name, tile_size=campaign.grid.tile)
    _check_fits(campaign, section, inputs)
    folder = campaign.product_folder(section.name)
    tiles = sorted(t.tile for t in inputs.tiles if not chosen or t.tile.name in chosen)
    fingerprints = {tile: resolved.fingerprint(tile, inputs) for tile in tiles}

    def reason_to_map(tile: Tile) -> tuple[SealedTile | None, str | None]:
        """The sealed tile if there is one, and the reason to map it or None."""
        try:
            sealed = read_sealed(folder, section.name, tile)
        except ProductError:
            return None, "item damaged"
        if sealed is None:
            return None, "not mapped yet"
        if sealed.fingerprint != fingerprints[tile]:
            return sealed, f"{_changed_parts(sealed.depends_on, dict(resolved.depends_on(tile, inputs)))} changed"
        if matches(sealed):
            return sealed, "files missing or damaged"
        if unscored and sealed.novelty_fingerprint != resolved.novelty_fingerprint(sealed.fingerprint):
            return sealed, NOT_SCORED
        return sealed, "forced" if force else None

    def compare(tile: Tile) -> PlannedTile:
        sealed, reason = reason_to_map(tile)
        layers = resolved.layer_fingerprints(tile, inputs)
        lacking = layers_to_make(folder, section.name, tile, layers)
        if not reason and lacking:
            layers = {layer: layers[layer] for layer in lacking}
            why = ", ".join(f"{layer} {state}" for layer, state in lacking.items())
            return PlannedTile(tile, fingerprints[tile], why, (), sealed, layers=layers, keeps_map=True)
        return PlannedTile(tile, fingerprints[tile], reason, (), sealed, layers=layers)

    compared = list(map_in_threads(compare, tiles))
    to_map = {p.tile: inputs.behind(resolved.read_window(p.tile)) for p in compared if p.reason}
    changes, stale = _changed_files(inputs, to_map, set(tiles) - to_map.keys())
    problem = record_problem(folder)
    record = RunRecord() if problem else read_run_record(folder)
    if not (folder / RUN_FILE).exists() and any(p.sealed for p in compared):
        problem = f"{folder / RUN_FILE} is missing; `landcover run` writes it again"
    planned = [
        replace(
            p,
            broken=tuple(changes[a] for a in to_map.get(p.tile, ()) if a in changes),
            failure=record.failures.get(p.tile.name) if p.reason else None,
            suspect=p.tile.name in record.suspect,
            inputs=to_map.get(p.tile, ()),
        )
        for p in compared
    ]
    return DomainPlan(section, inputs, tuple(planned), stale, problem)


def _changed_parts(sealed: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`inputs and recipe`: the parts whose digest changed. Tiles of early releases do not record the parts."""
    changed = [name for part, name in _PART_NAMES.items() if sealed.get(part) != now.get(part)]
    return " and ".join(changed) if sealed else "inputs, weights, recipe or windows"


def _changed_files(
    inputs: DomainInputs, to_map: dict[Tile, tuple[Asset, ...]], up_to_date: set[Tile]
) -> tuple[dict[Asset, str], tuple[str, ...]]:
    """A sentence for each input file that is missing or changed, and those about sealed tiles.

    The files of sealed tiles may be missing (a purged disk); those of tiles to map must be as they were indexed.
    Servers are asked only for files that will be read.
    """
    kept = {a for t in inputs.tiles if t.tile in up_to_date for a in t.assets if not isinstance(a.path, WebPath)}
    changes = inputs.changes([*(a for assets in to_map.values() for a in assets), *kept])
    return changes, tuple(sorted(changes[a] for a in kept & changes.keys() if inputs.purged(a) is None))


def _check_fits(campaign: Campaign, section: DomainSection, inputs: DomainInputs) -> None:
    """Raises ConfigError where the domain exceeds a limit that the campaign does not accept, or leaves its extent."""
    if exceeded := sorted(set(inputs.limits) - set(campaign.accept_limits)):
        raise ConfigError(
            f"domain {section.name} exceeds limits of the model's card that the campaign does not accept: "
            f"{', '.join(exceeded)}; `landcover index` printed why. To map it all the same, set accept_limits: "
            f"[{', '.join(sorted({*campaign.accept_limits, *exceeded}))}]"
        )
    extent = campaign.extent
    if outside := [t.tile.name for t in inputs.tiles if not extent.contains(t.tile.window)]:
        own = ", ".join(f"{edge / 1000:g}" for edge in inputs.window.bounds)
        raise ConfigError(
            f"domain {section.name}: tile {', '.join(outside[:5])} lies outside extent_km {campaign.output.extent_km} "
            f"of {inputs.crs}; its tiles cover [{own}]. Set an extent_km that contains all domains of the campaign"
        )
