"""The bench `windows` maps, blends, finds seams and compares heads as it says."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.bench.development.networks.border_accuracy import HeadAccuracy
from pipeline.bench.development.networks.split_network import SplitNetwork, _weights, map_in_windows, map_whole
from pipeline.bench.development.networks.windows import seam_ratio
from pipeline.bench.imagery import mirrored
from pipeline.config import Recipe
from pipeline.demo.network import TrainingTile
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.model import Model, build_network

LAYOUT = Layout(core=64, halo=32, window=128)
RECIPE = Recipe(name="r", mean=(100.0,) * 5, std=(50.0,) * 5, live=(1, 3, 7), architecture="fpn", encoder="resnet18")


class Pointwise(nn.Module):
    """Sees no neighbours; `upsampling` enlarges what it keeps of each 4 × 4 pixels."""

    def __init__(self, upsampling: nn.Module | None = None) -> None:
        super().__init__()
        self.step = 1 if upsampling is None else 4
        self.segmentation_head = nn.Sequential(nn.Conv2d(5, 19, 1), upsampling or nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.segmentation_head(x[..., :: self.step, :: self.step])
        return logits


@pytest.fixture
def patches() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (2, 5, 50, 50), np.uint8)


def test_windows_of_a_network_without_neighbourhood_give_the_map_of_the_whole_image(patches: np.ndarray) -> None:
    torch.manual_seed(1)
    network = SplitNetwork(Pointwise(), RECIPE)
    (plain, blended), whole = (
        map_in_windows(network, patches, LAYOUT, 192)["published"],
        map_whole(network, patches, 192, 32)["published"],
    )
    assert set(np.unique(whole)) == {1, 3, 7}
    np.testing.assert_array_equal(plain, whole)
    np.testing.assert_array_equal(blended, whole)


def test_blending_weights_of_two_neighbours_add_up_to_one() -> None:
    left, right = (_weights(start, start + 64, 48, 80, 32) for start in (0, 64))
    np.testing.assert_allclose(left + right, 1)
    assert (np.diff(right) > 0).all()
    np.testing.assert_array_equal(_weights(64, 128, 80, 112, 32), 1)


def test_both_heads_have_the_logits_of_the_engine_with_either_recipe(patches: np.ndarray) -> None:
    torch.manual_seed(2)
    network = build_network(RECIPE).eval()
    split, pixels = SplitNetwork(network, RECIPE), mirrored(patches, Window(0, 0, 96, 128))
    small, found = split.small_logits(pixels), []
    for head, centred in (("published", False), ("centred", True)):
        model = Model.in_memory(network, RECIPE.model_copy(update={"centred_upsampling": centred}))
        found.append(split.enlarged(small, head).numpy())
        np.testing.assert_allclose(found[-1], TorchPredictor(model).logits(pixels[None])[0], rtol=0, atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-2


def test_steps_at_the_edges_of_cores_raise_the_seam_ratio() -> None:
    classes = np.random.default_rng(3).integers(1, 3, (384, 384)).astype(np.uint8)
    layout = Layout(core=128, halo=32, window=192)
    before = seam_ratio(classes, layout)
    assert before.ratio == pytest.approx(1, abs=0.1)
    classes[128:256] = 3 - classes[127:128]
    assert seam_ratio(classes, layout).ratio > 1.2


def test_accuracy_near_borders_counts_three_pixels_on_either_side() -> None:
    class Wrong(SplitNetwork):
        """Maps the right half as class 3 and the left as 1, with a border 2 px too far east."""

        def classes(self, logits: torch.Tensor) -> np.ndarray:  # noqa: ARG002
            return np.where(np.arange(40) < 22, 1, 3).astype(np.uint8) * np.ones((40, 1), np.uint8)

    truth = np.where(np.arange(40) < 20, 1, 3).astype(np.uint8) * np.ones((40, 1), np.uint8)
    accuracy = HeadAccuracy(RECIPE.live)
    tile = TrainingTile("t", np.zeros((5, 40, 40), np.uint8), truth)
    accuracy.add(Wrong(Pointwise(), RECIPE), [tile], patches="left out")
    (row,) = accuracy.rows()
    assert row["oa"] == pytest.approx(38 / 40)
    assert row["oa_near_borders"] == pytest.approx(4 / 6)
