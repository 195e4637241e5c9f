"""Names and shapes of the tensors in FLAIR-HUB's checkpoints, brought to those of segmentation-models-pytorch."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.nn import functional

from pipeline.errors import WeightsError

_PREFIX = "model."
"""Of all names in files of training; safetensors may lack it."""
_AERIAL = "AERIAL_RGBI"
_LAND_COVER = "AERIAL_LABEL-COSIA"
_ENCODER = f"encoders.{_AERIAL}.seg_model."
_DECODER = f"main_decoders.{_LAND_COVER}.seg_model."
_UNUSED = ("fusion_handler.", "aux_decoders.", "main_decoders.", "criterion.")
"""Prefixes of tensors that a map from aerial imagery alone needs none of: `main_decoders` are those of other tasks."""
_BUFFERS = (".relative_position_index", ".attn_mask")
"""Of Swin encoders in files of earlier timm versions. They follow from the sizes of windows."""
_TABLE = ".relative_position_bias_table"


def has_hub_names(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether tensors have the names of FLAIR-HUB, which sorts them by modality and task."""
    return any(name.removeprefix(_PREFIX).startswith(("encoders.", "main_decoders.")) for name in state)


def plain_hub_names(state: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a FLAIR-HUB checkpoint by the names of segmentation-models-pytorch.

    Args:
        state: for which `has_hub_names` is true.
        path: of the file, for messages.

    Raises:
        WeightsError: the model reads other data than aerial imagery, maps no land cover, or has a tensor twice.
    """
    own = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
    if twice := [name for name in own if name in state and _PREFIX + name in state]:
        raise WeightsError(f"{path}: contains {len(twice)} tensors both with and without {_PREFIX!r}: {twice[0]}, …")
    modalities = {name.split(".")[1] for name in own if name.startswith("encoders.")}
    tasks = {name.split(".")[1] for name in own if name.startswith("main_decoders.")}
    if modalities != {_AERIAL} or _LAND_COVER not in tasks:
        raise WeightsError(
            f"{path}: a FLAIR-HUB model of {_listed(modalities)} for {_listed(tasks)}; expected one of {_AERIAL} alone "
            f"for {_LAND_COVER}. Those are named FLAIR-HUB_LC-A_…"
        )
    plain = {}
    for name, tensor in own.items():
        if name.startswith(_ENCODER) and not name.endswith(_BUFFERS):
            plain["encoder." + name.removeprefix(_ENCODER)] = tensor
        elif name.startswith(_DECODER):
            plain[name.removeprefix(_DECODER)] = tensor
        elif not name.startswith((_ENCODER, *_UNUSED)):
            plain[name] = tensor
    return plain


def fit_position_tables(
    tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Resizes tables of relative positions that were trained with other attention windows, bicubically.

    Args:
        tensors: of a checkpoint; a table is float (places, head), whose places are a square.
        wanted: of the network, by the same names.

    Returns:
        All tensors, with tables of the sizes in `wanted` where both are squares.
    """
    return {
        name: _resized(tensor, wanted[name]) if name.endswith(_TABLE) and name in wanted else tensor
        for name, tensor in tensors.items()
    }


def _resized(table: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if table.ndim != 2 or table.shape == like.shape or table.shape[1:] != like.shape[1:]:
        return table
    side, new_side = math.isqrt(len(table)), math.isqrt(len(like))
    if not side or side**2 != len(table) or new_side**2 != len(like) or not table.is_floating_point():
        return table
    square = table.float().T.reshape(1, -1, side, side)
    resized = functional.interpolate(square, size=(new_side, new_side), mode="bicubic", align_corners=False)
    return resized.reshape(-1, new_side**2).T.contiguous()


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
