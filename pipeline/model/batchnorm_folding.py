"""Folds each batch normalisation into the convolution before it, so that a network takes fewer steps.

In evaluation mode a batch normalisation is y = (x - mean) / √(var + eps) · scale + shift, with constants for each
channel. After a convolution it is therefore the same as another weight and bias. These are computed in float64 and
rounded once to the type of the weight, so a folded network differs from the original by rounding alone.
"""

import copy
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.config import Recipe


def fold_batchnorms(network: nn.Module, recipe: Recipe) -> nn.Module:
    """Copies a network and folds the batch normalisations of the copy into the convolutions before them.

    A forward of one small image shows which normalisation follows which convolution. A normalisation stays if its input
    is not the output of one plain `nn.Conv2d`, if anything else reads that output, if either is called more than once,
    or if its class does more than normalise, like timm's with an activation.

    Args:
        network: float32, in evaluation mode.
        recipe: its bands and side step give the shape of the small image.
    """
    network = copy.deepcopy(network)
    modules = dict(network.named_modules())
    if not any(type(module) is nn.BatchNorm2d for module in modules.values()):
        return network
    for before, after in _foldable_pairs(modules, recipe):
        _fold(modules[before], modules[after])
        network.set_submodule(after, nn.Identity())
    return network


def _fold(conv: Any, norm: Any) -> None:
    """Gives an `nn.Conv2d` the weight and bias with which it also does the work of an `nn.BatchNorm2d`."""
    # Torch's `fuse_conv_bn_eval` would copy whole modules in float64, and raise a worker's peak memory by 70 MB.
    parts = (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    exact: list[Any] = [part.double() if isinstance(part, torch.Tensor) else part for part in parts]
    dtype = conv.weight.dtype
    for name, tensor in zip(("weight", "bias"), fuse_conv_bn_weights(*exact), strict=True):
        setattr(conv, name, nn.Parameter(tensor.to(dtype), requires_grad=False))


class _ReadCounter(TorchDispatchMode):
    """Counts by `id` how many of torch's operations read each tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.counts: Counter[int] = Counter()
        # Keeps all tensors alive: another tensor could get the `id` of one that is gone.
        self._kept: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs))
        result = func(*args, **(kwargs or {}))
        self._kept += [given, result]
        self.counts.update({id(leaf) for leaf in given if isinstance(leaf, torch.Tensor)})
        return result


def _foldable_pairs(modules: dict[str, nn.Module], recipe: Recipe) -> list[tuple[str, str]]:
    """Names (convolution, batch normalisation) of pairs where nothing but the second reads the output of the first."""
    outputs: list[tuple[str, torch.Tensor]] = []
    inputs: list[tuple[str, torch.Tensor]] = []
    hooks = []
    for name, module in modules.items():
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(lambda _m, _in, out, name=name: outputs.append((name, out))))
        elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(lambda _m, given, name=name: inputs.append((name, given[0]))))
    reads = _ReadCounter()
    with torch.inference_mode(), reads:
        result = modules[""](torch.zeros(1, len(recipe.bands), 2 * recipe.side_step, 2 * recipe.side_step))
    reads.counts[id(result)] += 1
    for hook in hooks:
        hook.remove()
    calls = Counter(name for name, _ in (*outputs, *inputs))
    maker = {id(out): name for name, out in outputs if calls[name] == 1 and reads.counts[id(out)] == 1}
    return [(maker[id(given)], name) for name, given in inputs if calls[name] == 1 and id(given) in maker]
