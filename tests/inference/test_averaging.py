"""Several networks and turned windows: their probabilities are averaged as a plain loop averages them."""

import dask
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from pipeline.config import Recipe, Tta, joint_recipe, load_recipe
from pipeline.errors import ConfigError, EngineError
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference import Engine, Method, predict_stack, predictor_for, torch_engine
from pipeline.inference.array_source import ArraySource
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.inference.turns import TURNS
from pipeline.legend import OptionalLayer
from pipeline.model import Ensemble, Model
from tests.support.networks import STRIDE, Strided, exact_recipe

SIDES = st.integers(1, 9)


def as_numpy(tta: Tta) -> list[tuple[int, bool]]:
    """(quarter turns, mirrored first): the same positions, in numpy's words."""
    return {"none": [(0, False)], "flips": [(0, False), (0, True), (2, True), (2, False)]}.get(
        tta, [(k, mirrored) for k in range(4) for mirrored in (False, True)]
    )


def turned(array: NDArray[np.generic], quarters: int, mirrored: bool) -> NDArray[np.generic]:
    return np.rot90(array[..., ::-1] if mirrored else array, quarters, axes=(-2, -1))


@given(SIDES, SIDES, st.sampled_from(list(TURNS)))
def test_each_turn_is_undone_and_shows_each_position_once(height: int, width: int, tta: Tta) -> None:
    image = np.arange(2 * height * width).reshape(2, height, width)
    shown = []
    for turn in TURNS[tta]:
        there = turn.apply(torch.from_numpy(image))
        np.testing.assert_array_equal(turn.undo(there).numpy(), image)
        shown.append(there.numpy())
    expected = [turned(image, *position) for position in as_numpy(tta)]
    assert sorted(a.tobytes() + bytes(a.shape) for a in shown) == sorted(e.tobytes() + bytes(e.shape) for e in expected)


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_turns_keep_the_phase_of_windows_of_whole_strides(rows: int, cols: int, more: int, seed: int) -> None:
    """Means of the stride's cells stand for a network whose map depends on where its cells begin."""
    shape = (rows * STRIDE + more, cols * STRIDE + more)
    image = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (1, *shape)).astype(np.float64))

    def cells(x: torch.Tensor) -> torch.Tensor:
        means = torch.nn.functional.avg_pool2d(x, STRIDE, ceil_mode=True)
        return means.repeat_interleave(STRIDE, -2)[..., : x.shape[-2], :].repeat_interleave(STRIDE, -1)[
            ..., : x.shape[-1]
        ]

    same = [torch.equal(turn.undo(cells(turn.apply(image))), cells(image)) for turn in TURNS["d4"]]
    assert all(same) == (more == 0)


def members(count: int = 3) -> tuple[Model, ...]:
    """Networks of other weights, bands, normalisations and temperatures."""
    made = []
    for seed in range(count):
        bands = (("red", "green", "blue", "nir", "elevation"), ("nir", "red"), ("elevation", "blue", "red"))[seed % 3]
        recipe = exact_recipe().model_copy(
            update={
                "bands": bands,
                "mean": tuple(100.0 + 8 * seed for _ in bands),
                "std": tuple(32.0 for _ in bands),
                "temperature": (1.0, 1.5, 0.5)[seed % 3],
                "name": f"member{seed}",
            }
        )
        network = Strided(len(bands), recipe.logits, seed)
        network.head.weight.data *= 64.0
        made.append(Model.in_memory(network, recipe))
    return tuple(made)


def windows(count: int = 2, shape: tuple[int, int] = (24, 32)) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 5, *shape), np.uint8), rng.random((count, *shape)) > 0.1


def plain_shares(model: Model, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probabilities (class, y, x) of one network for one window, from its definition."""
    recipe = model.recipe
    at = [("red", "green", "blue", "nir", "elevation").index(band) for band in recipe.bands]
    scaled = (pixels[at] - np.reshape(recipe.mean, (-1, 1, 1))) / np.reshape(recipe.std, (-1, 1, 1)) * valid
    with torch.no_grad():
        logits = model.network(torch.from_numpy(scaled[None].astype(np.float32)))[0].double().numpy()
    return softmax(logits[[value - 1 for value in recipe.live]] / recipe.temperature, axis=0)


def plain_forwards(model: Ensemble, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probabilities (forward, class, y, x) of all members and turns, in the window's own position."""
    found = []
    for member in model.members:
        for quarters, mirrored in as_numpy(model.tta):
            own = plain_shares(member, turned(pixels, quarters, mirrored), turned(valid, quarters, mirrored))
            back = np.rot90(own, -quarters, axes=(-2, -1))
            found.append(back[..., ::-1] if mirrored else back)
    return np.stack(found)


ENGINES = ("torch", "openvino")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path_factory.getbasetemp() / "averaging"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("count", "tta"), [(1, "flips"), (3, "none"), (2, "d4")])
def test_the_map_is_that_of_a_plain_average(engine: str, count: int, tta: Tta) -> None:
    pytest.importorskip("openvino")
    model = Ensemble(members(count), tta)
    pixels, valid = windows()
    mapped = predictor_for(model, Engine(engine))(pixels, valid)
    for planes, *window in zip(mapped, pixels, valid, strict=True):
        mean = plain_forwards(model, *window).mean(axis=0)
        first, second = np.sort(mean, axis=0)[[-1, -2]]
        clear = first - second > 1e-5
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(planes[0][clear], np.array(model.recipe.live)[mean.argmax(axis=0)][clear])
        assert np.abs(planes[1] - 255 * first).max() <= 0.501


def test_blocks_and_threads_change_no_byte_of_an_average() -> None:
    model = Ensemble(members(2), "d4")
    pixels, _ = windows(1, (30, 44))
    image = ArraySource.all_valid(pixels[0], Window(0, 0, 30, 44))
    layout = Layout.for_core(12, halo=12, stride=STRIDE)
    maps = []
    for block, threads in ((12, 1), (24, 2), (48, 2)):
        stack = predict_stack(image, Method(model, layout, block), window=image.window)
        with dask.config.set(scheduler="threads", num_workers=threads):
            maps.append(stack.compute())
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


def test_a_window_is_uploaded_once_for_all_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = []
    upload = torch_engine._Lane.upload
    monkeypatch.setattr(torch_engine._Lane, "upload", lambda *given: uploads.append(given) or upload(*given))
    TorchPredictor(Ensemble(members(3), "d4"))(*windows(1))
    assert len(uploads) == 1


def test_a_single_network_is_mapped_by_the_graph_without_averaging() -> None:
    (member,) = members(1)
    given = windows()
    np.testing.assert_array_equal(TorchPredictor(Ensemble((member,)))(*given), TorchPredictor(member)(*given))


@pytest.mark.parametrize("engine", ENGINES)
def test_layers_change_no_byte_of_the_map(engine: str) -> None:
    pytest.importorskip("openvino")
    given, own = windows(), Engine(engine)
    cases: list[tuple[Model | Ensemble, tuple[OptionalLayer, ...]]] = [
        (members(1)[0], ("probabilities",)),
        (Ensemble(members(2)), ("disagreement", "probabilities")),
    ]
    for model, layers in cases:
        plain, more = predictor_for(model, own)(*given), predictor_for(model, own, layers=layers)(*given)
        np.testing.assert_array_equal(plain, more[:, :3])
        shares = (more[:, -len(model.recipe.live) :].astype(float) - 1) / 254
        assert np.abs(shares.sum(axis=1) - 1).max() <= len(model.recipe.live) * 0.51 / 254


@pytest.mark.parametrize("engine", ENGINES)
def test_a_temperature_changes_confidences_and_no_class(engine: str) -> None:
    pytest.importorskip("openvino")
    pixels, valid = windows()
    layers: tuple[OptionalLayer, ...] = ("disagreement", "probabilities")
    plain, warm = (
        predictor_for(Ensemble(members(2), "flips", temperature), Engine(engine), layers=layers)(pixels, valid)
        for temperature in (1.0, 0.5)
    )
    np.testing.assert_array_equal(plain[:, 0], warm[:, 0])
    np.testing.assert_array_equal(plain[:, 2:4], warm[:, 2:4])
    for planes, *window in zip(warm, pixels, valid, strict=True):
        mean = plain_forwards(Ensemble(members(2), "flips"), *window).mean(axis=0)
        expected = mean**2 / (mean**2).sum(axis=0)
        assert np.abs(planes[1] - 255 * expected.max(axis=0)).max() <= 0.51
        assert np.abs(planes[4:] - 1 - 254 * expected).max() <= 0.51
    with pytest.raises(ConfigError, match="found temperature 2, and a single forward"):
        Ensemble(members(1), temperature=2.0)


def test_logits_of_an_average_are_logarithms_of_its_mean_probabilities() -> None:
    model, (pixels, _) = Ensemble(members(3), "flips", 2.0), windows()
    valid = np.ones((len(pixels), *pixels.shape[2:]), bool)
    found = TorchPredictor(model).logits(pixels)
    for own, *window in zip(found, pixels, valid, strict=True):
        np.testing.assert_allclose(own, np.log(plain_forwards(model, *window).mean(axis=0)), atol=1e-4)


def test_disagreement_ranges_from_none_to_certain_of_other_classes() -> None:
    one, other = (certain_of(value) for value in (1, 5))
    given = windows()
    same, unlike = (Ensemble(pair) for pair in ((one, one), (one, other)))
    found = [predictor_for(m, Engine(), layers=("disagreement",))(*given)[:, -1] for m in (same, unlike)]
    assert (found[0] == 1).all()
    assert (found[1] == 255).all()


def certain_of(value: int) -> Model:
    """A network that is certain of one class everywhere."""
    network = Strided(5, 5)
    for parameter in network.parameters():
        parameter.data.zero_()
    network.head.bias.data[value - 1] = 2.0**18
    return Model.in_memory(network, exact_recipe())


def test_the_joint_recipe_has_all_bands_and_refuses_other_classes() -> None:
    recipes = [member.recipe for member in members(3)]
    joint = joint_recipe(recipes[1:])
    assert joint.bands == ("nir", "red", "elevation", "blue")
    assert joint.mean == (108.0, 108.0, 116.0, 116.0)
    with pytest.raises(ConfigError, match=r"live classes \(1, 2\), expected those of member0"):
        joint_recipe([recipes[0], recipes[1].model_copy(update={"live": (1, 2)})])
    with pytest.raises(ConfigError, match=r"height_step_m of member0 0\.2 m, member2 0\.5 m"):
        joint_recipe([recipes[0], recipes[1], recipes[2].model_copy(update={"height_step_m": 0.5})])


def test_a_joint_recipe_fits_the_strictest_network() -> None:
    one, other = (member.recipe for member in members(2))
    joint = joint_recipe([one.model_copy(update={"smallest_halo": 64, "stride": 8}), pooling(other)])
    assert (joint.stride, joint.smallest_halo, joint.pools_whole_window) == (8, 64, True)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("encoders", "stride", "window"),
    [(("convnextv2tiny", "swinbase"), 384, 2304), (("swintiny", "swinbase"), 2688, 5376)],
)
def test_windows_of_an_average_contain_those_of_all(
    encoders: tuple[str, str], stride: int, window: int, turned: bool
) -> None:
    """Two cells of 2 688 px hold a core between halos of 384 px wherever it begins, one does not."""
    recipes = [load_recipe(f"flair-hub_lc-a_ir_{name}-upernet") for name in encoders]
    joint = joint_recipe(recipes[::-1] if turned else recipes)
    assert (joint.stride, joint.smallest_halo, joint.smallest_window) == (stride, 384, window)
    assert joint.layout().window == window
    unknown = recipes[0].model_copy(update={"smallest_window": None})
    assert joint_recipe([recipes[1], unknown]).smallest_window is None


def pooling(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"architecture": "upernet", "smallest_halo": 32})


def test_a_network_in_int8_has_nothing_to_average() -> None:
    with pytest.raises(EngineError, match="classes without probabilities"):
        predictor_for(Ensemble(members(2)), Engine("openvino", "int8"))


def test_a_single_forward_has_no_disagreement() -> None:
    with pytest.raises(EngineError, match="a single forward has no disagreement"):
        predictor_for(*members(1), Engine(), layers=("disagreement",))
