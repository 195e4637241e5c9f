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
from pipeline.model import Ensemble, Model, build_network
from pipeline.runs.accuracy.temperature import calibrate
from tests.support.campaigns import RECIPE
from tests.support.flair_dataset import write_pair

BEFORE = "a4563956ec71101afbc10bf9a8c4e677"
"""Digest of the default recipe before recipes had a temperature."""


def test_a_temperature_of_one_changes_no_fingerprint_and_another_does() -> None:
    recipe = load_recipe("flair-inc_rgbie_12cl_resnet34-unet")
    assert digest(recipe.model_dump(mode="json")) == BEFORE
    warm = recipe.model_copy(update={"temperature": 1.5})
    assert digest(warm.model_dump(mode="json")) != BEFORE
    assert Recipe.model_validate(warm.model_dump() | {"smallest_halo": warm.smallest_halo}) == warm
    assert '"temperature":1.5' in warm.model_dump_json()


def test_the_temperature_of_an_average_is_found_from_labels_drawn_with_it(tmp_path: Path) -> None:
    recipe = Recipe(**RECIPE)  # type: ignore[arg-type]
    members = []
    for seed in range(2):
        torch.manual_seed(seed)
        network = build_network(recipe)
        with torch.no_grad():
            network.segmentation_head[0].weight *= 20  # type: ignore[index, union-attr]
        members.append(Model.in_memory(network, recipe))
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = rng.integers(0, 256, (5, 64, 64), dtype=np.uint8)
        mean = np.mean(
            [softmax(TorchPredictor(m).logits(pixels[None])[0].astype(float), axis=0) for m in members], axis=0
        )
        shares = mean**2 / (mean**2).sum(axis=0)
        mask = (shares.cumsum(axis=0) < rng.random((64, 64))).sum(axis=0) + 1
        folder = tmp_path / "set" / "aerial" / "D010_2021" / f"Z{number % 4}_NN"
        write_pair(folder, number, pixels=pixels, mask=mask.clip(1, 12).astype(np.uint8))
    done = calibrate([tmp_path / "set"], model=Ensemble(tuple(members)), out=tmp_path / "out")
    assert done.temperature == pytest.approx(0.5, rel=0.1)
    assert done.after.ece < done.before.ece
    assert done.recipe is None
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"calibration.json", "reliability.png"}


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
