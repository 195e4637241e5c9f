"""The lattice, tile names and windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import GridError
from pipeline.grid import Tile, Window, union

small = st.integers(-200, 200)
windows = st.builds(Window, small, small, st.integers(1, 90), st.integers(1, 90))


def test_the_name_of_a_tile_is_its_north_west_corner() -> None:
    tile = Tile.named("0595-6890", 25_000)
    assert tile.window.bounds == (595_000.0, 6_885_000.0, 600_000.0, 6_890_000.0)


@given(st.sampled_from([50, 500, 1000, 5000, 25_000]), st.integers(100, 900), st.integers(100, 900))
def test_a_tile_follows_from_its_name(size: int, i: int, j: int) -> None:
    tile = Tile.at(-i * max(size, 5000), j * max(size, 5000), size)
    assert Tile.named(tile.name, size) == tile


@pytest.mark.parametrize("name", ["0595_6890", "595-6890", "05950-68900", "", "0595-6890-", "０595-6890"])
def test_an_invalid_tile_name_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(GridError, match="0595-6890"):
        Tile.named(name, 25_000)


def test_a_tile_off_its_naming_unit_is_refused() -> None:
    with pytest.raises(GridError, match="multiple"):
        Tile.at(-5001, 0, 5000)


@given(windows)
def test_bounds_and_window_convert_into_each_other(window: Window) -> None:
    assert Window.from_bounds(window.bounds) == window
    a, _, c, _, e, f = window.transform
    assert (c + a * window.width, f + e * window.height) == pytest.approx(window.bounds[2:0:-1])


def test_bounds_off_the_lattice_are_refused_with_the_distance() -> None:
    with pytest.raises(GridError, match=r"0\.1000 m off"):
        Window.from_bounds((0.1, 0.0, 1.0, 1.0))


@given(windows, windows)
def test_intersection_and_union_agree_with_sets_of_pixels(a: Window, b: Window) -> None:
    def pixels(w: Window) -> set[tuple[int, int]]:
        return {(r, c) for r in range(w.row, w.bottom) for c in range(w.col, w.right)}

    both = pixels(a) & pixels(b)
    assert pixels(a.intersect(b)) == both
    assert pixels(union([a, b])) >= pixels(a) | pixels(b)
    assert a.contains(b) == (pixels(a) >= pixels(b))


@given(windows, st.integers(1, 9))
def test_strips_cover_a_window_once_from_the_north(window: Window, rows: int) -> None:
    strips = list(window.strips(rows))
    assert union(strips) == window
    assert sum(s.pixels for s in strips) == window.pixels
    assert strips == sorted(strips)
    array = np.arange(400).reshape(20, 20)
    inner = Window(3, 4, 5, 6)
    np.testing.assert_array_equal(array[inner.slices], array[3:8, 4:10])
    np.testing.assert_array_equal(array[inner.slices], array[inner.slices_in(Window(0, 0, 20, 20))])
