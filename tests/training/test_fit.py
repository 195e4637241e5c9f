"""A training run: it resumes, exports, agrees with evaluation, and runs in several processes."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pipeline.config import Recipe, load_recipe
from pipeline.errors import ConfigError, StorageError, WeightsError
from pipeline.evaluation import confusion_matrix
from pipeline.model import load_model
from pipeline.products.assessment.class_maps import find_maps
from pipeline.runs.accuracy.evaluate import evaluate_set
from pipeline.runs.accuracy.temperature import calibrate
from pipeline.runs.mapping.single_raster import predict_raster
from pipeline.sources.labels.patches import read_mask
from pipeline.training.dataset import split_patches
from pipeline.training.export import model_card
from pipeline.training.fit import TrainingResult, _initial_network, fit
from pipeline.training.lightning_module import SegmentationModule
from pipeline.training.run_config import TrainingConfig, load_training_config
from tests.support.campaigns import RECIPE
from tests.support.paths import ROOT
from tests.support.training_runs import a_run, curve, write_run
from tests.support.waiting import LONGEST_S

FALLING = {"factor": 0.5, "patience": 0, "cooldown": 0, "min_lr": 0.0}
"""A schedule that falls after each epoch without a better loss."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def config(folder: Path) -> TrainingConfig:
    return a_run(folder, epochs=4, plateau=FALLING, optimizer={"name": "sgd", "learning_rate": 0.5, "momentum": 0.9})


@pytest.fixture(scope="module")
def done(config: TrainingConfig, folder: Path) -> TrainingResult:
    return fit(config, folder / "whole")


def state(path: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return found


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    config: TrainingConfig, done: TrainingResult, folder: Path
) -> None:
    out = folder / "resumed"
    for epochs in (1, 3, 4):
        again = fit(config.model_copy(update={"epochs": epochs}), out)
    for name in ("train_loss", "val_loss", "learning_rate"):
        assert curve(out, name) == curve(folder / "whole", name)
    assert len(set(curve(out, "learning_rate"))) > 1, "the schedule has to change the rate in this test"
    one, two = (state(folder / which / "checkpoints" / "last.ckpt") for which in ("whole", "resumed"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert again.trained.epoch == done.trained.epoch
    np.testing.assert_array_equal(again.trained.evaluation.matrix, done.trained.evaluation.matrix)


class Command:
    """Unpickling it makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.made),)


@pytest.mark.usefixtures("done")
def test_a_checkpoint_that_cannot_be_resumed_safely_is_refused(
    config: TrainingConfig, folder: Path, tmp_path: Path
) -> None:
    good = torch.load(folder / "whole" / "checkpoints" / "last.ckpt", weights_only=True)
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    contents = {
        "contains the pickled object": good | {"callbacks": Command(tmp_path / "made")},
        "expected a checkpoint of a training run": {k: v for k, v in good.items() if k != "loops"},
        "expected a checkpoint of a training": good["state_dict"],
        "is of another network": good | {"state_dict": {"a": torch.zeros(3)}},
    }
    for message, content in contents.items():
        torch.save(content, last)
        with pytest.raises(WeightsError, match=f"{message}.*--restart"):
            fit(config, tmp_path / "out")
    last.write_bytes((folder / "whole" / "checkpoints" / "last.ckpt").read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"truncated.*--restart"):
        fit(config, tmp_path / "out")
    assert not (tmp_path / "made").exists()


def test_training_does_not_write_through_a_link(config: TrainingConfig, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("precious")
    for name in ("last.ckpt", "best.ckpt"):
        link = tmp_path / name / "checkpoints" / name
        link.parent.mkdir(parents=True)
        link.symlink_to(tmp_path / "data")
        with pytest.raises(StorageError, match="found a link"):
            fit(config, tmp_path / name, restart=True)
    assert (tmp_path / "data").read_text() == "precious"


def test_exported_files_load_like_flair_inc_files(done: TrainingResult, folder: Path) -> None:
    files, recipe = done.files, str(done.files.recipe)
    raw = torch.load(files.weights, weights_only=True)
    assert all(k.startswith("model.seg_model.") for k in raw if k != "criterion.weight")
    assert raw["criterion.weight"].tolist() == [1.0] * 12 + [0.0] * 7
    networks = [
        load_model(path, recipe).network.state_dict()
        for path in (files.weights, files.safetensors, folder / "whole" / "checkpoints" / "best.ckpt")
    ]
    for other in networks[1:]:
        assert all(torch.equal(networks[0][k], other[k]) for k in networks[0])
    card = files.card.read_text()
    header = yaml.safe_load(card.split("---")[1])
    (result,) = header["model-index"][0]["results"]
    values = {m["type"]: m["value"] for m in result["metrics"]}
    assert values["miou"] == pytest.approx(100 * done.trained.evaluation.scored("present")["miou"], abs=1e-3)
    for picture in ("curves.png", "confusion-precision.png", "confusion-recall.png"):
        assert f"({picture})" in card
        assert (files.card.parent / picture).stat().st_size > 5_000


def test_values_of_a_training_file_are_text_in_the_model_card(config: TrainingConfig, done: TrainingResult) -> None:
    hostile = "a | b\n---\n# c <b> [d](http://e) `f`"
    start = config.start.model_copy(update={"weights": hostile})
    recipe = done.trained.recipe.model_copy(update={"licence": hostile})
    trained = replace(done.trained, recipe=recipe)
    card = model_card(trained, config=config.model_copy(update={"start": start}))
    assert r"| started from | a \| b\\n---\\n\# c \<b\> \[d\](http://e) \`f\` |" in card.splitlines()
    assert card.endswith(")\n")
    header = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    assert header["license"] == hostile
    assert header["model-index"][0]["name"] == recipe.name


def test_map_and_evaluation_have_the_figures_of_the_validation(
    config: TrainingConfig, done: TrainingResult, tmp_path: Path
) -> None:
    split = split_patches(config.data, seed=config.seed)
    weights, recipe = str(done.files.weights), str(done.files.recipe)
    expected = done.trained.evaluation.matrix
    (tmp_path / "v.csv").write_text("".join(f"{p.image},{p.mask}\n" for p in split.validation))
    model = load_model(weights, recipe)
    evaluated = evaluate_set([tmp_path / "v.csv"], model=model, out=tmp_path / "e", engine="torch")
    np.testing.assert_array_equal(evaluated.evaluation.matrix, expected)
    mapped = np.zeros_like(expected)
    for patch in split.validation:
        # The window is the whole patch without a halo, as in validation.
        done = predict_raster(
            patch.image, weights=weights, recipe=recipe, out=tmp_path / "maps", window=64, halo=0, engine="torch"
        )
        (one,) = find_maps(done.landcover)
        mapped += confusion_matrix(read_mask(patch) - 1, one.read(one.window) - 1, 19)
    np.testing.assert_array_equal(mapped, expected)


def test_a_fifth_of_the_logits_gets_a_fifth_of_the_temperature(
    done: TrainingResult, folder: Path, tmp_path: Path
) -> None:
    recipe = str(done.files.recipe)
    raw = torch.load(done.files.weights, weights_only=True)
    for part in ("weight", "bias"):
        raw[f"model.seg_model.segmentation_head.0.{part}"] *= 0.2
    torch.save(raw, tmp_path / "fifth.pth")
    plain = calibrate([folder / "set"], model=load_model(done.files.weights, recipe), out=tmp_path / "a")
    fifth = calibrate([folder / "set"], model=load_model(tmp_path / "fifth.pth", recipe), out=tmp_path / "b")
    assert fifth.temperature == pytest.approx(plain.temperature / 5, rel=1e-3)
    assert plain.after.ece < plain.before.ece
    assert fifth.after.ece == pytest.approx(plain.after.ece, abs=1e-3)
    assert load_recipe(str(plain.recipe)).temperature == plain.temperature
    assert plain.figure.stat().st_size > 5_000


def test_fine_tuning_keeps_the_head_or_replaces_it(done: TrainingResult, folder: Path, config: TrainingConfig) -> None:
    recipe = load_recipe(str(done.files.recipe))
    start = {"weights": str(done.files.weights), "head": "keep"}
    trained = load_model(done.files.weights, recipe).network.state_dict()
    kept = _initial_network(recipe, a_run(folder, start=start)).state_dict()
    assert all(torch.equal(kept[k], trained[k]) for k in trained)
    fewer = recipe.model_copy(update={"logits": 12})
    with pytest.raises(WeightsError, match="its head has 19 logits, the recipe 12"):
        _initial_network(fewer, a_run(folder, start=start))
    replaced = _initial_network(fewer, a_run(folder, start=start | {"head": "replace"})).state_dict()
    assert {k for k in trained if not torch.equal(replaced[k], trained[k])} == {
        "segmentation_head.0.weight",
        "segmentation_head.0.bias",
    }
    with pytest.raises(WeightsError, match="checksum mismatch"):
        _initial_network(recipe, a_run(folder, start=start | {"sha256": "0" * 64}))
    assert config.start_weights == "random"


def test_missing_imagenet_weights_are_named(folder: Path) -> None:
    run = a_run(folder, start={"weights": "imagenet"})
    with pytest.raises(WeightsError, match=r"ImageNet weights of encoder 'resnet18' could not be loaded.*random"):
        _initial_network(load_recipe("tiny.yaml", base=folder).model_copy(update={"encoder": "resnet18"}), run)


def test_an_inconsistent_configuration_is_refused(folder: Path) -> None:
    for change, said in (
        ({"batchsize": 3}, "unknown key|batchsize"),
        ({"data": {"places": ["set"], "split": {"by": "domain"}}}, "`domains` goes with `by: domain`"),
        ({"class_weights": {1: -1.0}}, r"class_weights\.1: .*greater than or equal to 0 \(found -1\.0\)"),
    ):
        with pytest.raises(ConfigError, match=said):
            a_run(folder, **change)


@pytest.mark.slow
def test_two_processes_train_like_one_with_the_doubled_batch(tmp_path: Path) -> None:
    # Batch normalisation would see another batch in each process, so it is frozen.
    how = {"freeze_batchnorm": True, "epochs": 3, "plateau": FALLING}
    fit(a_run(tmp_path, batch=4, **how), tmp_path / "one")
    script = tmp_path / "train.py"
    script.write_text("from pipeline.cli import main\nmain()\n")
    config = write_run(tmp_path, batch=2, devices=2, **how)
    # Lightning starts the second process by the same command.
    command = [sys.executable, str(script), "train", str(config), "--out", str(tmp_path / "two"), "--quiet"]
    repository = str(ROOT)
    environment = os.environ | {"PYTHONPATH": repository, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST_S)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("train_loss", "val_loss"):
        assert curve(tmp_path / "two", name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-3)
    assert curve(tmp_path / "two", "learning_rate") == curve(tmp_path / "one", "learning_rate")


def test_the_file_for_one_machine_is_the_cards_but_for_what_it_names() -> None:
    folder = ROOT / "configs" / "training"
    own, card = (load_training_config(folder / f"{n}.yaml") for n in ("one-machine", "flair-inc_rgbie_12cl"))
    differ = {key for key, value in card.model_dump().items() if own.model_dump()[key] != value}
    assert differ == {"name", "optimizer", "devices", "nodes", "loaders"}


@pytest.mark.slow
def test_the_network_of_the_model_card_learns_on_real_patches(shared_data: Path, tmp_path: Path) -> None:
    shipped = yaml.safe_load((ROOT / "configs/training/flair-inc_rgbie_12cl.yaml").read_text())
    data = {
        "places": [str(shared_data / "flair_patches")],
        "metadata": str(shared_data / "flair_patches" / "metadata.json"),
        "split": {"by": "zone", "share": 0.8},
    }
    small = {"data": data, "epochs": 2, "batch": 1, "devices": 1, "nodes": 1, "loaders": 0, "start": {}}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(shipped | small))
    card = fit(load_training_config(tmp_path / "card.yaml"), tmp_path / "out")
    first, second = curve(tmp_path / "out", "train_loss")
    assert second < first
    assert card.trained.training_patches == 4
    model = load_model(card.files.weights, "flair-inc_rgbie_12cl_resnet34-unet")
    assert sum(p.numel() for p in model.network.parameters()) > 24e6


class _Answer(torch.nn.Module):
    """Gives the same logits for any image."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_logits_in_another_order_are_counted_as_flair_values(tmp_path: Path) -> None:
    recipe = Recipe(**RECIPE | {"logit_values": tuple(range(19, 0, -1))})
    labels = torch.tensor(recipe.live_logits).reshape(1, 1, -1)
    logits = torch.nn.functional.one_hot(labels, 19).permute(0, 3, 1, 2).float()
    module = SegmentationModule(_Answer(logits), recipe, a_run(tmp_path))
    module.validation_step((torch.zeros(1, 5, 1, len(recipe.live)), labels), 0)
    assert np.diag(module.confusion).tolist() == [1] * 12 + [0] * 7
    assert module.confusion.sum() == 12
    assert module.criterion.weight.tolist() == [0.0] * 7 + [1.0] * 12
