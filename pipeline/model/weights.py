"""Loads a network with its weights from a file or the Hugging Face hub, checks and hashes it, and keeps it."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, errors, hf_hub_download
from torch import nn

from pipeline.config import DEFAULT_RECIPE, Recipe, load_recipe
from pipeline.errors import WeightsError
from pipeline.fingerprint import file_sha256
from pipeline.model import checkpoint
from pipeline.model.network import build_network

HUB = "hf://"
_TransportError: type[Exception] = errors.HTTPError
"""A broken connection, under the only name that does not depend on the HTTP library of the hub's client."""


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights, its recipe and their source.

    A model from a file is pickled as its path, so that a worker loads it once and keeps it. A model made in memory is
    pickled with its parameters.
    """

    network: nn.Module
    """float32, in evaluation mode: normalised (n, band, y, x) → (n, logit, y, x)."""
    recipe: Recipe
    weights_hash: str
    """SHA-256 of the file of weights, or of the state dict if there is no file."""
    source: str = ""
    """The absolute path or `hf://…` that it was loaded from; empty if it was made in memory."""

    @classmethod
    def in_memory(cls, network: nn.Module, recipe: Recipe) -> "Model":
        """Makes a model of a network in memory; puts the network into evaluation mode, without gradients."""
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
        """Dask's token: the same weights with the same recipe are the same model in every process."""
        return ("landcover-model", self.weights_hash, self.recipe.model_dump_json())


def load_model(weights: str | Path, recipe: Recipe | str = DEFAULT_RECIPE) -> Model:
    """Loads the model of a checkpoint: FLAIR-INC `.pth`, Lightning `.ckpt` or `.safetensors`.

    A process keeps the last models that it loaded, so a second call with the same file and recipe returns the same
    object. Half precision becomes float32.

    Args:
        weights: a path, or `hf://org/name[/file]`. Without a file, `<name>_weights.pth` and then `model.safetensors`
            are tried. Without a network, the hub's cache is used.
        recipe: a recipe, a name under `configs/models/`, or the path of a recipe's YAML.

    Raises:
        WeightsError: the file is missing, cannot be downloaded, is damaged or unsafe, or does not fit the recipe.
        ConfigError: there is no such recipe.

    Examples:
        >>> model = load_model("build/demo/model/demo_weights.pth", "build/demo/model/demo.yaml")
        >>> model.recipe.bands
        ('red', 'green', 'blue', 'nir', 'elevation')
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    text = str(weights)
    source = text if text.startswith(HUB) else str(Path(weights).expanduser().absolute())
    path = _from_hub(source) if source.startswith(HUB) else Path(source)
    with _LOCK:
        return _load_file(path, recipe, source, _file_identity(path))


_LOCK = threading.Lock()
"""Keeps two threads from loading the same model."""


def _file_identity(path: Path) -> tuple[int, ...]:
    """Numbers that change when a file is replaced or rewritten; empty if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()  # the reader will raise an error that says more
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def read_weights(weights: str | Path) -> dict[str, torch.Tensor]:
    """Reads the tensors of a checkpoint by name, whatever their network.

    Args:
        weights: as for `load_model`.

    Raises:
        WeightsError: the file is missing, cannot be downloaded, is damaged or unsafe.
    """
    text = str(weights)
    path = _from_hub(text) if text.startswith(HUB) else Path(weights).expanduser().absolute()
    return checkpoint.read_checkpoint(path).tensors


@lru_cache(maxsize=2)
def _load_file(path: Path, recipe: Recipe, source: str, _identity: tuple[int, ...]) -> Model:
    """Loads a model; the process keeps the last two, each as long as its file has this identity."""
    found = checkpoint.read_checkpoint(path)
    network = build_network(recipe)
    checkpoint.load_tensors(found, network, recipe, source=source)
    return Model(network.eval().requires_grad_(requires_grad=False), recipe, file_sha256(path), source)


def _load_again(source: str, recipe: Recipe, weights_hash: str) -> Model:
    """Loads a pickled model in another process; raises WeightsError if its file has changed."""
    model = load_model(source, recipe)
    if model.weights_hash != weights_hash:
        raise WeightsError(
            f"{source}: checksum mismatch: expected weights of SHA-256 {weights_hash[:12]}…, found "
            f"{model.weights_hash[:12]}…. The file changed after the run was planned, or differs on this machine: "
            "restore it or start the run again"
        )
    return model


def _from_hub(source: str) -> Path:
    """The local file of `hf://org/name[/file]`, downloaded if it is not in the hub's cache."""
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
    """The file's path in the hub's cache, or None if neither the repository nor the cache has it."""
    try:
        return Path(hf_hub_download(repo, file))
    except errors.EntryNotFoundError:
        return None
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        reason = str(error).strip().splitlines()
        raise WeightsError(f"{source}: no such repository, or it needs a login (hf auth login): {reason[0]}") from error
    except (OSError, _TransportError) as error:
        raise WeightsError(
            f"{source}: {file} could not be downloaded from the hub ({error}) and is not in the cache "
            f"{constants.HF_HUB_CACHE}. Run on a login node that shares the cache: {command}"
        ) from error
