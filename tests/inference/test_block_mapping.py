"""The map does not depend on windows, blocks, chunks or threads, and nodata stays nodata."""

import gc
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

import pipeline
from pipeline.errors import ConfigError, EngineError
from pipeline.geobox import lattice_geobox
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference import Engine, Method, predict_stack, predict_tile
from pipeline.inference.array_source import ArraySource
from pipeline.inference.block_mapping import map_and_count, map_block, read_reflected, reads_of
from pipeline.inference.predictor import predictor_for
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.model import Model
from pipeline.sources.reading.raster import Pixels
from tests.support.networks import STRIDE, Strided, exact_model, exact_recipe

BANDS = ("red", "green", "blue", "nir", "elevation")


@dataclass(frozen=True, eq=False)
class Recorded:
    """A source in memory, anywhere on the lattice, that records its reads."""

    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    window: Window
    bands: tuple[str, ...] = BANDS
    reads: list[Window] = field(default_factory=list)

    @property
    def geobox(self) -> GeoBox:
        return lattice_geobox(self.window, "EPSG:2154")

    def read(self, window: Window, *, within: Window | None = None) -> Pixels:
        assert self.window.contains(window), "a read extends beyond the source"
        self.reads.append(window)
        return ArraySource(self.pixels, self.valid, self.window, self.window).read(window, within=within)


def image(rng: np.random.Generator, window: Window, *, holes: float = 0.0) -> Recorded:
    pixels = rng.integers(0, 256, (5, *window.shape), dtype=np.uint8)
    valid = np.ones(window.shape, bool)
    if holes:
        valid[rng.random(window.shape) < holes] = False
    return Recorded(pixels, valid, window)


def whole_forward(source: Recorded, model: Model, *, halo: int) -> NDArray[np.uint8]:
    """One forward over the whole image, padded by reflection and aligned to the lattice."""
    w, s = source.window, STRIDE
    top, left = (w.row - halo) // s * s, (w.col - halo) // s * s
    height, width = (-(-(e + halo - t) // s) * s for e, t in ((w.bottom, top), (w.right, left)))
    pad = ((w.row - top, top + height - w.bottom), (w.col - left, left + width - w.right))
    pixels = np.pad(source.pixels, ((0, 0), *pad), mode="reflect").astype(np.float32)
    pixels *= np.pad(source.valid, pad, mode="reflect")  # mean 0, std 1: masked is 0
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(pixels)[None])[0].numpy()
    live = np.array(model.recipe.live)
    logits = logits[live - 1]
    classes = live[logits.argmax(0)].astype(np.uint8)
    share = np.exp(logits - logits.max(0)).sum(0, dtype=np.float64)
    layers = np.stack([classes, np.round(255.0 / share).astype(np.uint8)])
    rows, cols = slice(w.row - top, w.bottom - top), slice(w.col - left, w.right - left)
    out = layers[:, rows, cols]
    out[:, ~source.valid] = 0
    return out


LAYOUT = Layout(core=10, halo=11, window=40, stride=STRIDE)
assert LAYOUT.core % STRIDE, "cores must start off the stride"
assert len({(r // STRIDE * STRIDE - r) for r in range(0, 40, 10)}) > 1

MODEL = exact_model()


@given(
    st.builds(Window, st.integers(-60, 60), st.integers(-60, 60), st.integers(12, 70), st.integers(12, 70)),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.3]),
    st.integers(0, 99),
)
def test_a_mapped_domain_equals_one_forward_of_the_whole_image(
    window: Window, cores: int, holes: float, seed: int
) -> None:
    source = image(np.random.default_rng(seed), window, holes=holes)
    stack = predict_stack(source, Method(MODEL, LAYOUT, cores * LAYOUT.core), window=source.window)
    mapped = stack.compute(scheduler="sync")
    expected = whole_forward(source, MODEL, halo=LAYOUT.halo)
    np.testing.assert_array_equal(mapped[0], expected[0])
    # The exp of NumPy and of torch may differ in the last bit, and a confidence may round differently.
    assert np.abs(mapped[1].astype(int) - expected[1]).max() <= 1


@given(
    st.builds(Window, st.integers(-40, 40), st.integers(-40, 40), st.integers(1, 30), st.integers(1, 30)),
    *(st.integers(-29, 60) for _ in range(4)),
)
def test_the_image_is_reflected_beyond_its_edge_as_in_numpy(
    extent: Window, above: int, left: int, below: int, right: int
) -> None:
    source = image(np.random.default_rng(0), extent)
    window = Window.from_edges(extent.row - above, extent.col - left, extent.bottom + below, extent.right + right)
    assume(window.intersect(extent).pixels and window.height > 0 and window.width > 0)
    read = read_reflected(source, window)
    pad = [(max(0, near), max(0, far)) for near, far in ((above, below), (left, right))]
    whole = extent.row - pad[0][0], extent.col - pad[1][0]
    place = tuple(
        slice(start - edge, start - edge + size)
        for start, edge, size in zip((window.row, window.col), whole, window.shape, strict=True)
    )
    np.testing.assert_array_equal(read.bands, np.pad(source.pixels, ((0, 0), *pad), mode="reflect")[:, *place])
    np.testing.assert_array_equal(read.valid, np.pad(source.valid, pad, mode="reflect")[place])


@pytest.fixture
def big() -> Recorded:
    return image(np.random.default_rng(1), Window(-37, 13, 100, 100), holes=0.05)


def lazily(source: Recorded, model: Model = MODEL, *, block: int = 20) -> da.Array:
    return predict_stack(source, Method(model, LAYOUT, block), window=source.window)


def test_each_block_is_one_task(big: Recorded) -> None:
    (stack,) = dask.optimize(lazily(big))
    assert stack.numblocks == (1, 5, 5)
    assert len(dict(stack.__dask_graph__())) == 25


def test_both_layers_need_one_read_and_one_forward_a_block(big: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards = []
    call = TorchPredictor.__call__

    def counted(self: TorchPredictor, pixels: Any, valid: Any) -> Any:
        forwards.append(len(pixels))
        return call(self, pixels, valid)

    monkeypatch.setattr(TorchPredictor, "__call__", counted)
    dataset = pipeline.predict(big, MODEL, layout=LAYOUT, block=20, engine="torch")
    assert not big.reads, "building the lazy map must not read"
    dask.compute(dataset["landcover"].data, dataset["confidence"].data, scheduler="threads")
    assert len(big.reads) == 25
    assert len(forwards) == 25
    assert sum(forwards) == 100


@pytest.mark.parametrize("block", [10, 30, 100])
@pytest.mark.parametrize("threads", [1, 4])
def test_blocks_and_threads_change_no_byte(big: Recorded, block: int, threads: int) -> None:
    expected = lazily(big).compute(scheduler="sync")
    stack = lazily(big, block=block)
    np.testing.assert_array_equal(stack.compute(scheduler="threads", num_workers=threads), expected)


def test_a_part_is_mapped_as_in_the_whole(big: Recorded) -> None:
    part = Window(big.window.row + 20, big.window.col + 40, 40, 20)
    stack = predict_stack(big, Method(MODEL, LAYOUT, 20), window=part)
    rows, cols = part.slices_in(big.window)
    np.testing.assert_array_equal(stack.compute(), lazily(big).compute()[:, rows, cols])


@given(st.integers(1, 75), st.integers(1, 75), st.none() | st.tuples(st.integers(5, 80), st.integers(5, 80)))
def test_an_array_in_memory_or_on_dask_is_mapped_like_a_source(
    height: int, width: int, chunks: tuple[int, int] | None
) -> None:
    source = image(np.random.default_rng(height), Window(0, 0, height, width))
    source.pixels[:, : height // 2, : width // 3] = 7
    array = xr.DataArray(source.pixels, dims=("band", "y", "x"), coords={"band": list(BANDS)}).rio.write_nodata(7)
    source.valid[(source.pixels[:4] == 7).any(0)] = False
    if chunks:
        array = array.chunk({"band": 1, "y": chunks[0], "x": chunks[1]})
    dataset = pipeline.predict(array, MODEL, layout=LAYOUT, block=20, engine="torch", checks="ignore")
    expected = lazily(source).compute()
    for i, name in enumerate(("landcover", "confidence")):
        np.testing.assert_array_equal(dataset[name].values, expected[i], err_msg=name)


def test_the_map_has_the_coordinates_of_the_image() -> None:
    y, x = 6_890_000 - 0.2 * (np.arange(30) + 0.5), 595_000 + 0.2 * (np.arange(40) + 0.5)
    array = xr.DataArray(np.zeros((5, 30, 40), np.uint8), dims=("band", "y", "x"), coords={"y": y, "x": x})
    dataset = pipeline.predict(array.rio.write_crs("EPSG:2154"), MODEL, layout=LAYOUT, engine="torch")
    np.testing.assert_array_equal(dataset.y, y)
    np.testing.assert_array_equal(dataset.x, x)
    assert dataset.landcover.rio.crs.to_epsg() == 2154
    assert dataset.landcover.rio.nodata == 0


def test_a_logit_that_is_switched_off_never_appears() -> None:
    class Loud(Strided):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = super().forward(x)
            logits[:, 3] = 1e30
            return logits

    recipe = exact_recipe(live=(1, 2, 3, 5))
    source = image(np.random.default_rng(3), Window(0, 0, 40, 40))
    loud = lazily(source, Model.in_memory(Loud(5, 5), recipe)).compute()
    quiet = lazily(source, exact_model(recipe)).compute()
    assert set(np.unique(loud[0])) <= {1, 2, 3, 5}
    np.testing.assert_array_equal(loud, quiet)


def counted_off(source: Recorded, model: Model) -> int:
    """Pixels with data where a dead logit is greater than every live one, in one forward of the whole image."""
    w, dead = source.window, [i for i in range(5) if i + 1 not in model.recipe.live]
    height, width = (side // STRIDE * STRIDE for side in w.shape)
    assert (height, width) == w.shape
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(source.pixels.astype(np.float32) * source.valid)[None])[0].numpy()
    live = logits[[v - 1 for v in model.recipe.live]].max(0)
    wins = (logits[dead].max(0) > live) & source.valid if dead else np.zeros(w.shape, bool)
    return int(wins.sum())


@pytest.mark.parametrize("live", [(1, 2, 3, 5), (1, 2), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_a_tile_counts_where_switched_off_logits_would_win(live: tuple[int, ...], holes: float) -> None:
    model = exact_model(exact_recipe(live=live))
    # One window sees the whole image without reflection, so that a forward of it is the truth.
    source = image(np.random.default_rng(6), Window(0, 0, 40, 40), holes=holes)
    method = Method(model, Layout(core=40, halo=0, window=40, stride=STRIDE), 40)
    mapped = predict_tile(source, method, window=source.window).compute()
    assert mapped.switched_off == counted_off(source, model)
    assert (mapped.switched_off > 100) == (len(live) < 5)
    np.testing.assert_array_equal(mapped.layers, predict_stack(source, method, window=source.window).compute())


@pytest.mark.parametrize("block", [10, 20, 30, 100])
def test_a_tile_of_any_blocks_has_the_same_bytes_and_count(big: Recorded, block: int) -> None:
    one, *others = (
        predict_tile(big, Method(MODEL, LAYOUT, size), window=big.window).compute(scheduler="sync")
        for size in (block, 100)
    )
    np.testing.assert_array_equal(one.layers, lazily(big).compute())
    assert [other.switched_off for other in others] == [one.switched_off]
    assert one.switched_off > 0


def test_a_tile_is_one_task_a_block_and_one_that_joins_them(big: Recorded) -> None:
    graph = dict(predict_tile(big, Method(MODEL, LAYOUT, 20), window=big.window).__dask_graph__())
    assert len(graph) == 26
    assert not big.reads, "building the lazy map must not read"


@pytest.mark.parametrize("block", [10, 30, 100])
def test_the_planned_reads_are_those_that_mapping_makes(block: int) -> None:
    source = image(np.random.default_rng(7), Window(-30, 50, 100, 100))
    predict_tile(source, Method(MODEL, LAYOUT, block), window=source.window).compute(scheduler="sync")
    assert sorted(source.reads) == sorted(reads_of(source.window, source.window.split(block), layout=LAYOUT))


def test_an_engine_that_does_not_tell_counts_nothing(big: Recorded) -> None:
    predictor = TorchPredictor(MODEL)
    mapped = map_and_count(big, big.window, layout=LAYOUT, predictor=lambda *given: predictor(*given)[:, :2])
    assert mapped.switched_off is None
    np.testing.assert_array_equal(mapped.layers, lazily(big).compute())


def test_masked_pixels_enter_the_network_as_the_channel_mean() -> None:
    recipe = exact_recipe().model_copy(update={"mean": (3.0, 5.0, 7.0, 9.0, 11.0), "std": (2.0,) * 5})
    model = Model.in_memory(Strided(5, 5), recipe)
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 256, (1, 5, 16, 16), dtype=np.uint8)
    valid = rng.random((1, 16, 16)) < 0.6
    at_mean = np.where(valid[:, None], pixels, np.array(recipe.mean, np.uint8)[None, :, None, None])
    predictor = TorchPredictor(model)
    np.testing.assert_array_equal(predictor(pixels, valid), predictor(at_mean, np.ones_like(valid)))


def test_a_block_of_nodata_needs_no_forward_and_stays_nodata() -> None:
    source = image(np.random.default_rng(5), Window(0, 0, 40, 40))
    source.valid[:] = False

    class Refuses:
        def __call__(self, *_: Any) -> Any:
            raise AssertionError("no forward must run")

    layers = map_block(source, Window(0, 0, 20, 20), layout=LAYOUT, predictor=Refuses())
    assert not layers.any()


def test_logits_that_are_not_finite_are_an_error() -> None:
    class Broken(Strided):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = super().forward(x)
            logits[0, 1, 3, 3] = float("nan")
            return logits

    predictor = TorchPredictor(Model.in_memory(Broken(5, 5), exact_recipe()))
    with pytest.raises(EngineError, match="not finite"):
        predictor(np.zeros((1, 5, 8, 8), np.uint8), np.ones((1, 8, 8), bool))


def test_threads_share_one_predictor() -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(predictor_for(MODEL, Engine()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_a_process_keeps_the_last_predictors_and_frees_others() -> None:
    def made(number: int) -> "weakref.ref[Any]":
        return weakref.ref(predictor_for(exact_model(seed=number), Engine()))

    first, second = made(1), made(2)
    made(1)
    third = made(3)
    gc.collect()
    assert [ref() is not None for ref in (first, second, third)] == [True, False, True]


def test_bands_other_than_those_of_the_recipe_are_refused() -> None:
    source = image(np.random.default_rng(6), Window(0, 0, 40, 40))
    swapped = Recorded(source.pixels, source.valid, source.window, bands=("nir", "red", "green", "blue", "elevation"))
    with pytest.raises(EngineError, match="needs the bands red, green"):
        pipeline.predict(swapped, MODEL, layout=LAYOUT, engine="torch")
    with pytest.raises(EngineError, match="needs 5 bands; got 3"):
        pipeline.predict(xr.DataArray(source.pixels[:3], dims=("band", "y", "x")), MODEL, layout=LAYOUT, engine="torch")
    with pytest.raises(ConfigError, match="must divide the block"):
        pipeline.predict(source, MODEL, layout=LAYOUT, block=25)
