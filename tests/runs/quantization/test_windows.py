"""Windows are drawn over domains, tiles and classes; none is in both sets; the seed decides all."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.grid import Window
from pipeline.runs.quantization.agreement import agree
from pipeline.runs.quantization.windows import SampledWindow, aligned_windows, split
from pipeline.sources.reading.raster import Pixels

_NOTHING = Pixels(np.zeros((1, 4, 4), np.uint8), np.ones((4, 4), bool))


def window(domain: str, tile: str, number: int, *classes: int) -> SampledWindow:
    return SampledWindow(domain, tile, Window(number * 4, 0, 4, 4), _NOTHING, np.resize(np.uint8(classes), (4, 4)))


@given(
    row=st.integers(-40_000, 40_000), col=st.integers(-40_000, 40_000), size=st.integers(1, 900), side=st.integers(1, 8)
)
def test_windows_of_a_tile_are_aligned_inside_it_and_apart(row: int, col: int, size: int, side: int) -> None:
    tile, side, rng = Window(row, col, size, size), side * 32, np.random.default_rng(0)
    windows = list(aligned_windows(tile, side, 32, rng=rng))
    seen = np.zeros(tile.shape, int)
    for w in windows:
        assert tile.contains(w)
        assert w.shape == (side, side)
        assert w.row % 32 == w.col % 32 == 0
        seen[w.slices_in(tile)] += 1
    assert seen.max() <= 1
    if size >= side + 31:
        assert windows


def test_both_sets_have_their_share_of_every_domain_and_tile() -> None:
    pool = [window(d, t, 10 * k + i, 7) for d in "AB" for k, t in enumerate("xyz") for i in range(6)]
    found = split(pool, 6)
    for part in (found.quantization, found.held_out):
        assert Counter((s.domain, s.tile) for s in part) == {(d, t): 1 for d in "AB" for t in "xyz"}
    assert not {s.name for s in found.quantization} & {s.name for s in found.held_out}


def test_a_rare_class_gets_into_both_sets_however_late_it_was_drawn() -> None:
    pool = [window("A", "x", i, 7, 7, 10) for i in range(40)] + [window("A", "x", 40 + i, 7, 7, 3) for i in range(2)]
    found = split(pool, 3)
    for part in (found.quantization, found.held_out):
        assert sum((s.classes == 3).any() for s in part) == 1


def test_agreement_counts_valid_pixels_by_class_and_by_window() -> None:
    reference = [np.uint8([[1, 1, 2, 0]]), np.uint8([[2, 2, 2, 2]])]
    other = [np.uint8([[1, 2, 2, 5]]), np.uint8([[2, 2, 1, 2]])]
    agreement = agree(reference, other)
    assert agreement.overall == pytest.approx(5 / 7)
    assert agreement.by_class == pytest.approx({1: 1 / 2, 2: 4 / 5})
    assert agreement.by_window == pytest.approx((2 / 3, 3 / 4))
    assert agreement.worst == [0, 1]
    assert agreement.confusion[2, 1] == 1
    with pytest.raises(ConfigError, match="none of the 1 windows has a valid pixel"):
        agree([np.zeros((2, 2), np.uint8)], [np.ones((2, 2), np.uint8)])
