"""Folding batch normalisations into convolutions does not change the output of a network."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config import Recipe
from pipeline.model import build_network
from pipeline.model.batchnorm_folding import fold_batchnorms


def recipe(architecture: str = "unet", encoder: str = "resnet18") -> Recipe:
    return Recipe(
        name="light",
        architecture=architecture,  # type: ignore[arg-type]
        encoder=encoder,
        decoder_channels=(32, 16, 16, 8, 8),
        mean=(100.0,) * 5,
        std=(50.0,) * 5,
        live=tuple(range(1, 13)),
    )


def trained(network: nn.Module) -> nn.Module:
    """Gives the network statistics other than 0 and 1, as after training."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -1.0, 1.0),
                (module.running_var, 0.2, 3.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -1.0, 1.0),
            ):
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)
    return network.eval().requires_grad_(requires_grad=False)


def normalisations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("architecture", ["unet", "fpn"])
def test_all_normalisations_are_folded_and_the_output_stays(architecture: str) -> None:
    rules = recipe(architecture)
    torch.manual_seed(0)
    network = trained(build_network(rules))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    short = fold_batchnorms(network, rules)
    assert normalisations(network) >= 20
    assert normalisations(short) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items()), "it changed"
    image = torch.randn(1, 5, 96, 64)
    with torch.inference_mode():
        truth = network.double()(image.double())
        error = (short(image) - truth).abs().max() / truth.abs().max()
    assert error < 1e-5


def test_weights_are_folded_in_float64_and_rounded_once() -> None:
    rules = recipe()
    network = trained(nn.Sequential(nn.Conv2d(5, 7, 3), nn.BatchNorm2d(7, eps=1e-3)))
    convolution, normalisation = network
    weight, bias, mean, var, scale, shift = (
        tensor.numpy().astype(np.float64)
        for tensor in (
            convolution.weight,
            convolution.bias,
            normalisation.running_mean,
            normalisation.running_var,
            normalisation.weight,
            normalisation.bias,
        )
    )
    factor = scale / np.sqrt(var + 1e-3)
    short = fold_batchnorms(network, rules)
    # Two ways to compute a float64 may differ in its last bit, which rarely changes the rounded float32.
    np.testing.assert_allclose(short[0].weight.numpy(), weight * factor[:, None, None, None], rtol=6e-8)
    np.testing.assert_allclose(short[0].bias.numpy(), (bias - mean) * factor + shift, rtol=6e-8, atol=1e-9)


class WithActivation(nn.BatchNorm2d):
    """Like timm's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(super().forward(x))


class Awkward(nn.Module):
    """Each of its normalisations has a reason not to be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.read_twice, self.after_read_twice = nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.called_twice, self.after_called_twice = nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.bent, self.after_bent = nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5)
        self.first = nn.BatchNorm2d(5)
        self.activated, self.with_activation = nn.Conv2d(5, 5, 1), WithActivation(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        raw = self.read_twice(x)
        x = self.after_read_twice(raw) + raw
        x = self.after_called_twice(self.called_twice(x)) + self.called_twice(x.flip(-1))
        x = self.after_bent(torch.relu_(self.bent(x)))
        out: torch.Tensor = self.with_activation(self.activated(x))
        return out


def test_a_normalisation_that_cannot_be_folded_stays() -> None:
    torch.manual_seed(0)
    network = trained(Awkward())
    short = fold_batchnorms(network, recipe())
    assert normalisations(short) == normalisations(network) == 5
    image = torch.randn(1, 5, 32, 32)
    with torch.inference_mode():
        assert torch.equal(short(image), network(image))
