"""The landscape does not depend on how it is cut into windows, and contains every class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.demo.country import ORIGIN, VINTAGES
from pipeline.demo.landscape import AGRICULTURAL, BARE, CLASSES, HERBACEOUS, PLOWED, VINEYARD, Landscape, Scene
from pipeline.demo.noise import fractal, uniform
from pipeline.demo.orthoimage import photograph
from pipeline.grid import Window

SEED = 2022
WHOLE = Window(ORIGIN[0] + 600, ORIGIN[1] + 700, 300, 340)
CROPS = {AGRICULTURAL, BARE, HERBACEOUS, PLOWED, VINEYARD}


@pytest.fixture(scope="module")
def whole() -> Scene:
    return Landscape(SEED, 2021).scene(WHOLE)


@pytest.fixture(scope="module")
def sampled() -> list[tuple[Scene, Scene]]:
    """Both vintages at 30 places spread over the demo's country."""
    windows = [
        Window(ORIGIN[0] + 100 + 480 * r, ORIGIN[1] + 150 + 950 * c, 200, 200) for r in range(6) for c in range(5)
    ]
    return [(Landscape(SEED, 2021).scene(w), Landscape(SEED, 2024).scene(w)) for w in windows]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 250), st.integers(0, 290), st.integers(1, 50), st.integers(1, 50))
def test_any_window_equals_its_part_of_the_whole(whole: Scene, row: int, col: int, height: int, width: int) -> None:
    window = Window(WHOLE.row + row, WHOLE.col + col, height, width)
    part = Landscape(SEED, 2021).scene(window)
    inside = window.slices_in(WHOLE)
    np.testing.assert_array_equal(part.truth, whole.truth[inside])
    for name in ("ground", "height", "tint"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[inside], atol=1e-4, err_msg=name)


def test_images_of_parts_join_without_a_seam() -> None:
    country, radiometry = Landscape(SEED, 2021), VINTAGES[0].radiometry
    _, together = photograph(country, Window(WHOLE.row, WHOLE.col, 100, 160), radiometry=radiometry)
    halves = [photograph(country, Window(WHOLE.row, WHOLE.col + c, 100, 80), radiometry=radiometry)[1] for c in (0, 80)]
    # Floating-point sums may round differently.
    assert np.abs(np.concatenate(halves, axis=2).astype(int) - together).max() <= 1


def test_every_class_covers_between_one_and_fifty_percent(sampled: list[tuple[Scene, Scene]]) -> None:
    counts = np.bincount(np.concatenate([s.truth.ravel() for pair in sampled for s in pair]), minlength=13)
    shares = counts / counts.sum()
    assert counts[0] == 0
    assert all(0.01 < shares[v] < 0.5 for v in CLASSES), shares


def test_the_truth_is_constant_over_two_by_two_pixels(whole: Scene) -> None:
    t = whole.truth
    assert all(np.array_equal(t[::2, ::2], t[dy::2, dx::2]) for dy in (0, 1) for dx in (0, 1))


def test_heights_are_in_the_range_of_their_class(sampled: list[tuple[Scene, Scene]]) -> None:
    truth = np.concatenate([s.truth.ravel() for s, _ in sampled])
    height = np.concatenate([s.height.ravel() for s, _ in sampled])
    bounds = {1: (3, 15), 6: (4, 25), 7: (4, 25), 8: (0.5, 2), 9: (0, 1.5)}
    for value in CLASSES:
        low, high = bounds.get(value, (0, 0))
        of_class = height[truth == value]
        assert of_class.min() >= low, value
        assert of_class.max() <= high, value
    assert 0.2 < (height[truth == 9] > 0).mean() < 0.6


def test_only_crops_change_from_one_vintage_to_the_next(sampled: list[tuple[Scene, Scene]]) -> None:
    before = np.concatenate([a.truth.ravel() for a, _ in sampled])
    after = np.concatenate([b.truth.ravel() for _, b in sampled])
    changed = before != after
    assert 0.03 < changed.mean() < 0.3
    # Lone trees stand only in grass, so they vanish with it.
    assert set(np.unique(before[changed])) | set(np.unique(after[changed])) <= CROPS | {7}


def test_another_seed_gives_another_landscape(whole: Scene) -> None:
    other = Landscape(SEED + 1, 2021).scene(WHOLE)
    assert (other.truth != whole.truth).mean() > 0.4


def test_the_two_vintages_look_different_on_the_same_ground() -> None:
    window = Window(WHOLE.row, WHOLE.col, 120, 120)
    country = Landscape(SEED, 2021)
    west, east = (photograph(country, window, radiometry=v.radiometry)[1].astype(int) for v in VINTAGES)
    assert np.abs(west - east).mean() > 8
    assert min(west.min(), east.min()) >= 1
    assert max(west.max(), east.max()) <= 254


def test_noise_is_uniform_and_depends_only_on_the_place() -> None:
    i, j = np.arange(-150, 150)[:, None], np.arange(-150, 150)
    drawn = uniform(i, j, seed=3)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(np.histogram(drawn, 10, (0, 1))[0] / drawn.size, 0.1, atol=0.006)
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.02
    ys, xs = np.arange(-40, 40) * 0.2, np.arange(7, 60) * 0.2
    field = fractal(ys, xs, cell=3.0, octaves=3, seed=5)
    np.testing.assert_allclose(fractal(ys[30:50], xs[9:11], cell=3.0, octaves=3, seed=5), field[30:50, 9:11], atol=1e-6)
