"""The demo's network learns, and its files load like FLAIR-INC files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import load_recipe
from pipeline.demo.network import FitSettings, TrainingTile, fit
from pipeline.errors import ConfigError
from pipeline.model import load_model

QUICK = FitSettings(steps=40, batch=2, crop=64, learning_rate=1e-2)


def _tile(seed: int) -> TrainingTile:
    """Dark water on the left, high wood on the right."""
    rng = np.random.default_rng(seed)
    truth = np.full((96, 96), 5, np.uint8)
    truth[:, 40 + seed * 8 :] = 7
    pixels = rng.integers(20, 60, (5, 96, 96)).astype(np.uint8)
    pixels[3:, truth == 7] += 120
    return TrainingTile(f"tile-{seed}", pixels, truth)


def test_a_short_fit_learns_an_easy_scene_and_the_model_loads(tmp_path: Path) -> None:
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    fitted = fit([_tile(0), _tile(1)], tmp_path, settings=QUICK, threads=1)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads

    model = load_model(fitted.weights, str(fitted.recipe))
    held_out = _tile(2)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (model.recipe.mean, model.recipe.std))
    with torch.inference_mode():
        logits = model.network(torch.from_numpy((held_out.pixels - mean) / std)[None])[0]
    live = [v - 1 for v in model.recipe.live]
    assert logits.shape == (19, 96, 96)
    assert ((logits[live].argmax(0).numpy() + 1) == held_out.truth).mean() > 0.95


def test_weights_have_the_layout_of_flair_inc_files(tmp_path: Path) -> None:
    fitted = fit([_tile(0)], tmp_path, settings=FitSettings(steps=2, batch=2, crop=64), threads=1)
    assert fitted.weights == tmp_path / "demo_weights.pth"
    tensors = torch.load(fitted.weights, weights_only=True)
    assert all(key.startswith("model.seg_model.") for key in tensors)
    assert tensors["model.seg_model.segmentation_head.0.bias"].shape == (19,)
    assert {t.dtype for t in tensors.values()} <= {torch.float32, torch.int64}
    recipe = load_recipe(str(fitted.recipe))
    assert recipe.live == tuple(range(1, 13))
    assert recipe.mean[0] == pytest.approx(_tile(0).pixels[0].mean(), abs=0.006)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo.yaml", "demo_weights.pth"]


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    settings = FitSettings(steps=3, batch=2, crop=64)
    same = [fit([_tile(0)], tmp_path / n, seed=7, settings=settings, threads=1) for n in "ab"]
    other = fit([_tile(0)], tmp_path / "c", seed=8, settings=settings, threads=1)
    assert same[0].weights.read_bytes() == same[1].weights.read_bytes()
    assert same[0].weights.read_bytes() != other.weights.read_bytes()


def test_missing_or_unfit_tiles_are_refused(tmp_path: Path) -> None:
    good = _tile(0)
    with pytest.raises(ConfigError, match="at least one"):
        fit([], tmp_path)
    for bad in (TrainingTile("four", good.pixels[:4], good.truth), TrainingTile("cut", good.pixels, good.truth[:50])):
        with pytest.raises(ConfigError, match=f"tile {bad.name}"):
            fit([bad], tmp_path, settings=QUICK)
    assert not any(tmp_path.iterdir())
