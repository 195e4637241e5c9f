"""The parts that benches measure with: each against something known."""

from functools import partial
from operator import mul

import numpy as np
import pytest
from PIL import Image

from pipeline.bench.chart import Curve, bars, curves
from pipeline.bench.gemm import network_flops
from pipeline.bench.imagery import mirrored
from pipeline.bench.machine import isolated, measure
from pipeline.bench.measurements.halo import _differing, _layout, _whole
from pipeline.bench.measurements.quantize import held_out
from pipeline.config import DEFAULT_RECIPE, load_recipe
from pipeline.grid import Layout, Window
from pipeline.inference import Engine, predictor_for
from pipeline.model import Model
from pipeline.model.network import build
from pipeline.runs.quantization.tradeoff import of_patches
from tests.support.networks import exact_model


def test_the_operations_of_a_patch_are_those_of_the_model_card_s_network() -> None:
    recipe = load_recipe(DEFAULT_RECIPE)
    model = Model.in_memory(build(recipe), recipe)
    assert network_flops(model, 512 * 512) / 1e9 == pytest.approx(64.7, abs=0.05)
    assert next(model.network.parameters()).device.type == "cpu"


def test_a_network_that_fits_in_the_halo_differs_nowhere_but_where_windows_are_out_of_phase() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 96, 96), dtype=np.uint8)
    layout = Layout(core=30, halo=12, window=60, stride=4)
    predictor = predictor_for(exact_model(), Engine("torch"))
    truth = _whole(pixels, layout, predictor)
    everywhere = Window(0, 0, 96, 96)
    differing = {
        (halo, shift): _differing(
            pixels, truth, everywhere, layout=_layout(layout, halo), shift=shift, predictor=predictor
        )
        for halo in (0, 12)
        for shift in (0, 2)
    }
    assert differing[12, 0] == 0
    assert differing[12, 2] > 0.01
    assert differing[0, 0] > 0.01


def test_what_int8_is_judged_by_in_the_mirrored_imagery_was_not_calibrated_on() -> None:
    patches = np.full((2, 5, 64, 64), 7, np.uint8)
    patches[..., 32:] = 9
    everywhere = Window(0, 0, 300, 300)
    unseen = mirrored(held_out(patches), everywhere)[0].view(np.bool_)
    assert 0.4 < unseen.mean() < 0.6
    np.testing.assert_array_equal(unseen, mirrored(patches, everywhere)[0] == 9)
    halves = of_patches(patches, exact_model())
    assert all((w.pixels.bands == 7).all() for w in halves.calibration)
    assert all((w.pixels.bands == 9).all() for w in halves.held_out)


@pytest.mark.parametrize("halo", [0, 31, 160, 256])
def test_a_curve_s_windows_are_the_least_that_keep_their_halo(halo: int) -> None:
    layout = _layout(Layout(), halo)
    assert (layout.core, layout.halo, layout.window) == (2500, halo, layout.smallest_window)
    assert _layout(Layout(), 160) == Layout()


@pytest.mark.slow
def test_a_process_s_peak_is_its_own() -> None:
    """Whatever this process, with torch in it, takes."""
    (_, small), (_, large) = (isolated(measure, partial(mul, b"x", size)) for size in (1, 100_000_000))
    assert 90e6 < large.own_peak_bytes - small.own_peak_bytes < 120e6


@pytest.mark.slow
def test_an_error_in_a_process_of_its_own_comes_back() -> None:
    with pytest.raises(TypeError, match="bytes"):
        isolated(measure, partial(mul, b"x", b"x"))


def test_charts_take_zeros_and_single_points() -> None:
    line = Curve("flat", ((0.0, 0.0), (10.0, 0.0)), ("left", "right"))
    for picture in (bars("b", [("none", 0.0)], unit="x"), curves("c", [line], x_name="x", y_name="y")):
        assert isinstance(picture, Image.Image)
