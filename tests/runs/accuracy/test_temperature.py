"""The temperature is part of the recipe: it changes confidences, never classes, and no fingerprint where it is 1."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from pipeline.config import Recipe, load_recipe
from pipeline.fingerprint import digest
from pipeline.inference import Engine, predictor_for
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.model import Model, build_network
from tests.support.campaigns import RECIPE

BEFORE = "a4563956ec71101afbc10bf9a8c4e677"
"""Digest of the default recipe before recipes had a temperature."""


def test_a_temperature_of_one_changes_no_fingerprint_and_another_does() -> None:
    recipe = load_recipe("flair-inc_rgbie_12cl_resnet34-unet")
    assert digest(recipe.model_dump(mode="json")) == BEFORE
    warm = recipe.model_copy(update={"temperature": 1.5})
    assert digest(warm.model_dump(mode="json")) != BEFORE
    assert Recipe.model_validate(warm.model_dump() | {"smallest_halo": warm.smallest_halo}) == warm
    assert '"temperature":1.5' in warm.model_dump_json()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_confidences_are_the_softmax_of_the_divided_logits_in_each_engine(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path))
    torch.manual_seed(0)
    cold = Recipe(**RECIPE)  # type: ignore[arg-type]
    network = build_network(cold)
    with torch.no_grad():
        network.segmentation_head[0].weight *= 20  # type: ignore[index, union-attr]
    pixels = np.random.default_rng(0).integers(0, 256, (1, 5, 64, 64), dtype=np.uint8)
    valid = np.ones((1, 64, 64), bool)
    classes = []
    for temperature in (1.0, 2.5):
        model = Model.in_memory(network, cold.model_copy(update={"temperature": temperature}))
        (layers,) = predictor_for(model, Engine(engine))(pixels, valid)  # type: ignore[arg-type]
        logits = TorchPredictor(model).logits(pixels)[0]
        expected = 255 * softmax(logits.astype(np.float64) / temperature, axis=0).max(axis=0)
        assert np.abs(layers[1] - expected).max() <= 0.5 + 1e-2
        classes.append(layers[0])
    np.testing.assert_array_equal(*classes)
