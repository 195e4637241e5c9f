"""Checkpoints with the names of FLAIR-HUB's files and random weights."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipeline.config import Recipe, load_recipe
from pipeline.model import build_network

State = OrderedDict[str, torch.Tensor]
TINY = load_recipe("flair-hub_lc-a_ir_convnextv2tiny-upernet")
CONVNEXT, SWIN = "tu-convnextv2_atto", "tu-swin_tiny_patch4_window7_224"
"""The smallest encoders of either kind."""


def recipe_of(encoder: str, architecture: Any) -> Recipe:
    """A shipped recipe with a smaller encoder."""
    stride = 224 if encoder == SWIN else 32
    update = {"name": "small", "encoder": encoder, "architecture": architecture, "stride": stride}
    return TINY.model_copy(update=update | {"smallest_window": None})


def random_network(recipe: Recipe, *, earlier_upernet: bool) -> torch.nn.Module:
    """Random weights and statistics, so that no normalisation is the identity."""
    torch.manual_seed(11)
    network = build_network(recipe, earlier_upernet=earlier_upernet)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def hub_names(state: dict[str, torch.Tensor], *, prefix: str = "") -> State:
    """Tensors under the names of FLAIR-HUB's files, with all that is in such files and in no map."""
    named = OrderedDict()
    for name, tensor in state.items():
        part = "encoders.AERIAL_RGBI.seg_model." if name.startswith("encoder.") else ""
        part = part or "main_decoders.AERIAL_LABEL-COSIA.seg_model."
        named[prefix + part + name.removeprefix("encoder.")] = tensor
    unused = {
        "fusion_handler.conv_f.0.weight": torch.zeros(96, 96, 1, 1),
        "fusion_handler.conv_f.0.bias": torch.zeros(96),
        "aux_decoders.AERIAL_RGBI__AERIAL_LABEL-COSIA.seg_model.segmentation_head.0.bias": torch.zeros(19),
        "criterion.AERIAL_LABEL-COSIA.weight": torch.ones(19),
        "encoders.AERIAL_RGBI.seg_model.model.layers_0.blocks.0.attn.relative_position_index": torch.zeros(
            49, 49
        ).long(),
        # IGN builds the decoder for images of one band.
        "main_decoders.AERIAL_LABEL-COSIA.seg_model.decoder.fpn_stages.4.skip_conv.0.weight": torch.zeros(256, 1, 1, 1),
    }
    return OrderedDict(named | {prefix + name: tensor for name, tensor in unused.items()})


def written(path: Path, state: State) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save({"state_dict": state}, path)
    return path
