"""The YAML of a training run, which contains everything that the weights depend on."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Located, Section, read_yaml


class SplitSection(Section):
    """Which patches are for training and which for validation."""

    by: Literal["zone", "domain", "given"] = "zone"
    """`zone`: a random share of the zones trains; `domain`: named domains validate; `given`: other places validate."""
    share: float = Field(default=0.8, gt=0, lt=1)
    """Share of the zones that train. Patches of a zone are neighbours, so a zone is never on both sides."""
    domains: tuple[str, ...] = ()
    """Domains for validation, with `by: domain`."""
    validation: tuple[Located, ...] = ()
    """Folders or lists for validation, with `by: given`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.by == "domain") != bool(self.domains) or (self.by == "given") != bool(self.validation):
            raise ValueError(
                "split: `domains` goes with `by: domain`, and `validation` with `by: given`; each needs the other"
            )
        return self


class DataSection(Section):
    """Labelled patches."""

    places: tuple[Located, ...] = Field(min_length=1)
    """Folders and CSV lists, as for `landcover evaluate`."""
    metadata: Located | None = None
    """JSON with domain and zone of each patch, if the paths do not have them."""
    split: SplitSection = SplitSection()
    normalise: Literal["recipe", "data"] = "recipe"
    """Means and deviations of the recipe, or those of the training patches, which the exported recipe then contains."""


class AugmentSection(Section):
    """Random changes of a patch, each with its probability; they follow from seed, epoch and index."""

    vertical_flip: float = Field(default=0.5, ge=0, le=1)
    horizontal_flip: float = Field(default=0.5, ge=0, le=1)
    rotate_90: float = Field(default=0.5, ge=0, le=1)
    """A turn by 0, 90, 180 or 270 degrees."""
    crop: int | None = Field(default=None, ge=32)
    """Side of a random crop of each patch in pixels; by default the whole patch."""


class OptimizerSection(Section):
    """The optimizer and its schedule."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.02, gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Only for SGD."""
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; by default there is no limit."""
    schedule: Literal["plateau", "one_cycle"] = "plateau"
    """`plateau`: see the section of this name. `one_cycle`: the rate rises to the learning rate during a fifth of all
    steps and then falls to 0 (Smith and Topin 2017), for runs of a known length."""


class PlateauSection(Section):
    """The learning rate falls when val_loss no longer falls."""

    factor: float = Field(default=0.5, gt=0, lt=1)
    patience: int = Field(default=10, ge=0)
    cooldown: int = Field(default=4, ge=0)
    min_lr: float = Field(default=1e-7, ge=0)


class StartSection(Section):
    """The weights before the first step."""

    weights: str = "random"
    """`random`, `imagenet` (for the encoder), a checkpoint's path relative to the YAML's folder, or `hf://…`."""
    head: Literal["keep", "replace"] = "keep"
    """Keep the checkpoint's segmentation head, or replace it by a random one, for other classes."""


class TrainingConfig(Section):
    """A training run: the network, the patches, and the method."""

    name: str = Field(pattern=r"^[\w.\-]+$")
    """Name of the exported weights and recipe."""
    recipe: str
    """The network with its bands and live classes: a name under `configs/models/`, or a path."""
    data: DataSection
    start: StartSection = StartSection()
    class_weights: dict[int, float] = Field(default_factory=dict)
    """FLAIR value → weight in the cross-entropy, 1 by default. Classes that are not live always have 0."""
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    plateau: PlateauSection = PlateauSection()
    early_stopping: int = Field(default=30, ge=1)
    """Number of epochs without a better val_loss after which training ends."""
    epochs: int = Field(default=200, ge=1)
    """Largest number of epochs."""
    batch: int = Field(default=10, ge=1)
    """Patches for each process and step."""
    seed: int = Field(default=2022, ge=0)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    freeze_batchnorm: bool = False
    """True keeps the statistics of batch normalisations, for fine-tuning and for batches of few patches."""
    devices: int = Field(default=1, ge=1)
    """Processes on each node, one for each GPU."""
    nodes: int = Field(default=1, ge=1)
    loaders: int = Field(default=2, ge=0)
    """Processes that read patches for each process that trains."""
    base: Path = Field(default=Path(), exclude=True)
    """The YAML's folder; set on load."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(w < 0 for w in self.class_weights.values()):
            raise ValueError(f"class weights must be at least 0; got {self.class_weights}")
        return self

    @property
    def start_weights(self) -> str:
        """`random`, `imagenet`, `hf://…` or an absolute path."""
        given = self.start.weights
        plain = given in ("random", "imagenet") or given.startswith("hf://")
        return given if plain else str(Path(self.base, Path(given).expanduser()).absolute())


def load_training_config(path: Path) -> TrainingConfig:
    """Reads and checks a training run; relative paths start at the YAML's folder.

    Raises:
        ConfigError: the file is missing or not YAML, has an unknown key, or values that do not fit each other.
    """
    base = path.absolute().parent
    return read_yaml(TrainingConfig, path, base=base)
