"""The resolved campaign: recipe, layout, engine and weights, settled once before anything is planned or run."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline import inference, model
from pipeline.cluster.worker_resources import engine_threads
from pipeline.config import Campaign, Recipe
from pipeline.errors import ConfigError, EngineError
from pipeline.fingerprint import PRODUCT_VERSION, digest
from pipeline.grid import CRS, Tile, Window
from pipeline.halo import Layout
from pipeline.inference.engine import NO_FEATURES, Engine, on_gpu, resolve_engine
from pipeline.inference.memory_projection import MemoryProjection, project_memory
from pipeline.model.reference_features import ReferenceFile
from pipeline.model.weights_file import UnloadedModel, hash_campaign_weights
from pipeline.sources.domain_inputs import DomainInputs

if TYPE_CHECKING:
    from pipeline.inference import Method, Predictor
    from pipeline.model import Model


@dataclass(frozen=True)
class ResolvedCampaign:
    """A campaign with everything that its YAML file only names. It is the same for all of its tiles."""

    campaign: Campaign
    recipe: Recipe
    layout: Layout
    engine: Engine
    engine_threads: int
    weights: UnloadedModel
    stand_in: "Predictor | None" = None
    """Replaces the engine's predictor: a rehearsal's network that costs nothing. No campaign can set it, and no
    fingerprint contains it, so tiles that it mapped must not be kept."""
    reference: ReferenceFile | None = None
    """Of the training imagery: with it tiles get a novelty score."""

    @cached_property
    def model(self) -> "Model":
        """The loaded model.

        Raises:
            WeightsError: the weights do not fit the recipe, or the file changed since it was hashed.
        """
        return model.load_model(self.weights.source, self.recipe, sha256=self.weights.weights_hash)

    @property
    def method(self) -> "Method":
        """How the blocks of a tile are mapped."""
        return inference.Method(self.model, self.layout, self.campaign.grid.block, self.engine, self.reference)

    @property
    def memory(self) -> MemoryProjection:
        """The largest memory that a worker uses, on a machine with as many GPUs as this one."""
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
            decoded_cache_mb=cluster.decoded_cache_mb,
            gpu=on_gpu(self.engine),
        )

    def read_window(self, tile: Tile) -> Window:
        """The pixels that the tile's windows read. They may lie outside the domain."""
        return self.layout.read_of_block(tile.window)

    def fingerprint(self, tile: Tile, inputs: DomainInputs) -> str:
        """The tile's fingerprint: a digest of everything that its bytes depend on, neighbouring inputs among it."""
        return digest(self._fingerprinted(tile, inputs))

    def novelty_fingerprint(self, fingerprint: str) -> str:
        """Of a tile's novelty score: its map's fingerprint and the reference; empty without a reference."""
        return digest([fingerprint, self.reference.sha256]) if self.reference else ""

    def depends_on(self, tile: Tile, inputs: DomainInputs) -> tuple[tuple[str, str], ...]:
        """(name, digest) of each part of the fingerprint. A later plan finds out by them what changed."""
        return tuple((name, digest(value)) for name, value in self._fingerprinted(tile, inputs).items())

    def _fingerprinted(self, tile: Tile, inputs: DomainInputs) -> dict[str, Any]:
        parts = {
            "version": PRODUCT_VERSION,
            "weights": self.weights.weights_hash,
            "recipe": self.recipe.model_dump(mode="json"),
            "layout": asdict(self.layout),
            "engine": self.engine.content,
            "tile": asdict(tile.window),
            "inputs": inputs.inputs_digest(self.read_window(tile)),
        }
        # Other lattices only: tiles of the national lattice were sealed before others existed.
        return parts if inputs.crs == CRS else parts | {"crs": inputs.crs}


def resolve(campaign: Campaign) -> ResolvedCampaign:
    """Reads the recipe, hashes the weights, and settles layout, engine and threads of a campaign.

    Raises:
        ConfigError: the recipe is not valid, or sizes do not fit each other or the network's stride.
        EngineError: the engine is not installed, or the quantized network was made from other weights.
        WeightsError: the weights are missing, or have another checksum than the campaign's; or the reference does not
            fit them.
    """
    recipe = campaign.recipe()
    try:
        layout = campaign.grid.layout(recipe.stride)
    except ConfigError as error:
        raise ConfigError(f"campaign {campaign.name} in {campaign.base}: grid: {error}") from error
    weights = hash_campaign_weights(campaign)
    engine = resolve_engine(
        campaign.engine,
        precision=campaign.precision,
        quantized=campaign.model.quantized,
        model=weights,
        compiled=campaign.torch_compile,
    )
    reference = _reference(campaign, engine, weights)
    return ResolvedCampaign(campaign, recipe, layout, engine, engine_threads(campaign), weights, reference=reference)


def _reference(campaign: Campaign, engine: Engine, weights: UnloadedModel) -> ReferenceFile | None:
    """The campaign's reference, checked.

    Raises:
        EngineError: the engine gives no features.
        WeightsError: it cannot be read, or was made with other weights or another recipe.
    """
    path = campaign.model.reference
    if path is None:
        return None
    if engine.name != "torch" or engine.compiled:
        raise EngineError(f"campaign {campaign.name}: {NO_FEATURES}")
    reference = ReferenceFile.of(path)
    reference.check_fits(weights.weights_hash, weights.recipe)
    return reference
