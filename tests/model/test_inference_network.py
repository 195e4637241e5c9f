"""The network optimized for inference computes the same live logits in fewer steps."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from pipeline.config import Recipe
from pipeline.model import build_network, optimize_for_inference
from pipeline.model.inference_network import _upsampling_convolution
from pipeline.model.network import make_torchvision_importable
from tests.model.test_batchnorm_folding import normalisations, recipe, trained

LIVE = (2, 3, 5, 7, 11)


def some(rules: Recipe) -> Recipe:
    """The same recipe with a few live classes."""
    return rules.model_copy(update={"live": LIVE})


def count(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


@given(sides=st.tuples(st.integers(1, 7), st.integers(1, 7)), seed=st.integers(0, 2**16))
def test_upsampling_convolution_and_a_convolution_are_one_transposed_convolution(
    sides: tuple[int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Sums of small integers are exact in any order.
    weight, image = (
        torch.randint(-8, 9, shape, generator=generator).float() for shape in ((3, 2, 3, 3), (1, 2, *sides))
    )
    bias = torch.tensor([1.0, -2.0, 3.0])
    larger = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.inference_mode():
        assert torch.equal(
            _upsampling_convolution(weight, bias)(image), functional.conv2d(larger, weight, bias, padding=1)
        )


@pytest.mark.parametrize(("encoder", "normalises"), [("resnet18", 0), ("tu-regnetx_002", 44)])
def test_a_unet_without_upsampling_and_concatenation_has_the_same_logits(encoder: str, normalises: int) -> None:
    """Timm's normalisations contain an activation and are not folded."""
    rules = some(recipe(encoder=encoder))
    torch.manual_seed(0)
    network = trained(build_network(rules))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    short = optimize_for_inference(network, rules)
    assert normalisations(short) == normalises
    assert count(short, nn.ConvTranspose2d) == 5
    image = torch.randn(2, 5, 96, 64)
    with torch.inference_mode():
        logits, others = short(image)
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items()), (
            "the original changed"
        )
        every = network.double()(image.double())
    for got, values in ((logits, LIVE), (others, [v for v in range(1, rules.logits + 1) if v not in LIVE])):
        truth = every[:, [value - 1 for value in values]]
        assert got.shape == truth.shape
        assert (got - truth).abs().max() / truth.abs().max() < 1e-5


def test_a_dead_logit_does_not_touch_the_live_ones() -> None:
    rules = some(recipe())
    network = trained(build_network(rules))
    head: Any = network.segmentation_head
    dead = [i for i in range(rules.logits) if i + 1 not in LIVE]
    head[0].weight.data[dead] = float("nan")
    image = torch.randn(1, 5, 64, 64)
    with torch.inference_mode():
        assert network(image).isnan().any()
        live, dead_ones = optimize_for_inference(network, rules)(image)
    assert live.isfinite().all()
    assert dead_ones.isnan().all()


def test_without_dead_logits_only_the_live_ones_are_given() -> None:
    rules = recipe().model_copy(update={"live": tuple(range(1, 20))})
    with torch.inference_mode():
        (live,) = optimize_for_inference(trained(build_network(rules)), rules)(torch.randn(1, 5, 64, 64))
    assert live.shape == (1, 19, 64, 64)


def _other_unet(**options: Any) -> nn.Module:
    make_torchvision_importable()
    import segmentation_models_pytorch as smp

    return trained(
        smp.Unet(
            "resnet18",
            encoder_weights=None,
            in_channels=5,
            classes=19,
            decoder_channels=(32, 16, 16, 16, 16),
            **options,
        )
    )


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(lambda: _other_unet(decoder_attention_type="scse"), id="attention"),
        pytest.param(lambda: _other_unet(decoder_interpolation="bilinear"), id="bilinear"),
        pytest.param(lambda: _other_unet(decoder_use_norm="identity"), id="no norm"),
        pytest.param(lambda: _other_unet(activation="sigmoid"), id="an activation after the head"),
        pytest.param(lambda: trained(build_network(recipe("fpn"))), id="fpn"),
        pytest.param(lambda: trained(nn.Sequential(nn.Conv2d(5, 19, 1), nn.BatchNorm2d(19))), id="not from smp"),
    ],
)
def test_other_blocks_stay_and_the_logits_too(network: Any) -> None:
    torch.manual_seed(0)
    rules, given_network = some(recipe()), network()
    image = torch.randn(1, 5, 64, 96)
    with torch.inference_mode():
        got, _ = optimize_for_inference(given_network, rules)(image)
        truth = given_network.double()(image.double())[:, [value - 1 for value in LIVE]]
    assert (got - truth).abs().max() / truth.abs().max() < 1e-5
