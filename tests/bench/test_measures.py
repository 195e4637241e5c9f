"""The tools of the benches, compared with known results."""

import io
import time
from functools import partial
from operator import mul

import numpy as np
import pytest
from PIL import Image

from pipeline.bench.chart import bar_chart, line_chart
from pipeline.bench.gemm import network_flops
from pipeline.bench.imagery import mirrored
from pipeline.bench.machine import in_new_process, in_new_process_within, measure
from pipeline.bench.measurements.halo import _differing, _whole_forward
from pipeline.bench.measurements.quantize import right_halves
from pipeline.config import DEFAULT_RECIPE, load_recipe
from pipeline.errors import EngineError
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference import Engine, predictor_for
from pipeline.model import Model
from pipeline.model.network import build_network
from pipeline.runs.quantization.tradeoff import of_patches
from tests.support.networks import exact_model


def test_a_patch_takes_the_known_number_of_operations() -> None:
    recipe = load_recipe(DEFAULT_RECIPE)
    model = Model.in_memory(build_network(recipe), recipe)
    assert network_flops(model, 512 * 512) / 1e9 == pytest.approx(64.7, abs=0.05)
    assert next(model.network.parameters()).device.type == "cpu"


def test_windows_differ_from_the_whole_only_if_unaligned_or_without_halo() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 96, 96), dtype=np.uint8)
    layout = Layout(core=30, halo=12, window=60, stride=4)
    predictor = predictor_for(exact_model(), Engine("torch"))
    truth = _whole_forward(pixels, layout, predictor)
    everywhere = Window(0, 0, 96, 96)
    differing = {
        (halo, shift): _differing(
            pixels,
            truth,
            everywhere,
            layout=Layout.for_core(layout.core, halo, layout.stride),
            shift=shift,
            predictor=predictor,
        )
        for halo in (0, 12)
        for shift in (0, 2)
    }
    assert differing[12, 0] == 0
    assert differing[12, 2] > 0.01
    assert differing[0, 0] > 0.01


def test_held_out_pixels_were_not_used_for_quantization() -> None:
    patches = np.full((2, 5, 64, 64), 7, np.uint8)
    patches[..., 32:] = 9
    everywhere = Window(0, 0, 300, 300)
    unseen = mirrored(right_halves(patches), everywhere)[0].view(np.bool_)
    assert 0.4 < unseen.mean() < 0.6
    np.testing.assert_array_equal(unseen, mirrored(patches, everywhere)[0] == 9)
    halves = of_patches(patches, exact_model())
    assert all((w.pixels.bands == 7).all() for w in halves.quantization)
    assert all((w.pixels.bands == 9).all() for w in halves.held_out)


@pytest.mark.slow
def test_the_peak_memory_is_of_the_new_process_alone() -> None:
    """It does not contain the memory of this process, which has imported torch.

    Imports take some 10 MB more than what stays of them.
    """
    (_, small), (_, large) = (in_new_process(measure, partial(mul, b"x", size)) for size in (1, 300_000_000))
    assert 270e6 < large.own_peak_bytes - small.own_peak_bytes < 360e6


@pytest.mark.slow
def test_an_error_in_a_new_process_is_raised_here() -> None:
    with pytest.raises(TypeError, match="bytes"):
        in_new_process(measure, partial(mul, b"x", b"x"))


@pytest.mark.slow
def test_a_process_that_exceeds_its_time_is_killed() -> None:
    with pytest.raises(EngineError, match=r"it did not end within 0\.2 s"):
        in_new_process_within(0.2, time.sleep, 600)


def test_charts_take_zeros_and_single_points() -> None:
    line = {"flat": [(0.0, 0.0, "left"), (10.0, 0.0, "right")]}
    point = {"point": [(5.0, 0.1, "")]}
    for chart in (
        bar_chart("b", [("none", 0.0)], unit="x"),
        line_chart("zeros", line, x_label="x", y_label="y"),
        line_chart("both", line | point, x_label="x", y_label="y"),
    ):
        with Image.open(io.BytesIO(chart)) as picture:
            assert min(picture.size) > 100
