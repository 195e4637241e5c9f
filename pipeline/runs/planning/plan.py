"""What a run would do, and why: the same plan prints the dry run and drives the work."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from pipeline import fingerprint
from pipeline.cluster import engine_threads
from pipeline.config import Campaign, DomainSection, Recipe, load_recipe
from pipeline.domain import Domain
from pipeline.errors import ConfigError
from pipeline.grid import CRS, Layout, Tile, Window
from pipeline.inference import Engine, Method, Predictor, on_gpu, resolve_engine
from pipeline.inference.memory_projection import MemoryProjection, project_memory
from pipeline.model import Model, load
from pipeline.products.tile.seal import SealedTile
from pipeline.runs.planning.staleness import looked_at
from pipeline.runs.provenance import lattice_of
from pipeline.runs.tracking.run_record import failures, read_run
from pipeline.sources.catalog.index import open_domain
from pipeline.sources.domain_inputs import Asset, DomainInputs
from pipeline.sources.http_path import WebPath
from pipeline.sources.inspection.model_card_limits import check_windows


@dataclass(frozen=True)
class Settings:
    """What a campaign resolves to at submission, the same for all of its tiles."""

    campaign: Campaign
    recipe: Recipe
    layout: Layout
    engine: Engine
    engine_threads: int
    model: Model
    """Loaded, so that weights that do not fit stop a campaign before anything starts."""
    stand_in: Predictor | None = None
    """What maps in place of the engine: a rehearsal's network that costs nothing. No fingerprint knows it, so what
    it seals must not be kept; no campaign can ask for it."""

    @property
    def method(self) -> Method:
        """How a tile's blocks are mapped."""
        return Method(self.model, self.layout, self.campaign.grid.block, self.engine)

    @property
    def memory(self) -> MemoryProjection:
        """What a worker takes at most, on a machine like this one: with a GPU, or without."""
        grid, cluster = self.campaign.grid, self.campaign.cluster
        return project_memory(
            self.layout,
            self.engine,
            bands=len(self.recipe.bands),
            block=grid.block,
            tile=grid.tile,
            threads=cluster.threads,
            tiles_in_flight=cluster.tiles_in_flight,
            gdal_cache_mb=cluster.gdal_cache_mb,
            gpu=on_gpu(self.engine),
        )

    def folder(self, domain: Domain) -> Path:
        """Where a domain's product is."""
        return self.campaign.output.domains / domain

    def reads(self, tile: Tile) -> Window:
        """All that the tile's windows read; it may pass the domain's edge."""
        return self.layout.read_of_block(tile.window)

    def fingerprint(self, tile: Tile, inputs: DomainInputs) -> str:
        """The tile's fingerprint: all that its bytes depend on, its neighbours within reach among it."""
        return fingerprint.digest(self._covered(tile, inputs))

    def depends_on(self, tile: Tile, inputs: DomainInputs) -> tuple[tuple[str, str], ...]:
        """(name, digest) of each thing that the fingerprint covers: by it a later plan says what changed."""
        return tuple((name, fingerprint.digest(value)) for name, value in self._covered(tile, inputs).items())

    def _covered(self, tile: Tile, inputs: DomainInputs) -> dict[str, Any]:
        covered = {
            "version": fingerprint.PRODUCT_VERSION,
            "weights": self.model.weights_hash,
            "recipe": self.recipe.model_dump(mode="json"),
            "layout": asdict(self.layout),
            "engine": self.engine.content,
            "tile": asdict(tile.window),
            "inputs": inputs.inputs_digest(self.reads(tile)),
        }
        # Only where it is another one: what is sealed on the national lattice stays.
        return covered if inputs.crs == CRS else covered | {"crs": inputs.crs}


@dataclass(frozen=True)
class Only:
    """Which of the tiles to map are wanted; with both, those that are both."""

    failed: bool = False
    """Those that failed, or were suspect, when they were tried last."""
    missing: bool = False
    """Those that have no product at all: not those that changed or are damaged."""

    def takes(self, planned: "PlannedTile") -> bool:
        """Whether a tile is wanted."""
        return (not self.failed or planned.failure is not None) and (not self.missing or planned.sealed is None)


@dataclass(frozen=True)
class PlannedTile:
    """A tile, the fingerprint that it would have today, and what is to be done with it."""

    tile: Tile
    fingerprint: str
    reason: str | None
    """Why it is to be mapped: `not mapped yet`, `inputs changed`, `weights and recipe changed`, `files missing or
    damaged`, `forced`; None: it is sealed and today's."""
    broken: tuple[str, ...]
    """Input files behind a tile to map that are gone or changed since they were indexed: it will fail."""
    sealed: SealedTile | None
    """What stands sealed now, today's or not."""
    failure: str | None = None
    """Why it was not sealed when it was tried last."""
    suspect: bool = False
    """It cost several workers then."""
    inputs: tuple[Asset, ...] = ()
    """The files on which a tile to map depends; none where it is sealed."""


@dataclass(frozen=True)
class DomainPlan:
    """A domain's tiles, sealed and to do."""

    section: DomainSection
    inputs: DomainInputs
    tiles: tuple[PlannedTile, ...]
    stale: tuple[str, ...] = ()
    """A sentence for each local input file behind a sealed tile that is not what was indexed: its tiles are not mapped
    again before the domain is indexed again. Files that are gone are not among them."""

    @property
    def name(self) -> Domain:
        """`D064_2021`."""
        return self.section.name

    @property
    def todo(self) -> tuple[PlannedTile, ...]:
        """The tiles that a run would map."""
        return tuple(t for t in self.tiles if t.reason)


@dataclass(frozen=True)
class RunPlan:
    """All that a run would do."""

    settings: Settings
    domains: tuple[DomainPlan, ...]

    @property
    def todo(self) -> int:
        """Tiles to map."""
        return sum(len(d.todo) for d in self.domains)


def resolve(campaign: Campaign) -> Settings:
    """Settles recipe, windows, engine, threads and weights of a campaign. Loads the weights.

    Raises:
        ConfigError: sizes that do not fit each other or the network's stride.
        EngineError: no such engine, or a quantised network that is not of these weights.
        WeightsError: the weights cannot be had or do not fit the recipe.
    """
    recipe = load_recipe(campaign.model.recipe, base=campaign.base)
    layout = campaign.grid.layout(recipe.stride)
    model = load(campaign.weights, recipe)
    return Settings(
        campaign=campaign,
        recipe=recipe,
        layout=layout,
        engine=resolve_engine(
            campaign.engine,
            precision=campaign.precision,
            quantized=campaign.model.quantized,
            model=model,
            compiled=campaign.torch_compile,
        ),
        engine_threads=engine_threads(campaign),
        model=model,
    )


def make_plan(
    campaign: Campaign,
    *,
    domains: Sequence[str] = (),
    tiles: Sequence[str] = (),
    force: bool = False,
    only: Only = Only(),
) -> RunPlan:
    """Compares what is sealed with what the campaign asks for today.

    Args:
        campaign: as `load_campaign` gives it.
        domains: names of some of its domains; all when empty.
        tiles: names of some tiles; all when empty.
        force: map every chosen tile again.
        only: leave of them only those that failed, or that were never sealed.

    Raises:
        ConfigError: a domain or tile that the campaign does not have, domains on several lattices, or a network that
            looks at whole windows.
        CatalogError: a domain that is not indexed.
        ProductError: a sealed item that is damaged.
    """
    sections = [campaign.domain(name) for name in domains] or list(campaign.domains)
    lattice_of(campaign)
    settings = resolve(campaign)
    check_windows(settings.recipe, campaign.accept_limits)
    wanted = {campaign.tile(name).name for name in tiles}
    plans = tuple(_plan_domain(settings, section, wanted, force=force) for section in sections)
    if unknown := wanted - {t.tile.name for p in plans for t in p.tiles}:
        raise ConfigError(
            f"tile {', '.join(sorted(unknown))} is in no chosen domain's catalogue "
            f"({', '.join(s.name for s in sections)}); `landcover status` lists the tiles"
        )
    return RunPlan(settings, tuple(replace(p, tiles=tuple(t for t in p.tiles if only.takes(t))) for p in plans))


def _plan_domain(settings: Settings, section: DomainSection, wanted: set[str], *, force: bool) -> DomainPlan:
    campaign = settings.campaign
    inputs = open_domain(campaign.catalog, section.name, tile_size=campaign.grid.tile)
    _check_fits(campaign, section, inputs)
    folder = settings.folder(section.name)
    tiles = [t.tile for t in inputs.tiles if not wanted or t.tile.name in wanted]
    today = {tile: settings.fingerprint(tile, inputs) for tile in tiles}
    looked = looked_at(
        folder, section.name, today, force=force, depends_on=lambda tile: dict(settings.depends_on(tile, inputs))
    )
    behind = {tile: inputs.behind(settings.reads(tile)) for tile, (_, reason) in looked.items() if reason}
    sealed_tiles = looked.keys() - behind.keys()
    # A server is not asked for what nobody will read.
    kept = {a for t in inputs.tiles if t.tile in sealed_tiles for a in t.assets if not isinstance(a.path, WebPath)}
    changes = inputs.changes([*(a for assets in behind.values() for a in assets), *kept])
    # Inputs of a sealed tile may go (a purged disk); those of a tile that is to be mapped must be as indexed.
    stale = sorted(changes[a] for a in kept & changes.keys() if inputs.purged(a) is None)
    record = read_run(folder)
    causes, suspect = failures(record), record.get("suspect", {})

    def planned(tile: Tile, sealed: SealedTile | None, reason: str | None) -> PlannedTile:
        assets = behind.get(tile, ())
        broken = tuple(changes[a] for a in assets if a in changes)
        failure = causes.get(tile.name) if reason else None
        return PlannedTile(tile, today[tile], reason, broken, sealed, failure, tile.name in suspect, assets)

    every = tuple(planned(tile, *found) for tile, found in sorted(looked.items()))
    return DomainPlan(section, inputs, every, tuple(stale))


def _check_fits(campaign: Campaign, section: DomainSection, inputs: DomainInputs) -> None:
    """Raises ConfigError where the domain passes limits that the campaign does not accept, or leaves its extent."""
    if passed := sorted(set(inputs.limits) - set(campaign.accept_limits)):
        raise ConfigError(
            f"domain {section.name} passes limits of the model's card that the campaign does not accept: "
            f"{', '.join(passed)}; `landcover index` said why. To map it all the same, accept_limits: "
            f"[{', '.join(sorted({*campaign.accept_limits, *passed}))}]"
        )
    if outside := [t.tile.name for t in inputs.tiles if not campaign.extent.contains(t.tile.window)]:
        own = ", ".join(f"{edge / 1000:g}" for edge in inputs.window.bounds)
        raise ConfigError(
            f"domain {section.name}: tile {', '.join(outside[:5])} lies outside extent_km {campaign.output.extent_km} "
            f"of {inputs.crs}; its tiles take [{own}]: give an extent_km that holds all domains of the campaign"
        )


@dataclass(frozen=True)
class Totals:
    """A plan in numbers; all but `tiles` are of the tiles to map."""

    tiles: int
    todo: int
    blocks: int
    windows: int
    pixels: int
    """Of the map."""
    computed_pixels: int
    """That the network sees: the windows with their halos."""
    read_pixels: int
    """The blocks with their halos."""
    read_bytes: int
    """Bytes of the input files behind the tiles to map."""
    write_bytes: int
    """Both layers uncompressed: more than what will be written."""
    input_files: int
    """Files, and so inodes, behind the tiles to map."""
    output_files: int
    """Files, and so inodes, that will be written: two COGs and an item a tile."""

    def __add__(self, other: "Totals") -> "Totals":
        """Of two domains, which share no file."""
        return Totals(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def totals(settings: Settings, domain: DomainPlan) -> Totals:
    """Counts what a run of this domain would do; reads nothing."""
    grid, layout = settings.campaign.grid, settings.layout
    count = len(domain.todo)
    assets = {a for t in domain.todo for a in t.inputs}
    # Each size divides the next, so every tile has as many blocks as any other, and every block as many windows.
    blocks = count * (grid.tile // grid.block) ** 2
    windows = blocks * (grid.block // layout.core) ** 2
    return Totals(
        tiles=len(domain.tiles),
        todo=count,
        blocks=blocks,
        windows=windows,
        pixels=count * grid.tile**2,
        computed_pixels=windows * layout.window**2,
        read_pixels=blocks * (grid.block + layout.reach) ** 2,
        read_bytes=sum(a.size for a in assets),
        write_bytes=2 * count * grid.tile**2,
        input_files=len(assets),
        output_files=3 * count,
    )


def plan_totals(plan: RunPlan) -> Totals:
    """All domains' totals as one."""
    return reduce(add, (totals(plan.settings, domain) for domain in plan.domains))
