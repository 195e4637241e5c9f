"""Reads the tensors of a checkpoint without running its code, and loads them into a network that they fit."""

import io
import math
import pickle
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from pipeline.config import Recipe
from pipeline.errors import WeightsError
from pipeline.model.flair_hub import fit_position_tables, has_hub_names, plain_hub_names
from pipeline.model.network import build_network
from pipeline.model.shipped_recipes import fitting_recipes, may_fit, named_recipes, shipped_recipes
from pipeline.model.upernet_decoder import UNUSED_NAME, has_earlier_upernet
from pipeline.model.weights_file import read_content

FLAIR_PREFIX = "model.seg_model."
"""Prefix of the names of segmentation-models-pytorch in FLAIR-INC files, from their Lightning module."""
LOSS_PREFIX = "criterion."
"""Prefix of tensors that belong to the loss, such as the class weights of the cross-entropy."""
HEAD = "segmentation_head.0.bias"
"""Bias of the head, whose length is the number of logits."""

_MOST_NAMED = 10
"""Names in an error message."""

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
"""Errors of the readers on bytes that are not a checkpoint. Torch's restricted unpickler interprets opcodes, so a
damaged file can fail in many places; fuzzing raised all of these except OverflowError."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a checkpoint."""

    tensors: dict[str, torch.Tensor]
    """By the names of segmentation-models-pytorch."""
    class_weights: torch.Tensor | None = None
    """Of the loss, (logit,), which say what classes were trained; None where the file has none."""

    def network_of(self, recipe: Recipe) -> nn.Module:
        """The recipe's network, whose decoder is that of this file if there is more than one of its name.

        Raises:
            ConfigError: as `build_network`.
        """
        return build_network(recipe, earlier_upernet=has_earlier_upernet(self.tensors))


def parse_tensors(content: bytes, path: Path) -> Checkpoint:
    """The tensors of a checkpoint by the names of segmentation-models-pytorch, on the CPU.

    A `.safetensors` file is read as such, and any other file as the output of `torch.save`: a state dict, or a dict
    with one under `state_dict`, as Lightning writes it. Prefixes of the names, such as `model.seg_model.`, are removed.
    Pickled objects that are not tensors are refused and never run (`weights_only=True`).

    Args:
        content: of the file.
        path: of the file, for its suffix and for messages.

    Raises:
        WeightsError: the file is empty, truncated, not a checkpoint, or contains other pickled objects.
    """
    state = _state_dict(_parse(content, path), path)
    return Checkpoint(_plain_names(state, path), state.get(f"{LOSS_PREFIX}weight"))


def read_plain(path: Path) -> Any:
    """Reads a checkpoint of tensors, numbers, texts, lists and dicts, on the CPU; see `parse_tensors`.

    Raises:
        WeightsError: as `read_content` and `parse_tensors`.
    """
    return _parse(read_content(path), path)


def _parse(content: bytes, path: Path) -> Any:
    if not content:
        raise WeightsError(f"{path}: the file is empty; copy or download it again")
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors.torch.load(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise _load_error(path, content, error) from error


def _load_error(path: Path, content: bytes, error: BaseException) -> WeightsError:
    """The error for a file that did not load: unsafe if torch names an object that it refuses, otherwise damaged."""
    objects = re.findall(r"(?i:unsupported global):? (?:GLOBAL )?(\S+) (?:was|whose)", str(error))
    if objects:
        return WeightsError(
            f"{path}: contains the pickled object {objects[0]}, which is not a tensor; it is refused, because loading "
            f"it would run code from the file. If you trust the file, export its tensors with the program that wrote "
            f"it: safetensors.torch.save_file(module.state_dict(), 'weights.safetensors')"
        )
    zipped, header = content[:2] == b"PK", content[8:9] == b"{"
    if (header and path.suffix != ".safetensors") or (zipped and path.suffix == ".safetensors"):
        ending = ".safetensors" if header else ".pth"
        return WeightsError(f"{path}: its content is that of a {ending} file; rename it to end in {ending}")
    reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().splitlines() or [type(error).__name__]
    return WeightsError(
        f"{path}: not a checkpoint, or truncated ({len(content)} bytes: {reason[0][:200]}). Expected a file from "
        f"torch.save or safetensors; compare its size with the original's and copy it again"
    )


def _state_dict(loaded: Any, path: Path) -> Mapping[str, torch.Tensor]:
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: expected a dict of tensors by name, got {_kind(state)}")
    odd = [f"{name!r} ({_kind(value)})" for name, value in state.items() if not _is_named_tensor(name, value)]
    if odd:
        raise WeightsError(
            f"{path}: expected a dict of tensors by name (or one under 'state_dict'), found also {_listed(odd)}"
        )
    return state


def _kind(value: object) -> str:
    return f"an empty {type(value).__name__}" if isinstance(value, Mapping) and not value else type(value).__name__


def _is_named_tensor(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor) and value.is_cpu and value.layout == torch.strided


def _plain_names(state: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    plain = plain_hub_names(state, path) if has_hub_names(state) else _without_prefix(state, path)
    return {name: tensor.detach() for name, tensor in plain.items() if not name.startswith(UNUSED_NAME)}


def _without_prefix(state: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    # Other modules use the prefix `model.` or, wrapped for several GPUs, `module.model.seg_model.`.
    prefix = next((n.removesuffix(HEAD) for n in state if n.endswith(f".{HEAD}")), FLAIR_PREFIX)
    plain = {n.removeprefix(prefix): t for n, t in state.items() if not n.startswith(LOSS_PREFIX)}
    twice = [n for n in plain if n in state and prefix + n in state]
    if twice:
        raise WeightsError(f"{path}: contains tensors both with and without the prefix {prefix!r}: {_listed(twice)}")
    return plain


def load_tensors(checkpoint: Checkpoint, network: nn.Module, recipe: Recipe, *, source: str) -> str:
    """Loads tensors into a network as float32; counters stay integers.

    Args:
        checkpoint: from `parse_tensors`.
        network: of the recipe.
        recipe: to compare with in error messages.
        source: names the file in error messages.

    Returns:
        What is doubtful: classes by the checkpoint's class weights, or attention windows; empty where nothing is.

    Raises:
        WeightsError: tensors do not fit: another number of logits or input channels, tensors that are missing,
            unexpected or of another shape, or values that are not finite. The message lists all of them.
    """
    wanted = network.state_dict()
    tensors = fit_position_tables(checkpoint.tensors, wanted)
    faults = _mismatches(tensors, wanted, network, recipe)
    if named := _name_mismatch(source, recipe):
        faults.append(named)
    if faults:
        raise WeightsError(f"{source}: does not fit recipe {recipe.name}: {'; '.join(faults)}")
    cast = {name: tensors[name].to(like.dtype) for name, like in wanted.items()}
    odd = [name for name, tensor in cast.items() if not torch.isfinite(tensor).all()]
    if odd:
        raise WeightsError(
            f"{source}: NaN or infinite values in {_listed(odd)}; the training diverged or the file is damaged. Use "
            f"another checkpoint"
        )
    network.load_state_dict(cast)
    trained = _trained_classes(checkpoint.class_weights, recipe)
    classes = _other_classes(trained, tensors, recipe) if trained else ""
    return "; ".join(doubt for doubt in (_other_windows(checkpoint.tensors, tensors, recipe), classes) if doubt)


def _mismatches(
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
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    if missing or unexpected or any(tensors[name].shape != wanted[name].shape for name in bad):
        fitting = fitting_recipes(tensors)
        if fitting and recipe.name not in fitting:
            # Another network: names of its tensors would say no more.
            faults.append(
                f"of the shipped recipes, {_listed(fitting)} has exactly these tensors: set model.recipe to it"
            )
            return faults
    heads = bool(faults)
    if missing:
        faults.append(f"missing tensors: {_listed(missing)}")
    if unexpected:
        faults.append(f"unexpected tensors: {_listed(unexpected)}")
    if bad:
        named = [f"{n} {_shown(tensors[n])} for {_shown(wanted[n])}" for n in shared if n in bad]
        faults.append(f"tensors of another shape or type: {_listed(named)}")
    if heads:
        faults.append(_advice(tensors, logits or recipe.logits, channels or len(recipe.bands)))
    return faults


def _name_mismatch(source: str, recipe: Recipe) -> str | None:
    """A message if the file's name names another shipped recipe; 12cl and 15cl have the same tensors.

    Class weights in the file do not overrule its name: those of the 12-class model list 15 classes, by its card.
    """
    said = named_recipes(source)
    if not said or recipe.name in said or recipe.name not in [r.name for r in shipped_recipes()]:
        return None
    return (
        f"by its name it belongs to recipe {said[0]}: set model.recipe to it, or rename the file if its name is wrong"
    )


def _other_windows(found: Mapping[str, torch.Tensor], loaded: Mapping[str, torch.Tensor], recipe: Recipe) -> str:
    """What is doubtful about tables of positions that were resized; empty where none was."""
    resized = [name for name in loaded if loaded[name] is not found[name]]
    if not resized:
        return ""
    # A table has a row for each offset -(w - 1)..w - 1 in both directions.
    own, other = (math.isqrt(len(tables[resized[0]])) // 2 + 1 for tables in (found, loaded))
    return (
        f"trained with attention windows of {own} × {own} cells; {len(resized)} tables of positions were resized for "
        f"the {other} × {other} of recipe {recipe.name}. Compare the map with labels, or use a recipe with such windows"
    )


def _trained_classes(weights: torch.Tensor | None, recipe: Recipe) -> tuple[int, ...]:
    """FLAIR values of the classes whose weight in the loss is above 0; empty where the file does not say it."""
    if weights is None or weights.shape != (recipe.logits,):
        return ()
    return tuple(sorted(v for v, weight in zip(recipe.flair_values, weights.tolist(), strict=True) if weight > 0))


def _other_classes(trained: tuple[int, ...], tensors: Mapping[str, torch.Tensor], recipe: Recipe) -> str:
    """What is doubtful about the recipe's classes, by the class weights of the checkpoint; empty where nothing is."""
    if trained == recipe.live:
        return ""
    fitting = fitting_recipes(tensors)
    others = [r.name for r in shipped_recipes() if r.live == trained and r.name in fitting]
    untrained = sorted(set(recipe.live) - set(trained))
    if not others and not untrained:
        return ""
    faults = [f"its class weights (criterion.weight) are above 0 for classes {_ranges(trained)}"]
    if others:
        faults.append(f"as in recipe {_listed(others)}")
    if untrained:
        faults.append(f"so classes {_ranges(untrained)}, which recipe {recipe.name} maps, were not trained")
    return (
        f"{', '.join(faults)}; mapped with recipe {recipe.name}, classes {_ranges(recipe.live)}. The model's card says "
        "which holds: set model.recipe (--recipe) to the right one"
    )


def _ranges(values: Sequence[int]) -> str:
    """`1–14, 18`."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _signature(tensor: torch.Tensor) -> tuple[tuple[int, ...], bool]:
    """Shape and whether it is floating-point: half and double become float32, but integers never become weights."""
    return tuple(tensor.shape), tensor.is_floating_point()


def _shown(tensor: torch.Tensor) -> str:
    shape = " × ".join(str(n) for n in tensor.shape) or "scalar"
    return f"({shape}, {str(tensor.dtype).removeprefix('torch.')})"


def _length(tensors: Mapping[str, torch.Tensor], name: str, axis: int) -> int | None:
    return tensors[name].shape[axis] if name in tensors and tensors[name].ndim > axis else None


def _first_convolution(network: nn.Module, recipe: Recipe) -> str:
    """The name of the weight (out, band, y, x) that reads the bands; encoders name it differently."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == len(recipe.bands):
            return f"{name}.weight"
    return ""


def _advice(tensors: Mapping[str, torch.Tensor], logits: int, channels: int) -> str:
    alike = [r for r in shipped_recipes() if may_fit(r, tensors)]
    fitting = [r.name for r in alike if r.logits == logits and len(r.bands) == channels]
    if fitting:
        return f"of the shipped recipes, {_listed(fitting)} has {channels} bands and {logits} logits"
    return (
        f"no shipped recipe with such an encoder and decoder has {channels} bands and {logits} logits: write a recipe "
        "and give its path"
    )


def _listed(names: list[str]) -> str:
    """The first ten names, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
