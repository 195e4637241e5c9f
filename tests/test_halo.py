"""Cores, halos and the windows that are read."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.grid import Window, union
from pipeline.halo import Layout

small = st.integers(-200, 200)
windows = st.builds(Window, small, small, st.integers(1, 90), st.integers(1, 90))


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    core, halo, stride = draw(st.integers(1, 40)), draw(st.integers(0, 20)), draw(st.sampled_from([1, 2, 4, 8, 32]))
    smallest = next(
        w for w in range(stride, 1000, stride) if all(w >= (s - halo) % stride + 2 * halo + core for s in range(stride))
    )
    return Layout(core=core, halo=halo, window=smallest + draw(st.integers(0, 2)) * stride, stride=stride)


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
