"""The network of a recipe, built without asking anybody for weights."""

from typing import Any, cast

import torch
from huggingface_hub import constants, errors
from torch import nn

from pipeline.config import Recipe
from pipeline.errors import ConfigError, WeightsError


def mend_torchvision() -> None:
    """Makes `import torchvision` succeed also where its compiled operators do not load.

    Whoever imports what imports torchvision (segmentation-models-pytorch, Lightning) calls it first. The registry's
    torchvision is compiled for CUDA. Beside a CPU build of torch its operators are missing, and torchvision 0.2x then
    fails on import because it describes two of them (`nms`, `qnms`) without looking whether they exist. We need
    neither, so their signatures are declared and the import is tried again.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare_missing_operators()


def _import_smp() -> Any:
    mend_torchvision()
    import segmentation_models_pytorch

    return segmentation_models_pytorch


def unet_blocks(network: nn.Module) -> dict[str, nn.Module]:
    """The decoder blocks of an smp U-Net by name; none in any other network."""
    kind = _import_smp().decoders.unet.decoder.UnetDecoderBlock
    return {name: module for name, module in network.named_modules() if type(module) is kind}


def _declare_missing_operators() -> None:
    library: Any = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)


_KEPT: list[torch.library.Library] = []
"""A library's definitions live as long as it does."""


def build(recipe: Recipe, *, imagenet: bool = False) -> nn.Module:
    """The recipe's network with random weights: float32, in training mode, as PyTorch makes it.

    It maps normalised (n, bands, height, width), both sides multiples of the stride, to logits
    (n, logits, height, width). `encoder_weights=None` by default, because the library's default asks a hub, and
    compute nodes have no internet.

    Args:
        recipe: architecture, encoder, bands and logits.
        imagenet: start the encoder from what was learnt on ImageNet, asking the hub or its cache.

    Raises:
        ConfigError: segmentation-models-pytorch knows no such encoder, the decoder's channels do not fit
            it, or the network's own stride does not divide the recipe's.
        WeightsError: weights of ImageNet that cannot be had.
    """
    smp = _import_smp()
    common = {
        "encoder_name": recipe.encoder,
        "encoder_weights": "imagenet" if imagenet else None,
        "in_channels": len(recipe.bands),
        "classes": recipe.logits,
    }
    try:
        own = {"decoder_channels": recipe.decoder_channels} if recipe.architecture == "unet" else {}
        network: Any = smp.create_model(recipe.architecture, **common, **own)
    except (OSError, errors.HTTPError) as error:
        raise WeightsError(
            f"recipe {recipe.name}: the hub's ImageNet weights of encoder {recipe.encoder!r} could not be had "
            f"({str(error)[:200]}); build it once on a machine with internet that shares the hub's cache "
            f"{constants.HF_HUB_CACHE}, or start from random weights"
        ) from error
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
