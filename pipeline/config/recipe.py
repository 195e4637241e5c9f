"""The recipe of a network: which bands it reads, how they are normalised, and which of its classes may appear."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import PlainName, Section, find_config, read_yaml
from pipeline.halo import Layout

DEFAULT_RECIPE = "flair-inc_rgbie_12cl_resnet34-unet"
Band = Literal["red", "green", "blue", "nir", "elevation"]
Architecture = Literal[
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "pan",
    "deeplabv3",
    "deeplabv3plus",
    "upernet",
    "segformer",
]
"""Decoders of segmentation-models-pytorch that work with any encoder, under that library's names."""

_USUAL = Layout()
_ENCODER_STRIDE = 32
"""Largest factor by which encoders reduce the resolution."""
_POOLING: frozenset[Architecture] = frozenset({"manet", "pspnet", "pan", "deeplabv3", "deeplabv3plus", "upernet"})
"""Decoders with attention or pooling over the whole window."""


class Recipe(Section):
    """Bands, normalisation and classes of a network.

    Every value here but `smallest_halo` and `smallest_window` changes bytes of a product, so the recipe is part of the
    fingerprint.
    """

    name: PlainName
    """Name of the recipe: letters, digits, `_`, `-` and `.`."""
    architecture: Architecture = "unet"
    """Decoder of segmentation-models-pytorch."""
    encoder: str = "resnet34"
    """Name of the encoder in segmentation-models-pytorch."""
    decoder_channels: tuple[Annotated[int, Field(ge=1, le=2048)], ...] = (256, 128, 64, 32, 16)
    """Channels of the U-Net's five decoder blocks. Other architectures ignore it."""
    stride: int = Field(default=32, ge=1)
    """Stride of the network in pixels. Windows begin on its multiples, because the map depends on where they begin."""
    # Maps made before the field existed keep their fingerprints.
    centred_upsampling: bool = Field(default=False, exclude_if=lambda centred: not centred)
    """Where a head enlarges its logits by 4 (UPerNet, FPN): maps do so from the centres of pixels. As published, the
    corners of both images meet. That moves borders by up to 1.5 px, in other directions on each side of a seam.
    Training, and the network that `load_model` returns, keep the published head."""
    bands: tuple[Band, ...] = ("red", "green", "blue", "nir", "elevation")
    """Input channels, in the network's order."""
    mean: tuple[float, ...]
    """Mean of each channel, on the scale 0..255."""
    std: tuple[float, ...]
    """Standard deviation of each channel, on the scale 0..255; above 0."""
    logits: int = Field(default=19, ge=2, le=19)
    """Output channels of the network."""
    # Maps made before the field existed keep their fingerprints.
    logit_values: tuple[Annotated[int, Field(ge=1, le=19)], ...] = Field(
        default=(), exclude_if=lambda values: not values
    )
    """FLAIR value of each logit, for networks whose classes have another order. By default logit i, counted from 0, is
    FLAIR value i + 1."""
    live: tuple[int, ...]
    """FLAIR values 1..19 that may appear in a map. All other logits are masked before the argmax."""
    # No value in the map follows from these: they are left out of the recipe's content, and so of fingerprints.
    smallest_halo: int | None = Field(default=None, ge=0, exclude=True)
    """Smallest halo in pixels with which the windows of this network meet without visible seams. A campaign with a
    smaller one is refused, unless it accepts the limit `halo`. Without this key no halo is refused."""
    smallest_window: int | None = Field(default=None, ge=32, le=50_000, exclude=True)
    """Smallest window in pixels of a network that sees its whole window, whose map is close enough to that of the whole
    image. New campaigns have it. A campaign with a smaller one is refused, unless it accepts the limit `whole_window`.
    Without this key every window of such a network is refused."""
    height_step_m: float = Field(default=0.2, gt=0)
    """Metres of height for one unit of the elevation band, whose values are clipped to 0..255."""
    # Maps made before the field existed keep their fingerprints.
    temperature: float = Field(default=1.0, gt=0, exclude_if=lambda temperature: temperature == 1.0)
    """Logits are divided by this number before the softmax: a value above 1 lowers confidences. `landcover calibrate`
    fits it. It changes no pixel's class. A neutral 1 is left out of the recipe's content."""
    licence: str = "etalab-2.0"
    """Licence of the weights (SPDX identifier in lower case)."""
    citation: str = ""
    """Citation of the weights, written into each product."""
    doi: str = ""
    """DOI of the citation."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        n = len(self.bands)
        if len(set(self.bands)) != n:
            raise ValueError(f"bands {self.bands} list a band twice")
        if len(self.mean) != n or len(self.std) != n:
            raise ValueError(f"expected {n} means and stds, one per band, found {len(self.mean)} and {len(self.std)}")
        if min(self.std) <= 0:
            raise ValueError(f"stds must be above 0, found {self.std}")
        values = self.flair_values
        if len(values) != self.logits or len(set(values)) != self.logits:
            raise ValueError(
                f"logit_values must list {self.logits} different FLAIR values, one per logit, found {values}"
            )
        if len(self.live) < 2 or any(v not in values for v in self.live):
            known = f"of {sorted(values)}" if self.logit_values else f"of 1..{self.logits}"
            raise ValueError(f"live must list two or more FLAIR values {known}, found {self.live}")
        if tuple(sorted(set(self.live))) != self.live:
            raise ValueError(f"live must be ascending and list each value once, found {self.live}")
        self._check_smallest_window()
        return self

    def _check_smallest_window(self) -> None:
        least = self.least_window
        if self.smallest_window and (self.smallest_window < least or self.smallest_window % self.stride):
            raise ValueError(
                f"smallest_window must be a multiple of the stride {self.stride} and at least {least} for a halo of "
                f"{self._halo}, found {self.smallest_window}"
            )

    @property
    def least_window(self) -> int:
        """The smallest window in pixels that has a core between its halos wherever the core begins."""
        return (math.ceil(2 * self._halo / self.stride) + 1) * self.stride

    @property
    def flair_values(self) -> tuple[int, ...]:
        """FLAIR value of each logit."""
        return self.logit_values or tuple(range(1, self.logits + 1))

    @property
    def live_logits(self) -> tuple[int, ...]:
        """Logit of each live class, from 0, in the order of `live`."""
        return tuple(self.flair_values.index(value) for value in self.live)

    @property
    def side_step(self) -> int:
        """Sides of an image must be multiples of this number of pixels.

        It is smaller than the stride for encoders that attend in windows: they fill up their last windows.
        """
        return math.gcd(self.stride, _ENCODER_STRIDE)

    @property
    def _halo(self) -> int:
        return max(_USUAL.halo, self.smallest_halo or 0)

    def layout(self, block: int = 2 * _USUAL.core) -> Layout:
        """The windows with which this network maps by default.

        Their halo and window are at least the smallest. Their core is the largest that divides the block, but no larger
        than the usual one; with a smallest window, the largest that it contains with its halo.

        Args:
            block: side of a block in pixels.
        """
        cores = [core for core in range(min(block, _USUAL.core), 0, -1) if block % core == 0]
        fitting = [Layout.for_core(core, self._halo, self.stride) for core in cores]
        if not self.smallest_window:
            return fitting[0]
        layout = next(layout for layout in fitting if layout.window <= self.smallest_window)
        return replace(layout, window=self.smallest_window)

    @property
    def pools_whole_window(self) -> bool:
        """Whether each pixel's class depends on its whole window, so that seams show where two windows meet.

        The decoder decides it, and ConvNeXtV2, which divides by a norm over the window. Other encoders may do the same
        (squeeze-and-excitation, attention); their names do not show it.
        """
        return self.architecture in _POOLING or self.encoder.startswith("tu-convnextv2")


def load_recipe(name_or_path: str, *, base: Path = Path()) -> Recipe:
    """Reads a recipe by its name in `configs/models/`, or by the path of its YAML file.

    Args:
        name_or_path: a shipped recipe's name, or a path.
        base: the folder at which a relative path starts.

    Raises:
        ConfigError: there is no such recipe, or it is not valid.

    Example:
        >>> load_recipe(DEFAULT_RECIPE).bands
        ('red', 'green', 'blue', 'nir', 'elevation')
    """
    return read_yaml(Recipe, find_config(name_or_path, folder="models", kind="recipe", base=base))
