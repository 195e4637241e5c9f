"""The torch engine: batches that fit into memory, threads that share a device, compilation, and GPUs.

The same code runs on the CPU, where streams do nothing. Tests that need a GPU are marked.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.config import DEFAULT_RECIPE, load_recipe
from pipeline.errors import EngineError
from pipeline.halo import Layout
from pipeline.inference import Engine, on_gpu, resolve_engine, torch_engine
from pipeline.inference.memory_projection import project_memory
from pipeline.inference.torch_engine import LANES, TorchPredictor, forward_kinds
from pipeline.model import Model, build_network, load_model
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from tests.support.campaigns import make_campaign
from tests.support.networks import Greedy, Strided, exact_model, exact_recipe

Batch = tuple[NDArray[np.uint8], NDArray[np.bool_]]
GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
DEVICES = ("cpu", pytest.param("cuda:0", marks=GPU))


@pytest.fixture(params=DEVICES)
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device that predictors use in this test."""
    on(request.param, monkeypatch)
    return str(request.param)


def on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "device", lambda: torch.device(name))


def batch(count: int, side: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 5, side, side), np.uint8), rng.random((count, side, side)) > 0.1


@pytest.fixture
def greedy() -> Iterator[type[Greedy]]:
    Greedy.sizes.clear()
    yield Greedy
    Greedy.room = 0


@pytest.mark.usefixtures("where")
def test_a_full_device_gets_smaller_batches_with_the_same_maps(greedy: type[Greedy]) -> None:
    pixels, valid = batch(7, 32)
    truth = TorchPredictor(exact_model())(pixels, valid)
    assert len({layers.tobytes() for layers in truth}) == 7, "all windows must have different maps"
    predictor = TorchPredictor(Model.in_memory(greedy(5, 5), exact_recipe()))
    greedy.room = 2
    np.testing.assert_array_equal(predictor(pixels, valid), truth)
    assert greedy.sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    greedy.sizes.clear()
    np.testing.assert_array_equal(predictor(pixels[:2], valid[:2]), truth[:2])
    assert greedy.sizes == [1, 1], "a batch that was too large once is not tried again"
    predictor(*batch(4, 16))
    assert greedy.sizes[2:] == [4, 2, 2], "four windows with a quarter of the pixels are tried"


@pytest.mark.usefixtures("where")
def test_a_single_window_that_exceeds_the_memory_is_an_error(greedy: type[Greedy]) -> None:
    predictor = TorchPredictor(Model.in_memory(greedy(5, 5), exact_recipe()))
    with pytest.raises(EngineError, match=r"a window of 32 × 32 px exceeds the device's memory; use a smaller window"):
        predictor(*batch(2, 32))
    greedy.room = 1
    assert predictor(*batch(1, 32)).shape == (1, 3, 32, 32), "the lane is free again"


@pytest.mark.usefixtures("where")
def test_threads_that_share_the_device_get_their_own_maps() -> None:
    predictor = TorchPredictor(exact_model())
    given = [batch(1 + seed % 3, 16 * (1 + seed % 4), seed) for seed in range(16)]
    alone = [direct(predictor, b) for b in given]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda b: predictor(*b), given))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def direct(predictor: TorchPredictor, given: Batch) -> NDArray[np.uint8]:
    """The forward without streams, pinned buffers and other threads."""
    pixels, valid = (torch.from_numpy(array).to(predictor._device) for array in (given[0], given[1].view(np.uint8)))
    with torch.inference_mode(), predictor._arithmetic():
        images = pixels.contiguous(memory_format=torch.channels_last)
        layers: NDArray[np.uint8] = predictor._graph(images, valid).cpu().numpy()
    return layers


MEANWHILE = threading.Event()


class Waiting(Strided):
    """Its forward ends when the test sets an event."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert MEANWHILE.wait(30), "no batch was uploaded during the forward"
        return super().forward(x)


def test_the_next_batch_is_uploaded_during_a_forward() -> None:
    predictor = TorchPredictor(Model.in_memory(Waiting(5, 5), exact_recipe()))
    MEANWHILE.clear()
    first, second = batch(1, 32, 1), batch(1, 32, 2)
    with ThreadPoolExecutor(2) as pool:
        mapped = [pool.submit(predictor, *given) for given in (first, second)]
        # Neither forward ends before both batches have a lane.
        while predictor._lanes.qsize() > LANES - 2:
            assert not any(future.done() for future in mapped)
        MEANWHILE.set()
        maps = [future.result() for future in mapped]
    assert predictor._lanes.qsize() == LANES
    truth = TorchPredictor(exact_model())
    for given, layers in zip((first, second), maps, strict=True):
        np.testing.assert_array_equal(layers, truth(*given))


def test_compilation_changes_the_fingerprint_and_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = resolve_engine("torch", compiled=True)
    assert compiled == Engine("torch", compiled=True)
    assert compiled.content != Engine("torch").content
    assert "compiled" not in Engine("torch").content, "fingerprints of existing products must not change"
    with pytest.raises(EngineError, match="torch_compile needs engine torch, and engine openvino in fp32 is openvino"):
        resolve_engine("openvino", compiled=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    on("cpu", monkeypatch)
    with pytest.raises(EngineError, match="needs the compiler no-such-compiler"):
        TorchPredictor(exact_model(), compiled=True)


def agreement(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float((a[:, 0] == b[:, 0]).mean())


def real(shared_data: Path) -> tuple[Model, Batch]:
    """The shared weights, and corners of two patches."""
    import rasterio

    images = []
    for path in sorted((shared_data / "flair_patches").glob("IMG_*.tif"))[:2]:
        with rasterio.open(path) as image:
            images.append(image.read()[:, :128, :128])
    pixels = np.stack(images)
    model = load_model(shared_data / "weights" / "mini_resnet34-unet_weights.pth")
    return model, (pixels, np.ones((len(pixels), *pixels.shape[2:]), bool))


@pytest.mark.parametrize(
    ("name", "precision", "least"),
    [
        ("cpu", "bf16", 0.99),
        pytest.param("cuda:0", "fp32", 0.9999, marks=GPU),
        pytest.param("cuda:0", "fp16", 0.99, marks=GPU),
        pytest.param("cuda:0", "bf16", 0.99, marks=GPU),
    ],
)
def test_every_device_and_precision_agrees_with_fp32_on_the_processor(
    name: str, precision: str, least: float, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = real(shared_data)
    on("cpu", monkeypatch)
    truth = TorchPredictor(model)(*given)
    on(name, monkeypatch)
    assert agreement(TorchPredictor(model, precision=precision)(*given), truth) >= least


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's compiler uses a deprecated module
@pytest.mark.usefixtures("where")
def test_a_compiled_graph_gives_the_same_classes() -> None:
    # Only classes are equal: the network's arithmetic is exact, but that of the softmax is not.
    given = batch(2, 32)
    fused = TorchPredictor(exact_model(), compiled=True)
    assert agreement(fused(*given), TorchPredictor(exact_model())(*given)) == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_memory_of_a_gpu_stays_below_the_projection() -> None:
    recipe = load_recipe(DEFAULT_RECIPE)
    predictor = TorchPredictor(Model.in_memory(build_network(recipe), recipe))
    layout = Layout()
    sizes = {"recipe": recipe, "block": 5_000, "tile": 25_000, "threads": LANES, "tiles_in_flight": 2}
    sizes |= {"gdal_cache_mb": 512, "decoded_cache_mb": 640}
    projected = project_memory(layout, Engine("torch"), gpu=True, **sizes)
    torch_engine.reset_peak_memory()  # what other tests left is given back first
    given = [batch(1, layout.window, seed) for seed in range(LANES)]
    with ThreadPoolExecutor(LANES) as pool:
        list(pool.map(lambda b: predictor(*b), given))
    assert torch.cuda.max_memory_reserved() <= projected.device


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_domain_mapped_on_a_gpu_is_as_on_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rasterio

    maps = {}
    for name in ("gpu", "processor"):
        made = make_campaign(tmp_path / name, at=((0, 0), (0, 1)))
        run(make_plan(made.campaign))
        files = sorted(made.products.rglob("*-landcover.tif"))
        assert len(files) == 2
        maps[name] = np.stack([rasterio.open(file).read(1) for file in files])
        # For the workers of the second run.
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (maps["gpu"] == maps["processor"]).mean() >= 0.9999


@pytest.mark.usefixtures("where")
def test_forwards_without_copies_are_timed_and_change_no_map() -> None:
    given = batch(2, 32)
    predictor = TorchPredictor(exact_model())
    truth = predictor(*given)
    for how in forward_kinds():
        assert predictor.time_forwards(how, given[0].shape, calls=1) > 0
    np.testing.assert_array_equal(predictor(*given), truth)


def test_a_cuda_graph_on_a_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on("cpu", monkeypatch)
    with pytest.raises(EngineError, match="a CUDA graph needs a CUDA device"):
        TorchPredictor(exact_model()).time_forwards("graph", (1, 5, 32, 32), calls=1)


def test_only_torch_runs_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on("cuda:0", monkeypatch)
    assert on_gpu(Engine("torch"))
    assert not on_gpu(Engine("openvino"))
