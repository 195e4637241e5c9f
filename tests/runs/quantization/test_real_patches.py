"""Real weights, real patches: quantized with their left halves, compared with fp32 on their right halves."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from pipeline.errors import ConfigError
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.post_training_quantization import CONTROLLED, SCHEMES, quantize_graph, save_quantized
from pipeline.model import Model, load_model
from pipeline.runs.quantization.tradeoff import as_figures, frontier, kept, of_patches
from pipeline.runs.quantization.unseen_domains import measure_scheme
from pipeline.runs.quantization.windows import WindowSplit, classes_of
from tests.support.networks import exact_model

pytest.importorskip("openvino", reason="the extra `cpu` is not installed")
pytest.importorskip("nncf", reason="the extra `cpu` is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_int8_agrees_with_fp32_on_the_real_patches_less_on_unseen_ones(shared_data: Path) -> None:
    model = load_model(shared_data / "weights" / "mini_resnet34-unet_weights.pth")
    patches = []
    for path in sorted((shared_data / "flair_patches").glob("IMG_*.tif"))[:2]:
        with rasterio.open(path) as file:
            patches.append(file.read())
    windows = of_patches(np.stack(patches), model)
    assert [w.window.col for w in windows.held_out] == [256] * 2
    graph = quantize_graph(model, [w.pixels for w in windows.quantization], SCHEMES[0])
    found = measure_scheme(model, graph, windows, SCHEMES[0], max_drop=0.01)
    assert found.seen.overall >= 0.99
    assert found.unseen is not None
    assert 0.95 < found.unseen.agreement.overall < found.seen.overall, "an unseen domain agrees less"


def halves(model: Model) -> WindowSplit:
    return of_patches(np.random.default_rng(0).integers(0, 256, (1, 5, 64, 128), dtype=np.uint8), model)


def test_the_frontier_measures_each_precision_on_the_held_out_windows() -> None:
    model = exact_model()
    points = frontier(model, halves(model))
    assert [p.name for p in points] == ["fp32", "torch fp32", "bf16", *(f"int8 {s.name}" for s in SCHEMES)]
    assert points[0].agreement == 1
    assert all(p.mpx_per_s > 0 for p in points)
    assert kept(points, min_agreement=0).name == "int8 minmax"
    assert kept(points, min_agreement=1.1).agreement == max(p.agreement for p in points[3:])
    assert [f["name"] for f in as_figures(points)] == [p.name for p in points]


def test_accuracy_control_returns_operations_to_float_until_enough_agrees(tmp_path: Path) -> None:
    model = exact_model()
    windows = halves(model)
    graph = quantize_graph(model, [w.pixels for w in windows.quantization], CONTROLLED, max_drop=0.001)
    quantized = save_quantized(graph, tmp_path / "model.xml")
    predictor = OpenVinoPredictor(model, precision="int8", quantized=quantized)
    (window,) = windows.quantization
    assert (classes_of(predictor, window.pixels) == window.classes).mean() >= 0.999


def test_images_without_aligned_halves_are_refused() -> None:
    with pytest.raises(ConfigError, match="64 × 122 px have no halves"):
        of_patches(np.zeros((1, 5, 64, 122), np.uint8), exact_model())
