"""Which of the shipped recipes a checkpoint may belong to, by its name and by the names and shapes of its tensors."""

import re
from collections.abc import Mapping
from functools import cache
from typing import get_args

import torch

from pipeline.config import Band, Recipe, config_folder, load_recipe
from pipeline.model.network import build_network
from pipeline.model.upernet_decoder import has_earlier_upernet


def fitting_recipes(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Shipped recipes whose network has exactly these names and shapes of tensors."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    earlier = has_earlier_upernet(tensors)
    return [
        r.name for r in shipped_recipes() if may_fit(r, tensors) and _shapes_of(_nameless(r), earlier=earlier) == shapes
    ]


_TELLING = {
    "tu-swin": "encoder.model.layers_",
    "tu-convnext": "encoder.model.stages_",
    "resnet": "encoder.layer",
    "unet": "decoder.blocks.",
    "upernet": "decoder.psp.",
    "fpn": "decoder.seg_blocks.",
}
"""Begin of the name of an encoder or a decoder → begin of a name among its tensors."""


def may_fit(recipe: Recipe, tensors: Mapping[str, torch.Tensor]) -> bool:
    """False where the names of some tensors exclude encoder or decoder: a large network takes seconds to build."""
    parts = (recipe.encoder, recipe.architecture)
    begins = [begin for kind, begin in _TELLING.items() if any(part.startswith(kind) for part in parts)]
    return all(any(name.startswith(begin) for name in tensors) for begin in begins)


def _nameless(recipe: Recipe) -> Recipe:
    """The recipe without what no shape depends on, so that equal networks are built once."""
    bands = get_args(Band)[: len(recipe.bands)]
    return recipe.model_copy(update={"name": "", "bands": bands, "mean": (), "std": (), "live": (), "logit_values": ()})


@cache
def _shapes_of(recipe: Recipe, *, earlier: bool) -> dict[str, tuple[int, ...]]:
    # On `meta`, tensors have no storage: only names and shapes are needed.
    with torch.device("meta"):
        state = build_network(recipe, earlier_upernet=earlier).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def shipped_recipes() -> list[Recipe]:
    """All recipes under `configs/models`."""
    return [load_recipe(path.stem) for path in sorted((config_folder() / "models").glob("*.yaml"))]


def named_recipe(source: str) -> str | None:
    """The shipped recipe that the name of a checkpoint contains."""
    return next(iter(named_recipes(source)), None)


def named_recipes(source: str) -> list[str]:
    """The shipped recipes that the name of a checkpoint contains, the longest name first."""
    said = [r.name for r in shipped_recipes() if re.search(rf"(?<![a-z]){re.escape(r.name)}(?![a-z])", source.lower())]
    return sorted(said, key=len, reverse=True)
