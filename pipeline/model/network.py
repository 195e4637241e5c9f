"""The network of a recipe, built without asking anybody for weights."""

from typing import Any, cast

import torch
from torch import nn

from pipeline.config import Recipe
from pipeline.errors import ConfigError


def _import_smp() -> Any:
    """segmentation-models-pytorch, also where torchvision's compiled operators do not load.

    The registry's torchvision is compiled for CUDA. Beside a CPU build of torch its operators are
    missing, and torchvision 0.2x then fails on import because it describes two of them (`nms`,
    `qnms`) without looking whether they exist. We need neither, so their signatures are declared and the
    import is tried again.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare_missing_operators()
    import segmentation_models_pytorch

    return segmentation_models_pytorch


def _declare_missing_operators() -> None:
    library: Any = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)


_KEPT: list[torch.library.Library] = []
"""A library's definitions live as long as it does."""


def build(recipe: Recipe) -> nn.Module:
    """The recipe's network with random weights: float32, in training mode, as PyTorch makes it.

    It maps normalised (n, bands, height, width), both sides multiples of the stride, to logits
    (n, logits, height, width). `encoder_weights=None`, because the default asks a hub, and compute nodes
    have no internet.

    Raises:
        ConfigError: segmentation-models-pytorch knows no such encoder, the decoder's channels do not fit
            it, or the network's own stride does not divide the recipe's.
    """
    smp = _import_smp()
    common = {
        "encoder_name": recipe.encoder,
        "encoder_weights": None,
        "in_channels": len(recipe.bands),
        "classes": recipe.logits,
    }
    try:
        if recipe.architecture == "fpn":
            network: Any = smp.FPN(**common)
        else:
            network = smp.Unet(decoder_channels=recipe.decoder_channels, **common)
    except (KeyError, ValueError, RuntimeError) as error:  # unknown to smp, unfit decoder, unknown to timm (`tu-`)
        raise ConfigError(
            f"recipe {recipe.name}: segmentation-models-pytorch builds no {recipe.architecture} on encoder "
            f"{recipe.encoder!r} with decoder channels {recipe.decoder_channels}: {str(error)[:300]}"
        ) from error
    stride: int = network.encoder.output_stride
    if recipe.stride % stride:
        raise ConfigError(
            f"recipe {recipe.name}: stride {recipe.stride} is no multiple of the network's own, {stride}: windows "
            f"aligned to it would give a map that depends on where they begin; set stride: {stride}"
        )
    return cast(nn.Module, network)
