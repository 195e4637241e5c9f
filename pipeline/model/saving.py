"""Writes weights as FLAIR-INC files have them, and recipes."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml

from pipeline.config import Recipe
from pipeline.durable import replacing, write_text
from pipeline.model.checkpoint import FLAIR_PREFIX, LOSS_PREFIX
from pipeline.model.network import build_network


def save_weights(path: Path, tensors: Mapping[str, torch.Tensor], *, class_weights: torch.Tensor | None = None) -> None:
    """Writes a `.pth` with the names of FLAIR-INC files, which `load` reads; the same tensors give the same bytes.

    Args:
        path: of the file.
        tensors: a state dict with the names of segmentation-models-pytorch.
        class_weights: float32 (logit), the class weights of the cross-entropy, which go into the file too.

    Raises:
        StorageError: the folder cannot be written.
    """
    named = OrderedDict((FLAIR_PREFIX + name, tensor) for name, tensor in tensors.items())
    if class_weights is not None:
        named[f"{LOSS_PREFIX}weight"] = class_weights
    # Into an open file: given a path, torch writes its name, here a random one, into the archive.
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(OrderedDict((name, tensor.detach().cpu().clone()) for name, tensor in named.items()), file)


def save_untrained_weights(path: Path, recipe: Recipe) -> None:
    """Writes random weights of a recipe's network, the same each time; a bench measures speed with them.

    The statistics of batch normalisation are those of noise, so that activations stay in the range of half precision.

    Raises:
        StorageError: the folder cannot be written.
    """
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(0)
        network = build_network(recipe)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the statistics of all batches, which is one
        network(torch.randn(4, len(recipe.bands), 128, 128))
    save_weights(path, network.state_dict())


def save_recipe(path: Path, recipe: Recipe) -> None:
    """Writes a recipe as YAML, which `load_recipe` reads.

    Raises:
        StorageError: the folder cannot be written.
    """
    content = recipe.model_dump(mode="json")
    # Both are left out of the content.
    smallest = {"smallest_halo": recipe.smallest_halo, "smallest_window": recipe.smallest_window}
    content |= {name: value for name, value in smallest.items() if value is not None}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_text(path, text)
