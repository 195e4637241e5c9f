"""The section `model` of a campaign: one network, or several whose probabilities are averaged."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.recipe import DEFAULT_RECIPE
from pipeline.config.section import ConfigPath, Section, Sha256
from pipeline.errors import ConfigError

Tta = Literal["none", "flips", "d4"]
"""Test-time augmentation: each network sees a window in one, four or eight positions."""
MOST_MEMBERS = 8


def check_temperature(temperature: float, *, networks: int, tta: Tta) -> None:
    """Raises ConfigError if it is of a single forward: that of a network is in its recipe."""
    if temperature != 1.0 and networks == 1 and tta == "none":
        raise ConfigError(
            f"found temperature {temperature:g}, and a single forward: it belongs to averages of members or tta; the "
            "temperature of a network is in its recipe (`landcover calibrate`)"
        )


class MemberSection(Section):
    """One of several networks."""

    weights: str
    """Path of its checkpoint, or `hf://…`, as `model.weights`."""
    sha256: Sha256 | None = None
    """SHA-256 that the checkpoint must have."""
    recipe: str = DEFAULT_RECIPE
    """Its recipe, as `model.recipe`: members may have other bands and architectures, but need the same live classes."""


class ModelSection(Section):
    """The network's weights and their recipe, or several networks that are averaged."""

    weights: str = ""
    """Path of the checkpoint (relative to the campaign's folder), or `hf://org/name@COMMIT[/file]` on the Hugging Face
    hub. Without `@COMMIT` it is the newest, which may be another one tomorrow; the log names it. Required unless there
    are `members`."""
    sha256: Sha256 | None = None
    """SHA-256 that the checkpoint must have, as `sha256sum` prints it. It is compared before the file is loaded."""
    recipe: str = DEFAULT_RECIPE
    """Name of a recipe under `configs/models/`, or the path of a recipe's YAML."""
    quantized: ConfigPath | None = None
    """The XML that `landcover quantize` made from these weights. Only `precision: int8` reads it."""
    reference: ConfigPath | None = None
    """The file that `landcover calibrate --reference` made from labelled patches: tiles get a novelty score, which says
    how unlike the patches their imagery is. No fingerprint of a map contains it, so it maps nothing again."""
    members: tuple[MemberSection, ...] = Field(default=(), max_length=MOST_MEMBERS)
    """Several networks instead of one: the map shows the class of the greatest mean probability. The order is part of
    the fingerprint, because sums are rounded."""
    tta: Tta = "none"
    """Test-time augmentation: each network maps each window in several positions, and their probabilities are averaged.
    `flips`: as it is, mirrored both ways, and turned by 180°. `d4`: these, each turned by 90° too, which costs eight
    times as much as `none`."""
    temperature: float = Field(default=1.0, ge=0.01, le=100.0, exclude_if=lambda temperature: temperature == 1.0)
    """Of the averaged probabilities, fitted by `landcover calibrate --campaign`. It changes confidences and the layer
    `probabilities`, never classes. A single network has its temperature in its recipe."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.weights and not self.members:
            raise ValueError("missing key 'model.weights', or 'model.members' for several networks")
        if self.members and (own := self.model_fields_set & {"weights", "sha256", "recipe", "quantized"}):
            raise ValueError(
                f"found members and {', '.join(sorted(own))}: each member has its own weights, sha256 and recipe"
            )
        if self.reference and (self.members or self.tta != "none"):
            raise ValueError("the novelty score is of a single forward: remove reference, or members and tta")
        try:
            check_temperature(self.temperature, networks=len(self.networks), tta=self.tta)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def networks(self) -> tuple[MemberSection, ...]:
        """The members, or the only network."""
        return self.members or (MemberSection(weights=self.weights, sha256=self.sha256, recipe=self.recipe),)

    def networks_from(self, base: Path) -> tuple[MemberSection, ...]:
        """The networks, with the weights as `load_model` takes them: an absolute path, or `hf://…`.

        Args:
            base: the folder at which a relative path starts.
        """

        def found(weights: str) -> str:
            return weights if weights.startswith("hf://") else str(Path(base, Path(weights).expanduser()).absolute())

        return tuple(network.model_copy(update={"weights": found(network.weights)}) for network in self.networks)

    @property
    def title(self) -> str:
        """The weights for people: of all members."""
        return ", ".join(network.weights for network in self.networks)
