"""A training run: one YAML in which stands everything that its weights depend on."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config import ConfigPath, Section, read_yaml


class SplitSection(Section):
    """Which patches train and which validate."""

    by: Literal["zone", "domain", "given"] = "zone"
    """`zone`: a share of the zones, at random; `domain`: named domains validate; `given`: other places validate."""
    share: float = Field(default=0.8, gt=0, lt=1)
    """Of the zones that train. Patches of one zone are neighbours: they never stand on both sides."""
    domains: tuple[str, ...] = ()
    """Domains that validate, with `by: domain`."""
    validation: tuple[ConfigPath, ...] = ()
    """Folders or lists that validate, with `by: given`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.by == "domain") != bool(self.domains) or (self.by == "given") != bool(self.validation):
            raise ValueError("split by domain wants domains, by given wants validation, and only these want them")
        return self


class DataSection(Section):
    """Labelled patches."""

    places: tuple[ConfigPath, ...] = Field(min_length=1)
    """Folders and CSV lists, as `landcover evaluate` takes them."""
    metadata: ConfigPath | None = None
    """JSON that says domain and zone where paths do not."""
    split: SplitSection = SplitSection()
    normalise: Literal["recipe", "data"] = "recipe"
    """Means and deviations: the recipe's, or those of the patches that train, which the exported recipe then has."""


class AugmentSection(Section):
    """What is done to a patch at random, each with this probability; seeded by seed, epoch and index."""

    vertical_flip: float = Field(default=0.5, ge=0, le=1)
    horizontal_flip: float = Field(default=0.5, ge=0, le=1)
    rotate_90: float = Field(default=0.5, ge=0, le=1)
    """A turn by 0, 90, 180 or 270 degrees."""
    crop: int | None = Field(default=None, ge=32)
    """Pixels a side of a random part of each patch; the whole patch by default."""


class OptimizerSection(Section):
    """Steps."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.02, gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """SGD's."""
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float | None = Field(default=None, gt=0)
    """Longest gradient; no limit by default."""
    schedule: Literal["plateau", "one_cycle"] = "plateau"
    """`plateau`: as the section of this name says; `one_cycle`: up to the learning rate in a fifth of all steps, then
    down to nothing (Smith and Topin 2017), for runs whose length is known."""


class PlateauSection(Section):
    """The learning rate falls where val_loss does not."""

    factor: float = Field(default=0.5, gt=0, lt=1)
    patience: int = Field(default=10, ge=0)
    cooldown: int = Field(default=4, ge=0)
    min_lr: float = Field(default=1e-7, ge=0)


class StartSection(Section):
    """What the weights are before the first step."""

    weights: str = "random"
    """`random`, `imagenet` (the encoder), a checkpoint's path from the YAML's folder, or `hf://…`."""
    head: Literal["keep", "replace"] = "keep"
    """Of a checkpoint: keep its segmentation head, or begin a new one, for other classes."""


class Training(Section):
    """What to train, on what, and how."""

    name: str = Field(pattern=r"^[\w.\-]+$")
    """Of the exported weights and recipe."""
    recipe: str
    """The network, its bands and live classes: a name under `configs/models/`, or a path."""
    data: DataSection
    start: StartSection = StartSection()
    class_weights: dict[int, float] = Field(default_factory=dict)
    """FLAIR value → weight in the cross-entropy where it is not 1. Classes that are not live always have 0."""
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    plateau: PlateauSection = PlateauSection()
    early_stopping: int = Field(default=30, ge=1)
    """Epochs without a better val_loss before it ends."""
    epochs: int = Field(default=200, ge=1)
    """At most."""
    batch: int = Field(default=10, ge=1)
    """Patches a process and step."""
    seed: int = Field(default=2022, ge=0)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    freeze_batchnorm: bool = False
    """Batch normalisation keeps its statistics: for fine-tuning, and for batches of few patches."""
    devices: int = Field(default=1, ge=1)
    """Processes a node: one a GPU."""
    nodes: int = Field(default=1, ge=1)
    loaders: int = Field(default=2, ge=0)
    """Processes that read patches, for each process that trains."""
    base: Path = Field(default=Path(), exclude=True)
    """The YAML's folder; set on load."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(w < 0 for w in self.class_weights.values()):
            raise ValueError(f"class weights are at least 0; got {self.class_weights}")
        return self

    @property
    def start_weights(self) -> str:
        """`random`, `imagenet`, `hf://…` or an absolute path."""
        given = self.start.weights
        plain = given in ("random", "imagenet") or given.startswith("hf://")
        return given if plain else str(Path(self.base, Path(given).expanduser()).absolute())


def load_training(path: Path) -> Training:
    """Reads and checks a training run; its paths become absolute against the YAML's folder.

    Raises:
        ConfigError: no such file, no YAML, an unknown key, or values that do not fit each other.
    """
    base = path.absolute().parent
    return read_yaml(Training, path, base=base)
