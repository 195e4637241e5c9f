"""The lattice, tile names and windows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, GridError
from pipeline.grid import Layout, Tile, Window, union

small = st.integers(-200, 200)
windows = st.builds(Window, small, small, st.integers(1, 90), st.integers(1, 90))


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    core, halo, stride = draw(st.integers(1, 40)), draw(st.integers(0, 20)), draw(st.sampled_from([1, 2, 4, 8, 32]))
    smallest = next(
        w for w in range(stride, 1000, stride) if all(w >= (s - halo) % stride + 2 * halo + core for s in range(stride))
    )
    return Layout(core=core, halo=halo, window=smallest + draw(st.integers(0, 2)) * stride, stride=stride)


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


@given(windows, layouts())
def test_cores_cover_the_domain_exactly_once(domain: Window, layout: Layout) -> None:
    seen = np.zeros(domain.shape, int)
    for block in domain.split(3 * layout.core):
        for core, _ in layout.windows_of(block):
            seen[core.slices_in(domain)] += 1
    assert (seen == 1).all()


@given(windows, layouts())
def test_every_read_is_aligned_and_contains_its_halo(block: Window, layout: Layout) -> None:
    for core, read in layout.windows_of(block):
        assert read.row % layout.stride == read.col % layout.stride == 0
        assert read.height % layout.stride == read.width % layout.stride == 0
        assert read.contains(core.grow(layout.halo))
        assert max(read.shape) <= layout.window


@given(layouts())
def test_the_smallest_window_contains_core_and_halo_at_any_start(layout: Layout) -> None:
    starts = range(0, layout.core * layout.stride, layout.core)
    needed = max((s - layout.halo) % layout.stride + 2 * layout.halo + layout.core for s in starts)
    assert layout.smallest_window == math.ceil(needed / layout.stride) * layout.stride


def test_the_default_layout() -> None:
    layout = Layout()
    assert (layout.core, layout.halo, layout.window, layout.stride) == (2500, 160, 2848, 32)
    assert layout.smallest_window == 2848
    assert layout.overlap_factor <= 1.3
    assert Layout(core=5000, window=5376).smallest_window <= 5376


def test_a_window_off_the_stride_is_refused_with_the_next_multiples() -> None:
    with pytest.raises(ConfigError, match="2848 or 2880"):
        Layout(window=2850)


def test_a_window_too_small_for_core_and_halo_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"core 2500 .* halo 200: .* needs 2944 px"):
        Layout(halo=200)


def test_sizes_that_do_not_divide_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"core 2500, block 5001, tile 25000"):
        Layout().check_block(5001, 25_000)


@given(st.integers(1, 40), st.integers(0, 300))
def test_a_layout_for_a_window_has_the_largest_core(strides: int, halo: int) -> None:
    window = 32 * strides
    if window - 2 * math.ceil(halo / 32) * 32 < 32:
        with pytest.raises(ConfigError, match="no core"):
            Layout.for_window(window, halo)
        return
    layout = Layout.for_window(window, halo)
    assert layout.core % 32 == 0
    with pytest.raises(ConfigError):
        Layout(core=layout.core + 32, halo=halo, window=window)


@given(layouts(), windows)
def test_the_read_of_a_block_is_the_union_of_its_windows(layout: Layout, block: Window) -> None:
    assert layout.read_of_block(block) == union([read for _, read in layout.windows_of(block)])


@given(st.integers(1, 40), st.integers(0, 20), st.sampled_from([1, 2, 4, 8, 32]))
def test_a_layout_for_a_core_has_the_smallest_window(core: int, halo: int, stride: int) -> None:
    layout = Layout.for_core(core, halo, stride)
    assert (layout.core, layout.halo, layout.window) == (core, halo, layout.smallest_window)
    with pytest.raises(ConfigError):
        Layout(core, halo, layout.window - stride, stride)
