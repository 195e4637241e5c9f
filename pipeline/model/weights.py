"""A network with its weights, from a file or the Hugging Face hub: found, checked, hashed, loaded once."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, errors, hf_hub_download
from torch import nn

from pipeline.config import DEFAULT_RECIPE, Recipe, load_recipe
from pipeline.errors import WeightsError
from pipeline.fingerprint import file_sha256
from pipeline.model import checkpoint
from pipeline.model.network import build

HUB = "hf://"
_KEPT_MODELS = 2
_TransportError: type[Exception] = errors.HTTPError
"""A connection that breaks, in whichever HTTP library the hub's client is built on: only its own name is stable."""


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights, its recipe, and where they came from.

    Loaded from a file it pickles by reference, so that a task carries a path and not the parameters, and
    a worker loads it once and keeps it; made in memory it pickles by value.
    """

    network: nn.Module
    """float32, in evaluation mode: (n, bands, h, w) normalised → (n, logits, h, w)."""
    recipe: Recipe
    weights_hash: str
    """SHA-256 of the weights' file, or of the state dict where there is none."""
    source: str = ""
    """The absolute path or `hf://…` that it was loaded from; empty where it was made in memory."""

    @classmethod
    def in_memory(cls, network: nn.Module, recipe: Recipe) -> "Model":
        """A model of a network that came from no file; sets the network to evaluation, without gradients."""
        hasher = hashlib.sha256()
        for name, tensor in sorted(network.state_dict().items()):
            array = tensor.detach().cpu().contiguous().numpy()
            hasher.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
        return cls(network.eval().requires_grad_(requires_grad=False), recipe, hasher.hexdigest())

    def __reduce__(self) -> tuple[Callable[..., "Model"], tuple[Any, ...]]:
        if self.source:
            return _load_again, (self.source, self.recipe, self.weights_hash)
        return Model, (self.network, self.recipe, self.weights_hash)

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        """Dask's name for it: the same weights under the same recipe are the same model in every process."""
        return ("landcover-model", self.weights_hash, self.recipe.model_dump_json())


def load(weights: str | Path, recipe: Recipe | str = DEFAULT_RECIPE) -> Model:
    """The model of a checkpoint: FLAIR-INC `.pth`, Lightning `.ckpt` or `.safetensors`.

    A process keeps the last ones that it loaded, so a second call with the same file and recipe returns
    the same object. The network is built without asking a hub; half precision becomes float32.

    Args:
        weights: a path, or `hf://org/name[/file]`; without a file `<name>_weights.pth`, then
            `model.safetensors`. The hub's cache is used where there is no network.
        recipe: a recipe, a name under `configs/models/`, or the path of a recipe's YAML.

    Raises:
        WeightsError: the file is not there, cannot be had, is damaged or unsafe, or does not fit the
            recipe; the message lists what is wrong.
        ConfigError: there is no such recipe.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    text = str(weights)
    source = text if text.startswith(HUB) else str(Path(weights).expanduser().absolute())
    path = _from_hub(source) if source.startswith(HUB) else Path(source)
    with _LOCK:
        key = (source, recipe, _identity(path))
        if key not in _LOADED:
            _LOADED[key] = _load_file(path, recipe, source)
        _LOADED.move_to_end(key)
        while len(_LOADED) > _KEPT_MODELS:
            _LOADED.popitem(last=False)
        return _LOADED[key]


_LOADED: OrderedDict[tuple[str, Recipe, tuple[int, ...]], Model] = OrderedDict()
_LOCK = threading.Lock()
"""Held while loading: threads that want one model must not load it twice."""


def _identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or rewritten."""
    try:
        stat = path.stat()
    except OSError:
        return ()  # reading it says by name what is wrong
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def read_weights(weights: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by their plain names, whatever network they are of.

    Args:
        weights: as `load` takes them.

    Raises:
        WeightsError: the file is not there, cannot be had, is damaged or unsafe.
    """
    text = str(weights)
    return checkpoint.read_tensors(_from_hub(text) if text.startswith(HUB) else Path(weights).expanduser().absolute())


def _load_file(path: Path, recipe: Recipe, source: str) -> Model:
    tensors = checkpoint.read_tensors(path)
    network = build(recipe)
    checkpoint.fit_tensors(tensors, network, recipe, where=source)
    return Model(network.eval().requires_grad_(requires_grad=False), recipe, file_sha256(path), source)


def _load_again(source: str, recipe: Recipe, weights_hash: str) -> Model:
    """A pickled model's other half: the same file in another process, or an error where it changed meanwhile."""
    model = load(source, recipe)
    if model.weights_hash != weights_hash:
        raise WeightsError(
            f"{source}: expected the weights of SHA-256 {weights_hash[:12]}…, got {model.weights_hash[:12]}…: the file "
            f"changed after the run was planned, or differs on this machine; put it back or start the run again"
        )
    return model


def _from_hub(source: str) -> Path:
    """The local file of `hf://org/name[/file]`, downloaded where it is not in the hub's cache."""
    parts = source.removeprefix(HUB).split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise WeightsError(f"{source}: expected hf://org/name or hf://org/name/file")
    repo = "/".join(parts[:2])
    files = parts[2:] or [f"{parts[1]}_weights.pth", "model.safetensors"]
    for file in files:
        path = _download(source, repo, file, command=f"hf download {repo} {files[0]}")
        if path is not None:
            return path
    raise WeightsError(
        f"{source}: {' and '.join(files)} not found in repository {repo} or in the cache {constants.HF_HUB_CACHE}. "
        f"If this machine has no internet, run on a login node that shares the cache: hf download {repo} {files[0]}"
    )


def _download(source: str, repo: str, file: str, *, command: str) -> Path | None:
    """The file's path in the hub's cache, or None where it is neither in the repository nor in the cache."""
    try:
        return Path(hf_hub_download(repo, file))
    except errors.EntryNotFoundError:
        return None
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        reason = str(error).strip().splitlines()
        raise WeightsError(f"{source}: no such repository, or it wants a login (hf auth login): {reason[0]}") from error
    except (OSError, _TransportError) as error:
        raise WeightsError(
            f"{source}: {file} could not be had from the hub ({error}) and is not in the cache "
            f"{constants.HF_HUB_CACHE}; run on a login node that shares the cache: {command}"
        ) from error
