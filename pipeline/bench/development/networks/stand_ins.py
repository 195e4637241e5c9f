"""Small stand-ins for published networks, whose weights are not at hand: the same parts, trained for minutes.

They show what windows and heads do to a map of such a network, not how good its map is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import rasterio
from scipy.ndimage import uniform_filter
from torch import nn

from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import cores
from pipeline.config import Recipe, load_recipe
from pipeline.demo.network import FitSettings, TrainingTile, fit_network
from pipeline.halo import Layout
from pipeline.model import Model
from pipeline.model.network import build_network, make_torchvision_importable
from pipeline.model.upernet_decoder import OUTPUT_CHANNELS, EarlierUPerNetDecoder

_MASKS = "flair_patches/MSK_*.tif"
_PYRAMID_CHANNELS = 32
_UNET_CHANNELS = (64, 32, 32, 16, 16)
_ENCODERS: dict[str, dict[str, Any]] = {
    "tu-convnextv2_atto": {"dims": (24, 48, 96, 192), "depths": (2, 2, 4, 2)},
    "tu-swin_tiny_patch4_window7_224": {
        "embed_dim": 32,
        "depths": (2, 2, 2, 2),
        "num_heads": (2, 4, 8, 16),
        "img_size": 512,
        "strict_img_size": False,
    },
}
"""Timm's options that make its smallest encoders smaller: a quarter and a third of their channels."""
_LEVELS = 4


@dataclass(frozen=True)
class StandIn:
    """A network, how it is trained, and the windows in which it maps."""

    name: str
    shipped: str
    """The recipe of a published network with this decoder: gives decoder and stride."""
    encoder: str
    layouts: tuple[Layout, ...]
    """The first is the default of the shipped recipe, or of its margin in a smaller window."""
    side: int
    """Largest side of the mapped image in pixels."""
    fit: FitSettings
    folds: int = 0
    """How many networks are trained, each without another patch, to compare the accuracy of both heads."""

    def recipe(self, tiles: Sequence[TrainingTile]) -> Recipe:
        """A recipe with the normalisation and the classes of some tiles."""
        shipped = load_recipe(self.shipped)
        pixels = np.concatenate([tile.pixels.reshape(len(tile.pixels), -1) for tile in tiles], axis=1)
        classes = np.unique(np.concatenate([tile.truth.ravel() for tile in tiles]))
        return Recipe(
            name="stand-in",
            architecture=shipped.architecture,
            encoder=self.encoder,
            decoder_channels=_UNET_CHANNELS,
            stride=shipped.stride,
            mean=tuple(pixels.mean(axis=1).tolist()),
            std=tuple(np.maximum(pixels.std(axis=1), 1).tolist()),
            live=tuple(int(value) for value in classes if value in range(1, 13)),
        )

    def trained(self, tiles: Sequence[TrainingTile], recipe: Recipe, *, start: Model, seed: int) -> nn.Module:
        """Trains a network with the published head.

        Args:
            tiles: to train on.
            recipe: as `recipe` makes it.
            start: its encoder, trained on the same patches, is used as it is where the stand-in has the same one.
            seed: decides weights and crops.
        """
        build = partial(_build, recipe, start)
        return fit_network(build, tiles, recipe, seed=seed, settings=self.fit, threads=cores())


def _build(recipe: Recipe, start: Model) -> nn.Module:
    network: Any
    if recipe.encoder in _ENCODERS:
        make_torchvision_importable()
        import segmentation_models_pytorch as smp

        decoder = {"upernet": OUTPUT_CHANNELS, "unet": _UNET_CHANNELS}[recipe.architecture]
        network = smp.create_model(
            recipe.architecture,
            recipe.encoder,
            encoder_weights=None,
            in_channels=len(recipe.bands),
            classes=recipe.logits,
            decoder_channels=decoder,
            **_ENCODERS[recipe.encoder],
        )
    else:
        network = build_network(recipe)
    if recipe.architecture == "upernet":
        network.decoder = EarlierUPerNetDecoder(network.encoder.out_channels, pyramid_channels=_PYRAMID_CHANNELS)
    for module in network.modules():
        # ConvNeXtV2's, which divides by a norm over the whole window. Its weight starts at 0, and would stay near it in
        # a short training. Timm's class cannot be imported before torchvision is made importable.
        if type(module).__name__ == "GlobalResponseNorm":
            nn.init.ones_(cast(nn.Parameter, module.weight))
    if (recipe.encoder, recipe.bands) == (start.recipe.encoder, start.recipe.bands):
        trained: Any = start.network
        network.encoder.load_state_dict(trained.encoder.state_dict())
        network.encoder.requires_grad_(requires_grad=False)
    return cast(nn.Module, network)


def labelled_patches(imagery: Imagery) -> tuple[list[TrainingTile], tuple[str, ...]]:
    """The imagery's patches with their labels, and notes about them.

    Without real patches the labels are four levels of brightness, whose borders are as crisp.
    """
    patches = imagery.patches
    files = sorted(imagery.data.glob(_MASKS))
    notes: tuple[str, ...] = ()
    if len(files) == len(patches):
        labels = [_read(path)[: patches.shape[2], : patches.shape[3]] for path in files]
    else:
        labels = [_brightness_levels(patch) for patch in patches]
        notes = ("no labels: networks were trained to tell four levels of brightness apart",)
    return [TrainingTile(str(i), p, t) for i, (p, t) in enumerate(zip(patches, labels, strict=True))], notes


def _read(path: Any) -> Any:
    with rasterio.open(path) as file:
        return file.read(1)


def _brightness_levels(patch: Any) -> Any:
    brightness = uniform_filter(patch[:3].mean(axis=0), 9)
    levels = np.quantile(brightness, np.linspace(0, 1, _LEVELS + 1)[1:-1])
    return (1 + np.digitize(brightness, levels)).astype(np.uint8)


def stand_ins(*, quick: bool) -> tuple[StandIn, ...]:
    """The stand-ins: of both kinds of FLAIR-HUB's networks with UPerNet, and of two without its averages."""
    convnext, swin = "flair-hub_lc-a_ir_convnextv2tiny", "flair-hub_lc-a_ir_swintiny"
    default, swin_default = (load_recipe(f"{name}-upernet").layout() for name in (convnext, swin))
    small = (Layout.for_window(512, 128), Layout.for_window(1024, 256))
    fit = FitSettings(steps=40, batch=2, crop=512, learning_rate=2e-3)
    halos = (Layout.for_window(1024, 160), Layout.for_window(512, 128))
    found = (
        StandIn(
            "ConvNeXt, UPerNet",
            f"{convnext}-upernet",
            "tu-convnextv2_atto",
            (default, *small, Layout.for_window(2048, 256), Layout.for_window(2048, 512)),
            side=3840,
            fit=fit,
            folds=3,
        ),
        StandIn(
            "Swin, UPerNet",
            f"{swin}-upernet",
            "tu-swin_tiny_patch4_window7_224",
            (
                swin_default,
                Layout.for_window(1120, 224, 224),
                Layout.for_window(2688, 448, 224),
            ),
            side=3840,
            fit=fit,
            folds=2,
        ),
        StandIn(
            "ConvNeXt, U-Net",
            f"{convnext}-unet",
            "tu-convnextv2_atto",
            (load_recipe(f"{convnext}-unet").layout(), small[1], Layout.for_window(2048, 256), halos[0]),
            side=3840,
            fit=fit,
        ),
        StandIn(
            "ResNet-34, FPN",
            "flair-inc_rgbie_12cl_resnet34-fpn",
            "resnet34",
            halos,
            side=2112,
            fit=FitSettings(steps=30, batch=2, crop=256, learning_rate=2e-3),
        ),
    )
    return tuple(_quick(one) for one in found) if quick else found


def _quick(one: StandIn) -> StandIn:
    stride = one.layouts[0].stride
    margin = max(stride, 64)
    layout = Layout.for_window(2 * margin + max(stride, 128), margin, stride)
    settings = FitSettings(steps=6, batch=2, crop=128, learning_rate=4e-3)
    return StandIn(one.name, one.shipped, one.encoder, (layout,), 3 * layout.core, settings, min(one.folds, 1))
