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
from pipeline.inference.engine import Engine, check_gives_features, on_gpu, resolve_engine
from pipeline.inference.memory_projection import MemoryProjection, worker_memory
from pipeline.inference.turns import TURNS
from pipeline.legend import OptionalLayer
from pipeline.model.reference_features import ReferenceFile
from pipeline.model.weights_file import UnloadedModel, hash_campaign_weights, known_doubt, note_loaded, warn_of
from pipeline.runs.planning.automatic_choices import AutomaticChoices, settle
from pipeline.sources.domain_inputs import DomainInputs

if TYPE_CHECKING:
    from pipeline.inference import Method, Predictor
    from pipeline.model import Ensemble, Model


@dataclass(frozen=True)
class ResolvedCampaign:
    """A campaign with everything that its YAML file only names. It is the same for all of its tiles."""

    campaign: Campaign
    """Without `auto` sizes and precision."""
    recipe: Recipe
    layout: Layout
    engine: Engine
    engine_threads: int
    weights: UnloadedModel
    choices: AutomaticChoices | None = None
    """What the YAML's `auto` was resolved to, which `campaign` has already; None if it has no `auto`."""
    stand_in: "Predictor | None" = None
    """Replaces the engine's predictor: a rehearsal's network that costs nothing. No campaign can set it, and no
    fingerprint contains it, so tiles that it mapped must not be kept."""
    reference: ReferenceFile | None = None
    """Of the training imagery: with it tiles get a novelty score."""

    @cached_property
    def model(self) -> "Model | Ensemble":
        """The loaded model, or the ensemble of models.

        Raises:
            WeightsError: the weights do not fit the recipe, or the file changed since it was hashed.
        """
        return model.averaged(self._load(), self.campaign.model.tta, self.campaign.model.temperature)

    def check_weights(self) -> None:
        """Loads the networks, unless this user did so before without an error: importing torch takes seconds.

        Raises:
            WeightsError: as for `model`.
        """
        known = [known_doubt(network) for network in self.networks]
        doubts = [loaded.doubt for loaded in self._load()] if None in known else known
        for network, doubt in zip(self.networks, doubts, strict=True):
            if None in known:
                note_loaded(network, doubt or "")
            if doubt:
                warn_of(doubt, network.source)

    def _load(self) -> "tuple[Model, ...]":
        return tuple(model.load_model(w.source, w.recipe, sha256=w.weights_hash) for w in self.networks)

    @property
    def networks(self) -> tuple[UnloadedModel, ...]:
        """The network, or those that are averaged."""
        return self.weights.members or (self.weights,)

    @property
    def forwards(self) -> int:
        """Forwards of a window: each network maps it in each position of the test-time augmentation."""
        return len(self.networks) * len(TURNS[self.campaign.model.tta])

    @property
    def method(self) -> "Method":
        """How the blocks of a tile are mapped; its networks are loaded where it is first used."""
        own, block = self.campaign, self.campaign.grid.block
        # Not `self.model`: loading takes seconds, and the process that sends it to workers needs no network.
        networks = tuple(model.Model(None, w.recipe, w.weights_hash, w.source) for w in self.networks)
        mean = model.averaged(networks, own.model.tta, own.model.temperature)
        return inference.Method(mean, self.layout, block, self.engine, own.layers, self.reference)

    @property
    def memory(self) -> MemoryProjection:
        """The largest memory that a worker uses, on a machine with as many GPUs as this one."""
        grid, gpu = self.campaign.grid, on_gpu(self.engine)
        return worker_memory(self.campaign, self.engine, grid=grid, layout=self.layout, recipe=self.recipe, gpu=gpu)

    def read_window(self, tile: Tile) -> Window:
        """The pixels that the tile's windows read. They may lie outside the domain."""
        return self.layout.read_of_block(tile.window)

    def fingerprint(self, tile: Tile, inputs: DomainInputs) -> str:
        """The tile's fingerprint: a digest of everything that its bytes depend on, neighbouring inputs among it."""
        return digest(self._fingerprinted(tile, inputs))

    def novelty_fingerprint(self, fingerprint: str) -> str:
        """Of a tile's novelty score: its map's fingerprint and the reference; empty without a reference."""
        return digest([fingerprint, self.reference.sha256]) if self.reference else ""

    def layer_fingerprints(self, tile: Tile, inputs: DomainInputs) -> dict[OptionalLayer, str]:
        """Layer → its fingerprint for each optional layer of the campaign: that of the map, and the layer's own."""
        if not self.campaign.layers:
            return {}  # digests of inputs take time for each of a nation's tiles
        own = self._fingerprinted(tile, inputs)
        return {layer: digest(own | {"layer": layer, "layer_version": 1}) for layer in self.campaign.layers}

    def depends_on(self, tile: Tile, inputs: DomainInputs) -> tuple[tuple[str, str], ...]:
        """(name, digest) of each part of the fingerprint. A later plan finds out by them what changed."""
        return tuple((name, digest(value)) for name, value in self._fingerprinted(tile, inputs).items())

    def _fingerprinted(self, tile: Tile, inputs: DomainInputs) -> dict[str, Any]:
        tta, temperature = self.campaign.model.tta, self.campaign.model.temperature
        parts = {
            **self._shared_parts,
            "tile": asdict(tile.window),
            "inputs": inputs.inputs_digest(self.read_window(tile)),
        }
        # Only where there is some: maps of a single network were made before there was any.
        parts |= {} if tta == "none" else {"tta": tta}
        parts |= {} if temperature == 1.0 else {"temperature": temperature}
        # Other lattices only: tiles of the national lattice were sealed before others existed.
        return parts if inputs.crs == CRS else parts | {"crs": inputs.crs}

    @cached_property
    def _shared_parts(self) -> dict[str, Any]:
        """The parts of a fingerprint that are the same for all tiles."""
        own = self.recipe.model_dump(mode="json")
        return {
            "version": PRODUCT_VERSION,
            "weights": self.weights.weights_hash,
            # The joint recipe has the normalisation of the first network only.
            "recipe": [w.recipe.model_dump(mode="json") for w in self.networks] if self.weights.members else own,
            "layout": asdict(self.layout),
            "engine": self.engine.content,
        }


def resolve(campaign: Campaign, *, again: bool = False) -> ResolvedCampaign:
    """Reads the recipe, hashes the weights, and settles layout, engine and threads of a campaign.

    Args:
        campaign: as `load_campaign` returns it.
        again: choose again what is `auto` in it; see `settle`.

    Raises:
        ConfigError: the recipe is not valid, sizes do not fit each other or the network's stride, or what is `auto`
            cannot be chosen.
        EngineError: the engine is not installed, or the quantized network was made from other weights.
        WeightsError: the weights are missing, or have another checksum than the campaign's; or the reference does not
            fit them.
        ProductError, StorageError: the file of automatic choices is damaged, or cannot be written.
    """
    recipe = campaign.recipe()
    if not campaign.grid.auto:
        _layout(campaign, recipe)  # sizes that do not fit are an error before a large file is hashed
    weights = hash_campaign_weights(campaign)
    settled, choices = settle(campaign, recipe, weights, again=again)
    engine = resolve_engine(
        settled.engine,
        precision=settled.stated_precision,
        quantized=settled.model.quantized,
        model=weights,
        compiled=settled.torch_compile,
    )
    _check_averaging(settled, engine)
    layout, reference = _layout(settled, recipe), _reference(settled, engine, weights)
    threads = engine_threads(settled)
    return ResolvedCampaign(settled, recipe, layout, engine, threads, weights, choices, reference=reference)


def _layout(campaign: Campaign, recipe: Recipe) -> Layout:
    try:
        return campaign.grid.layout(recipe.stride)
    except ConfigError as error:
        raise ConfigError(f"campaign {campaign.name} in {campaign.base}: grid: {error}") from error


def _check_averaging(campaign: Campaign, engine: Engine) -> None:
    """Raises ConfigError where probabilities are needed and the engine gives classes alone."""
    if engine.precision == "int8" and (campaign.layers or campaign.model.members or campaign.model.tta != "none"):
        raise ConfigError(
            f"campaign {campaign.name}: model.members, model.tta and layers need probabilities, and a network in int8 "
            "gives classes without them; use precision fp32 or bf16"
        )


def _reference(campaign: Campaign, engine: Engine, weights: UnloadedModel) -> ReferenceFile | None:
    """The campaign's reference, checked.

    Raises:
        EngineError: the engine gives no features.
        WeightsError: it cannot be read, or was made with other weights or another recipe.
    """
    path = campaign.model.reference
    if path is None:
        return None
    try:
        check_gives_features(engine)
    except EngineError as error:
        raise EngineError(f"campaign {campaign.name}: {error}") from error
    reference = ReferenceFile.of(path)
    reference.check_fits(weights.weights_hash, weights.recipe)
    return reference
