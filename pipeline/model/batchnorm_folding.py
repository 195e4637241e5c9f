"""Batch normalisation folded into the convolution before it: the same network, fewer passes over its activations.

In evaluation mode a batch normalisation is y = (x - mean) / √(var + eps) · scale + shift with constants a channel, so
behind a convolution it is another weight and another bias. These are computed in float64 and rounded once to the
weight's own type: a folded network differs from the network by rounding alone.
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


def folded(network: nn.Module, recipe: Recipe) -> nn.Module:
    """A copy of a network in which convolutions also do what the batch normalisation behind them did.

    Which follows which is seen in a forward of one small image, not guessed from names. A normalisation stays where
    it reads anything but the output of one plain `nn.Conv2d`, where something else reads that output too, where
    either is called more than once, and where its class does more than normalise (timm's, with an activation).

    Args:
        network: float32, in evaluation mode.
        recipe: its bands and its stride give the small image's shape.
    """
    network = copy.deepcopy(network)
    modules = dict(network.named_modules())
    if not any(type(module) is nn.BatchNorm2d for module in modules.values()):
        return network
    for before, after in _pairs(modules, recipe):
        _fold(modules[before], modules[after])
        parent, _, name = after.rpartition(".")
        setattr(modules[parent], name, nn.Identity())
    return network


def _fold(convolution: Any, normalisation: Any) -> None:
    """Gives an `nn.Conv2d` the weight and bias that also do what an `nn.BatchNorm2d` does."""
    parts = (
        convolution.weight,
        convolution.bias,
        normalisation.running_mean,
        normalisation.running_var,
        normalisation.eps,
        normalisation.weight,
        normalisation.bias,
    )
    exact: list[Any] = [part.double() if isinstance(part, torch.Tensor) else part for part in parts]
    dtype = convolution.weight.dtype
    for name, tensor in zip(("weight", "bias"), fuse_conv_bn_weights(*exact), strict=True):
        setattr(convolution, name, nn.Parameter(tensor.to(dtype), requires_grad=False))


class _Reads(TorchDispatchMode):
    """Counts how many of torch's operations read each tensor, by `id`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.counts: Counter[int] = Counter()
        # Alive to the end: the `id` of a tensor that is gone would be given to another.
        self._kept: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs))
        result = func(*args, **(kwargs or {}))
        self._kept += [given, result]
        self.counts.update({id(leaf) for leaf in given if isinstance(leaf, torch.Tensor)})
        return result


def _pairs(modules: dict[str, nn.Module], recipe: Recipe) -> list[tuple[str, str]]:
    """(convolution, batch normalisation) by name, the second being all that reads the first's output."""
    made: list[tuple[str, torch.Tensor]] = []
    taken: list[tuple[str, torch.Tensor]] = []
    hooks = []
    for name, module in modules.items():
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(lambda _m, _in, out, name=name: made.append((name, out))))
        elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(lambda _m, given, name=name: taken.append((name, given[0]))))
    reads = _Reads()
    with torch.inference_mode(), reads:
        result = modules[""](torch.zeros(1, len(recipe.bands), 2 * recipe.stride, 2 * recipe.stride))
    reads.counts[id(result)] += 1
    for hook in hooks:
        hook.remove()
    calls = Counter(name for name, _ in (*made, *taken))
    maker = {id(out): name for name, out in made if calls[name] == 1 and reads.counts[id(out)] == 1}
    return [(maker[id(given)], name) for name, given in taken if calls[name] == 1 and id(given) in maker]
