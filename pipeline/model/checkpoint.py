"""Reading a checkpoint's tensors without running what it holds, and checking that they fit a network."""

import io
import pickle
import re
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from pipeline.config import Recipe, config_folder, load_recipe
from pipeline.errors import WeightsError
from pipeline.model.network import build

PREFIX = "model.seg_model."
"""Before each name of segmentation-models-pytorch in the FLAIR-INC files, as their Lightning module nests it."""
IGNORED = "criterion."
"""Before what belongs to the loss, not to the network: the class weights of the cross-entropy."""
HEAD = "segmentation_head.0.bias"
"""Its length is the number of logits."""

_NAMED = 10

_UNREADABLE = (
    pickle.UnpicklingError,
    safetensors.SafetensorError,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the readers raise on bytes that are no checkpoint: torch's restricted unpickler interprets opcodes that
may be anything, so a damaged file fails wherever the damage leads it (all but OverflowError seen by fuzzing)."""


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint under the names of segmentation-models-pytorch, on the CPU, as stored.

    `.safetensors` is read as such; every other name as what `torch.save` wrote: a state dict, or a
    dict that holds one under `state_dict` as Lightning's do; what stands before the names of the network, such as
    `model.seg_model.`, goes. `weights_only=True` always: an object that
    is no tensor is refused and never run.

    Raises:
        WeightsError: no such file; empty, cut short or no checkpoint; pickled objects beside the tensors.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path}: no such file; give a path to .pth, .ckpt or .safetensors, or hf://org/name"
        ) from error
    except IsADirectoryError as error:
        raise WeightsError(f"{path}: expected a checkpoint's file, got a folder") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    if not content:
        raise WeightsError(f"{path}: the file is empty; copy or download it again")
    return _plain_names(_state_dict(_parse(content, path), path), path)


def _parse(content: bytes, path: Path) -> Any:
    """What the file holds. From memory, so that a failing disk is not taken for a damaged checkpoint."""
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors.torch.load(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise _refusal(path, len(content), error) from error


def _refusal(path: Path, size: int, error: BaseException) -> WeightsError:
    """The error of a file that did not load: unsafe where torch names an object that it refuses, else damaged."""
    objects = re.findall(r"(?i:unsupported global):? (?:GLOBAL )?(\S+) (?:was|whose)", str(error))
    if objects:
        return WeightsError(
            f"{path}: holds the pickled object {objects[0]}, which is no tensor; refused, because loading it would run "
            f"code from the file. Where the file is trusted, export its tensors with the program that wrote it: "
            f"torch.save(module.state_dict(), 'weights.pth') or safetensors.torch.save_file(module.state_dict(), "
            f"'weights.safetensors'), and give that file"
        )
    reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().splitlines() or [type(error).__name__]
    return WeightsError(
        f"{path}: not a checkpoint, or cut short ({size} bytes: {reason[0][:200]}); expected what "
        f"torch.save or safetensors writes: compare its size with the original's and copy it again"
    )


def _state_dict(loaded: Any, path: Path) -> Mapping[str, torch.Tensor]:
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: expected a dict of tensors by name, got {_kind(state)}")
    odd = [f"{name!r} ({_kind(value)})" for name, value in state.items() if not _is_named_tensor(name, value)]
    if odd:
        raise WeightsError(
            f"{path}: expected a dict of tensors by name (or one under 'state_dict'), got also {listed(odd)}"
        )
    return state


def _kind(value: object) -> str:
    return f"an empty {type(value).__name__}" if isinstance(value, Mapping) and not value else type(value).__name__


def _is_named_tensor(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor) and value.is_cpu and value.layout == torch.strided


def _plain_names(state: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    # Other modules nest the network as `model.` or, wrapped for several GPUs, as `module.model.seg_model.`.
    prefix = next((n.removesuffix(HEAD) for n in state if n.endswith(f".{HEAD}")), PREFIX)
    plain = {n.removeprefix(prefix): t.detach() for n, t in state.items() if not n.startswith(IGNORED)}
    twice = [n for n in plain if n in state and prefix + n in state]
    if twice:
        raise WeightsError(f"{path}: tensors stand there both with and without {prefix!r}: {listed(twice)}")
    return plain


def fit_tensors(tensors: Mapping[str, torch.Tensor], network: nn.Module, recipe: Recipe, *, where: str) -> None:
    """Puts `tensors` into `network` as float32 (counters keep their integers).

    Raises:
        WeightsError: all that does not fit, in one message that begins with `where`: logits, input
            channels, tensors that miss, that nobody expects or of another shape; then values that are
            not finite.
    """
    wanted = network.state_dict()
    faults = _misfits(tensors, wanted, network, recipe)
    if named := _named_otherwise(where, recipe):
        faults.append(named)
    if faults:
        raise WeightsError(f"{where}: does not fit recipe {recipe.name}: {'; '.join(faults)}")
    cast = {name: tensors[name].to(like.dtype) for name, like in wanted.items()}
    odd = [name for name, tensor in cast.items() if not torch.isfinite(tensor).all()]
    if odd:
        raise WeightsError(
            f"{where}: NaN or infinite values in {listed(odd)}: the training diverged or the file is damaged; "
            f"take another checkpoint"
        )
    network.load_state_dict(cast)


def _misfits(
    tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], network: nn.Module, recipe: Recipe
) -> list[str]:
    faults = []
    shared = [name for name in wanted if name in tensors]
    bad = {name for name in shared if _signature(tensors[name]) != _signature(wanted[name])}
    logits, channels = _length(tensors, HEAD, 0), _length(tensors, _first_convolution(network, recipe), 1)
    if logits not in (None, recipe.logits):
        faults.append(f"its head has {logits} logits, the recipe {recipe.logits}")
    if channels not in (None, len(recipe.bands)):
        faults.append(f"its input has {channels} channels, the recipe {len(recipe.bands)} ({', '.join(recipe.bands)})")
    heads = bool(faults)
    if missing := [name for name in wanted if name not in tensors]:
        faults.append(f"missing tensors: {listed(missing)}")
    if unexpected := [name for name in tensors if name not in wanted]:
        faults.append(f"unexpected tensors: {listed(unexpected)}")
    if bad:
        named = [f"{n} {_shown(tensors[n])} for {_shown(wanted[n])}" for n in shared if n in bad]
        faults.append(f"tensors of another shape or type: {listed(named)}")
    fitting = _fitting(tensors) if faults else []
    if fitting and recipe.name not in fitting:
        faults.append(f"of the shipped recipes, {listed(fitting)} has just these tensors: set model.recipe to it")
    elif heads:
        faults.append(_advice(logits or recipe.logits, channels or len(recipe.bands)))
    return faults


def _fitting(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Shipped recipes whose network has tensors of just these names and shapes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return [name for name, expected in _shapes_of_shipped() if expected == shapes]


@cache
def _shapes_of_shipped() -> tuple[tuple[str, dict[str, tuple[int, ...]]], ...]:
    found = []
    for recipe in _shipped():
        # Without storage: only names and shapes are wanted.
        with torch.device("meta"):
            state = build(recipe).state_dict()
        found.append((recipe.name, {name: tuple(tensor.shape) for name, tensor in state.items()}))
    return tuple(found)


def _shipped() -> list[Recipe]:
    return [load_recipe(path.stem) for path in sorted((config_folder() / "models").glob("*.yaml"))]


def _named_otherwise(where: str, recipe: Recipe) -> str | None:
    """What the file's name says against a shipped recipe: 12cl and 15cl differ in no tensor, only in training."""
    names = [r.name for r in _shipped()]
    said = [n for n in names if re.search(rf"(?<![a-z]){re.escape(n)}(?![a-z])", where.lower())]
    if recipe.name not in names or not said or recipe.name in said:
        return None
    return (
        f"its name says that it is of recipe {said[-1]}: set model.recipe to it, or give the file another name where "
        "its name is wrong"
    )


def _signature(tensor: torch.Tensor) -> tuple[tuple[int, ...], bool]:
    """Shape, and whether it is floating: half and double become float32, integers never become weights."""
    return tuple(tensor.shape), tensor.is_floating_point()


def _shown(tensor: torch.Tensor) -> str:
    shape = " × ".join(str(n) for n in tensor.shape) or "scalar"
    return f"({shape}, {str(tensor.dtype).removeprefix('torch.')})"


def _length(tensors: Mapping[str, torch.Tensor], name: str, axis: int) -> int | None:
    return tensors[name].shape[axis] if name in tensors and tensors[name].ndim > axis else None


def _first_convolution(network: nn.Module, recipe: Recipe) -> str:
    """The name of the weight that meets the bands: (out, bands, height, width); encoders call it by many names."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == len(recipe.bands):
            return f"{name}.weight"
    return ""


def _advice(logits: int, channels: int) -> str:
    fitting = [r.name for r in _shipped() if r.logits == logits and len(r.bands) == channels]
    if fitting:
        return f"of the shipped recipes, {listed(fitting)} has {channels} bands and {logits} logits"
    return f"no shipped recipe has {channels} bands and {logits} logits: write one and give its path"


def listed(names: list[str]) -> str:
    """At most ten names, then how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
