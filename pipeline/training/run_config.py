"""The YAML of a training run, which contains everything that the weights depend on."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, model_validator

from pipeline.config import ConfigPath, PlainName, Section, Sha256, read_yaml


class SplitSection(Section):
    """Which patches are for training and which for validation."""

    by: Literal["zone", "domain", "given"] = "zone"
    """`zone`: a random share of the zones trains; `domain`: named domains validate; `given`: other places validate."""
    share: float = Field(default=0.8, gt=0, lt=1)
    """Share of the zones that train. Patches of one zone are neighbours, so a zone is never split."""
    domains: tuple[str, ...] = ()
    """Domains that validate, with `by: domain`."""
    validation: tuple[ConfigPath, ...] = ()
    """Folders or lists that validate, with `by: given`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.by == "domain") != bool(self.domains) or (self.by == "given") != bool(self.validation):
            raise ValueError(
                "split: `domains` goes with `by: domain`, and `validation` with `by: given`; each needs the other"
            )
        return self


class DataSection(Section):
    """Labelled patches."""

    places: tuple[ConfigPath, ...] = Field(min_length=1)
    """Folders and CSV lists of patches, as `landcover evaluate` takes them."""
    metadata: ConfigPath | None = None
    """JSON that gives domain and zone of each patch where paths do not."""
    split: SplitSection = SplitSection()
    normalise: Literal["recipe", "data"] = "recipe"
    """Means and standard deviations: those of the recipe, or those of the training patches, which the exported recipe
    then contains."""


class AugmentSection(Section):
    """Random changes of a training patch, each with its probability. They follow from seed, epoch and index."""

    vertical_flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of turning the patch upside down."""
    horizontal_flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of mirroring the patch left to right."""
    rotate_90: float = Field(default=0.5, ge=0, le=1)
    """Probability of a rotation by 0, 90, 180 or 270 degrees."""
    crop: int | None = Field(default=None, ge=32)
    """Side in pixels of a random part of each patch. The whole patch by default."""


class OptimizerSection(Section):
    """How the weights are changed at each step."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimizer of PyTorch."""
    learning_rate: float = Field(default=0.02, gt=0)
    """Learning rate at the start, or the highest one with `one_cycle`."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Momentum of `sgd`; `adamw` ignores it."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay (L2)."""
    clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient. No limit by default."""
    schedule: Literal["plateau", "one_cycle"] = "plateau"
    """`plateau`: as the section of this name. `one_cycle`: up to the learning rate in a fifth of all steps, then down
    to zero (Smith and Topin 2017), for runs whose length is known."""


class PlateauSection(Section):
    """Lowers the learning rate when `val_loss` stops falling."""

    factor: float = Field(default=0.5, gt=0, lt=1)
    """The learning rate is multiplied by this."""
    patience: int = Field(default=10, ge=0)
    """Epochs without a better `val_loss` before the learning rate is lowered."""
    cooldown: int = Field(default=4, ge=0)
    """Epochs after that before epochs are counted again."""
    min_lr: float = Field(default=1e-7, ge=0)
    """The learning rate never falls below this."""


class StartSection(Section):
    """The weights before the first step."""

    weights: str = "random"
    """`random`, `imagenet` (encoder only), a checkpoint's path relative to the YAML's folder, or
    `hf://org/name@COMMIT[/file]`."""
    sha256: Sha256 | None = None
    """SHA-256 that the checkpoint must have. It is compared before the file is loaded."""
    head: Literal["keep", "replace"] = "keep"
    """With a checkpoint: `keep` its segmentation head, or `replace` it by a new one for other classes."""


class TrainingConfig(Section):
    """What to train, on which data, and how."""

    name: PlainName
    """Name of the exported weights and recipe."""
    recipe: str
    """Network, bands and live classes: name of a recipe under `configs/models/`, or a path."""
    data: DataSection
    start: StartSection = StartSection()
    class_weights: dict[int, NonNegativeFloat] = Field(default_factory=dict)
    """FLAIR value → weight in the cross-entropy, where it is not 1. Classes that are not live always weigh 0."""
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    plateau: PlateauSection = PlateauSection()
    early_stopping: int = Field(default=30, ge=1)
    """Epochs without a better `val_loss` after which training ends."""
    epochs: int = Field(default=200, ge=1)
    """Most epochs of a run."""
    batch: int = Field(default=10, ge=1)
    """Patches for each process and step."""
    seed: int = Field(default=2022, ge=0)
    """Seed of the split, the order of patches and the augmentation."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of the training, by Lightning's names."""
    freeze_batchnorm: bool = False
    """Keep the statistics of batch normalisation: for fine-tuning, and for batches of few patches."""
    devices: int = Field(default=1, ge=1)
    """Processes on each node: one for each GPU."""
    nodes: int = Field(default=1, ge=1)
    """Nodes of the training job."""
    loaders: int = Field(default=2, ge=0)
    """Processes that read patches, for each training process."""
    base: Path = Field(default=Path(), exclude=True)
    """The YAML's folder; set on load."""

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
