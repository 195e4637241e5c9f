"""Engines run one graph: they agree, repeat their bytes, and refuse what they cannot do."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray

from pipeline.config import Precision, Recipe
from pipeline.errors import EngineError, StorageError
from pipeline.halo import Layout
from pipeline.inference import Engine, Method, Predictor, engine, predictor_for, resolve_engine, torch_engine
from pipeline.inference import openvino_engine as ov
from pipeline.inference.openvino_engine import OpenVinoPredictor, converted_graph
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.model import Model, build_network, load_model
from tests.support.networks import Strided, exact_recipe

pytest.importorskip("openvino", reason="the extra `cpu` is not installed")

RECIPE = Recipe(
    name="light",
    encoder="resnet18",
    decoder_channels=(32, 16, 16, 8, 8),
    mean=(105.08, 110.87, 101.82, 106.38, 53.26),
    std=(52.17, 45.38, 44.00, 39.69, 79.30),
    live=tuple(range(1, 13)),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDCOVER_CACHE", str(cache))


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model.in_memory(build_network(RECIPE), RECIPE)


def windows(count: int = 2, size: int = 96) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 5, size // 16, size // 16))
    pixels = np.clip(np.kron(coarse, np.ones((16, 16))) + rng.normal(0, 8, (count, 5, size, size)), 0, 255)
    return pixels.astype(np.uint8), rng.random((count, size, size)) > 0.1


def agreement(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float((a[:, 0] == b[:, 0]).mean())


def test_openvino_agrees_with_torch_on_synthetic_windows(model: Model) -> None:
    pixels, valid = windows()
    ours, theirs = TorchPredictor(model)(pixels, valid), OpenVinoPredictor(model)(pixels, valid)
    assert agreement(ours, theirs) >= 0.9999
    assert np.abs(ours[:, 1].astype(int) - theirs[:, 1]).max() <= 1


def test_openvino_agrees_with_torch_on_the_real_patches(shared_data: Path) -> None:
    model = load_model(shared_data / "weights" / "mini_resnet34-unet_weights.pth")
    images = []
    for path in sorted((shared_data / "flair_patches").glob("IMG_*.tif"))[:3]:
        with rasterio.open(path) as image:
            images.append(image.read())
    pixels = np.stack(images)
    valid = np.ones((len(pixels), 512, 512), bool)
    assert agreement(TorchPredictor(model)(pixels, valid), OpenVinoPredictor(model)(pixels, valid)) >= 0.9999


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 3e-2)])
def test_features_change_no_byte_of_the_map_and_are_those_of_torch(
    model: Model, precision: Precision, tolerance: float
) -> None:
    pixels, valid = windows()
    engine = Engine("openvino", precision)
    plain, scoring = (predictor_for(model, engine, threads=1, features=wanted) for wanted in (False, True))
    layers, found = scoring.with_features(pixels, valid)
    np.testing.assert_array_equal(layers, plain(pixels, valid))
    np.testing.assert_array_equal(scoring(pixels, valid), layers)
    # Independently: the encoder of the network itself, without anything that engines do to it.
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (RECIPE.mean, RECIPE.std))
    image = (torch.from_numpy(pixels).float() - mean) / std * torch.from_numpy(valid).float()[:, None]
    with torch.inference_mode():
        expected = model.network.encoder(image)[-1].numpy()  # type: ignore[union-attr, operator]
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    _, of_torch = TorchPredictor(model).with_features(pixels, valid)
    assert np.abs(of_torch - expected).max() <= 1e-4 * np.abs(expected).max()


def test_features_come_beside_probabilities_too(model: Model) -> None:
    given, engine = windows(), Engine("openvino")
    layered = predictor_for(model, engine, layers=("probabilities",), threads=1, features=True)
    layers, found = layered.with_features(*given)
    plain = predictor_for(model, engine, layers=("probabilities",), threads=1)(*given)
    np.testing.assert_array_equal(layers, plain)
    _, expected = OpenVinoPredictor(model, threads=1, features=True).with_features(*given)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_graph_with_features_is_another_file(model: Model) -> None:
    plain, more = converted_graph(model), converted_graph(model, features=True)
    assert plain != more
    assert (plain.read_text().count('type="Result"'), more.read_text().count('type="Result"')) == (1, 2)
    without_encoder = Model.in_memory(Strided(5, 5), exact_recipe())
    with pytest.raises(EngineError, match="needs a network with an encoder"):
        converted_graph(without_encoder, features=True)
    with pytest.raises(EngineError, match="which torch_compile does not give"):
        predictor_for(model, Engine("torch", compiled=True), features=True)


def one_by_one(predictor: Predictor, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Maps windows alone, from the last to the first."""
    maps = [predictor(pixels[i : i + 1], valid[i : i + 1]) for i in reversed(range(len(pixels)))]
    return np.concatenate(maps[::-1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_gives_the_same_bytes_in_any_batch_and_order(model: Model, precision: str) -> None:
    pixels, valid = windows(4)
    together, compiled_again = (OpenVinoPredictor(model, precision=precision, threads=2) for _ in range(2))
    np.testing.assert_array_equal(together(pixels, valid), one_by_one(compiled_again, pixels, valid))


def test_torch_gives_the_same_bytes_for_the_same_batch(model: Model) -> None:
    pixels, valid = windows(4)
    np.testing.assert_array_equal(TorchPredictor(model)(pixels, valid), TorchPredictor(model)(pixels, valid))


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_other_threads_and_batches_change_only_the_rounding(model: Model, engine: str) -> None:
    """Libraries choose kernels by the threads and the batch, and add products in another order."""
    pixels, valid = windows(4)

    def predictor(threads: int) -> Predictor:
        torch.set_num_threads(threads)
        return OpenVinoPredictor(model, threads=threads) if engine == "openvino" else TorchPredictor(model)

    before = torch.get_num_threads()
    try:
        together = predictor(1)(pixels, valid)
        apart = one_by_one(predictor(2), pixels, valid)
    finally:
        torch.set_num_threads(before)
    assert agreement(together, apart) >= 0.9999
    assert np.abs(together[:, 1].astype(int) - apart[:, 1]).max() <= 1


def test_the_map_in_bf16_is_nearly_that_in_fp32(model: Model) -> None:
    """On the processor, with the code under autocast that CUDA uses."""
    pixels, valid = windows()
    assert agreement(TorchPredictor(model)(pixels, valid), TorchPredictor(model, precision="bf16")(pixels, valid)) > 0.9


@pytest.mark.parametrize("kind", [TorchPredictor, OpenVinoPredictor])
def test_logits_that_are_not_finite_are_an_error(kind: type[Predictor]) -> None:
    class Broken(Strided):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) / (x[:, :1] - 7.0)

    predictor = kind(Model.in_memory(Broken(5, 5), exact_recipe()))  # type: ignore[call-arg]
    pixels, valid = np.full((1, 5, 8, 8), 9, np.uint8), np.ones((1, 8, 8), bool)
    assert predictor(pixels, valid)[:, 1].all()
    pixels[0, 0, 3, 3] = 7
    with pytest.raises(EngineError, match="not finite"):
        predictor(pixels, valid)


def test_a_converted_graph_is_cached_for_its_weights(model: Model, cache: Path) -> None:
    path = converted_graph(model)
    assert path.is_relative_to(cache)
    before = path.stat().st_mtime_ns
    assert converted_graph(model) == path
    assert path.stat().st_mtime_ns == before
    torch.manual_seed(1)
    assert converted_graph(Model.in_memory(build_network(RECIPE), RECIPE)) != path
    assert {p.suffix for p in path.parent.iterdir()} == {".xml", ".bin", ".sha256"}


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights edited": lambda p: p.with_suffix(".bin").write_bytes(bytes(p.with_suffix(".bin").stat().st_size)),
    "weights cut": lambda p: os.truncate(p.with_suffix(".bin"), 100),
    "graph edited": lambda p: p.write_text(p.read_text() + " "),
    "graph lost": lambda p: p.unlink(),
    "checksums lost": lambda p: p.with_suffix(".sha256").unlink(),
    "others may write": lambda p: p.with_suffix(".bin").chmod(0o666),
    "link": lambda p: (
        p.with_suffix(".bin").rename(p.parent.parent / "bin")
        and p.with_suffix(".bin").symlink_to(p.parent.parent / "bin")
    ),
    "second name": lambda p: (p.parent.parent / "second").hardlink_to(p),
}


@pytest.fixture(scope="module")
def converted(cache: Path) -> Path:
    """The folder of a converted graph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDCOVER_CACHE", str(cache / "own"))
        return converted_graph(Model.in_memory(build_network(RECIPE), RECIPE)).parent


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_cached_graph_that_was_changed_is_not_used(converted: Path, tmp_path: Path, damage: str) -> None:
    (path,) = shutil.copytree(converted, tmp_path / "cache" / "openvino").glob("*.xml")
    assert ov._is_intact(path)
    DAMAGE[damage](path)
    assert not ov._is_intact(path)


@pytest.mark.slow
def test_a_damaged_graph_is_converted_again(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path))
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino").chmod(0o777)
    path = converted_graph(model)
    good = path.with_suffix(".bin").read_bytes()
    DAMAGE["link"](path)
    os.truncate(tmp_path / "bin", 100)
    assert converted_graph(model) == path
    assert path.with_suffix(".bin").read_bytes() == good
    assert (tmp_path / "bin").stat().st_size == 100
    assert {p.lstat().st_mode & 0o777 for p in path.parent.iterdir()} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_cache_of_another_user_is_refused(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path))
    (tmp_path / "openvino").mkdir()
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(StorageError, match=r"found one of user .*set LANDCOVER_CACHE"):
        converted_graph(model)


def test_a_cache_that_cannot_be_written_is_named_with_a_remedy(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="LANDCOVER_CACHE"):
        converted_graph(model)


def test_auto_is_openvino_if_installed_and_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "device", lambda: torch.device("cpu"))
    assert resolve_engine("auto") == Engine("openvino", "fp32")
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    assert resolve_engine("auto") == Engine("torch", "fp32")
    with pytest.raises(EngineError, match="not installed"):
        resolve_engine("openvino")
    monkeypatch.undo()
    monkeypatch.setattr(torch_engine, "device", lambda: torch.device("cuda:0"))
    assert resolve_engine("auto", precision="fp16") == Engine("torch", "fp16")


def test_unknown_engines_and_precisions_are_refused(model: Model) -> None:
    with pytest.raises(EngineError, match="expected auto, torch, openvino"):
        resolve_engine("tensorflow")  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="no fp16"):
        resolve_engine("openvino", precision="fp16")
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="fp16 needs a CUDA device"):
            TorchPredictor(model, precision="fp16")


def test_importing_the_package_needs_no_openvino() -> None:
    assert ov.__name__ in sys.modules
    assert "openvino" not in vars(ov)


IN_A_WORKER = """
import pickle, sys
import numpy as np
import pipeline.runs.mapping.run
method, pixels, valid = pickle.loads(sys.stdin.buffer.read())
planes = pipeline.inference.predictor_for(method.model, method.engine, threads=1)(pixels, valid)
print({"torch", "pandas", "xarray", "dask.array", "segmentation_models_pytorch"} & set(sys.modules), file=sys.stderr)
sys.stdout.buffer.write(planes.tobytes())
"""


def test_a_worker_maps_a_graph_of_the_cache_without_torch_or_weights(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(model.network.state_dict(), file)
    loaded, images = load_model(file, RECIPE), windows(1)
    here = OpenVinoPredictor(loaded, threads=1)(*images)
    file.unlink()
    method = Method(loaded, Layout(core=32, halo=32, window=96, stride=32), 32, Engine("openvino", "fp32"))
    sent = pickle.dumps((method, *images))
    done = subprocess.run([sys.executable, "-c", IN_A_WORKER], input=sent, capture_output=True, check=True)
    assert done.stderr.decode().splitlines()[-1:] == ["set()"]
    assert done.stdout == here.tobytes()
