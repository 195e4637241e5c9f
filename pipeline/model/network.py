"""Builds the network of a recipe, by default without a request to a hub."""

import math
from typing import Any, cast

import torch
from huggingface_hub import constants, errors
from torch import nn

from pipeline.config import Recipe
from pipeline.errors import MALFORMED, ConfigError, WeightsError
from pipeline.model.upernet_decoder import OUTPUT_CHANNELS, EarlierUPerNetDecoder


def make_torchvision_importable() -> None:
    """Makes `import torchvision` succeed even if its compiled operators do not load.

    Call it before importing a library that imports torchvision: segmentation-models-pytorch or Lightning. The usual
    torchvision is compiled for CUDA. With a CPU build of torch its operators are missing, and torchvision 0.2x fails on
    import because it describes two of them (`nms`, `qnms`). Nothing here needs them, so their signatures are declared.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library: Any = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)


def _import_smp() -> Any:
    make_torchvision_importable()
    import segmentation_models_pytorch

    return segmentation_models_pytorch


def unet_blocks(network: nn.Module) -> dict[str, nn.Module]:
    """The decoder blocks of an smp U-Net by name; empty for other networks."""
    kind = _import_smp().decoders.unet.decoder.UnetDecoderBlock
    return {name: module for name, module in network.named_modules() if type(module) is kind}


_DECLARED: list[torch.library.Library] = []
"""Keeps the libraries, whose definitions vanish with them."""


_SWIN = "tu-swin_"
_SWIN_IMAGE = 512
"""Side of the image for which FLAIR-HUB builds its Swin encoders, in pixels. The attention windows of the last stage
overlap only if it is larger than one of them."""


def build_network(recipe: Recipe, *, imagenet: bool = False, earlier_upernet: bool = False) -> nn.Module:
    """Builds the recipe's network with random weights, in float32 and training mode.

    It maps normalised images (n, band, y, x), whose sides are multiples of the stride, to logits (n, logit, y, x).

    Args:
        recipe: architecture, encoder, bands and logits.
        imagenet: load the encoder's ImageNet weights from the hub or its cache. By default nothing is loaded: compute
            nodes have no internet.
        earlier_upernet: build a UPerNet with the decoder that FLAIR-HUB's checkpoints have, see `upernet_decoder`.

    Raises:
        ConfigError: segmentation-models-pytorch does not know the encoder, the decoder's channels do not fit it, or
            the network's stride does not divide the recipe's.
        WeightsError: the ImageNet weights cannot be loaded.
    """
    smp = _import_smp()
    earlier_upernet = earlier_upernet and recipe.architecture == "upernet"
    own: dict[str, Any] = {"decoder_channels": recipe.decoder_channels} if recipe.architecture == "unet" else {}
    if recipe.encoder.startswith(_SWIN):
        # Masks of attention are then made in each forward, for the image at hand.
        own |= {"img_size": _SWIN_IMAGE, "strict_img_size": False}
    if earlier_upernet:
        own["decoder_channels"] = OUTPUT_CHANNELS
    try:
        network: Any = smp.create_model(
            recipe.architecture,
            recipe.encoder,
            encoder_weights="imagenet" if imagenet else None,
            in_channels=len(recipe.bands),
            classes=recipe.logits,
            **own,
        )
    except (OSError, errors.HTTPError) as error:
        raise WeightsError(
            f"recipe {recipe.name}: ImageNet weights of encoder {recipe.encoder!r} could not be loaded from the hub "
            f"({str(error)[:200]}). Build it once on a machine with internet that shares the hub's cache "
            f"{constants.HF_HUB_CACHE}, or start from random weights"
        ) from error
    except MALFORMED as error:  # unknown to smp, wrong decoder, unknown to timm (`tu-`), numbers beyond 64 bits
        raise ConfigError(
            f"recipe {recipe.name}: segmentation-models-pytorch cannot build {recipe.architecture} on encoder "
            f"{recipe.encoder!r} with decoder channels {recipe.decoder_channels}: {str(error)[:300]}"
        ) from error
    if earlier_upernet:
        network.decoder = EarlierUPerNetDecoder(network.encoder.out_channels)
    stride = _stride_of(network)
    if recipe.stride % stride:
        raise ConfigError(
            f"recipe {recipe.name}: stride {recipe.stride} is not a multiple of the network's stride {stride}, so the "
            f"map would depend on where windows begin; set stride: {stride}"
        )
    return cast(nn.Module, network)


def _stride_of(network: Any) -> int:
    """Only shifts by multiples of it shift the map alike: a Swin's attention windows lie in a fixed raster."""
    stride: int = network.encoder.output_stride
    windows = [
        max(m.window_size) for m in network.encoder.modules() if isinstance(getattr(m, "window_size", None), tuple)
    ]
    return stride * math.lcm(*windows) if windows else stride
