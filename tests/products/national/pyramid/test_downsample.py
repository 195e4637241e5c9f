"""Coarser levels: class by mode, confidence by mean, counts exact, each as loops over level 0 find them."""

from collections import Counter
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.products.national.pyramid.downsample import CLASSES, CellCounts, count_cells

Map = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def mode_of(classes: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return count_cells(classes, classes, factor=side).mode


def mean_of(confidence: NDArray[np.uint8], classes: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return count_cells(classes, confidence, factor=side).mean


@st.composite
def class_maps(draw: st.DrawFn, *, side: int) -> Map:
    """A few cells of few classes, so that ties are common; no data inside, and where the delivery ends."""
    height, width = (side * draw(st.integers(1, 3)) for _ in range(2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = draw(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=4))
    classes = rng.choice(np.array(values, np.uint8), (height, width))
    # The delivery's edge runs anywhere, also through cells, and may leave whole cells without data.
    rows, cols = draw(st.integers(0, height)), draw(st.integers(0, width))
    classes[height - rows :], classes[:, : cols // 2] = 0, 0
    confidence = rng.integers(1, 256, classes.shape, np.uint8)
    confidence[classes == 0] = 0
    return classes, confidence


def cells(array: NDArray[Any], side: int) -> Any:
    for row in range(0, array.shape[0], side):
        for col in range(0, array.shape[1], side):
            yield (
                (row // side, col // side),
                [int(array[y, x]) for y in range(row, row + side) for x in range(col, col + side)],
            )


def brute(classes: NDArray[np.uint8], confidence: NDArray[np.uint8], side: int) -> tuple[Any, Any, Any]:
    shape = (classes.shape[0] // side, classes.shape[1] // side)
    mode, mean, counts = np.zeros(shape, int), np.zeros(shape, int), np.zeros((CLASSES, *shape), int)
    sure = dict(cells(confidence, side))
    for at, here in cells(classes, side):
        number = Counter(here)
        for value, times in number.items():
            counts[value, *at] = times
        votes = {value: times for value, times in number.items() if value}
        if votes:
            most = max(votes.values())
            mode[at] = min(value for value, times in votes.items() if times == most)
            given = [c for c, value in zip(sure[at], here, strict=True) if value]
            mean[at] = floor(Fraction(sum(given), len(given)) + Fraction(1, 2))
    return mode, mean, counts


@given(st.integers(1, 7).flatmap(lambda side: st.tuples(st.just(side), class_maps(side=side))))
def test_mode_mean_and_counts_are_what_loops_find(drawn: tuple[int, Map]) -> None:
    side, (classes, confidence) = drawn
    mode, mean, counts = brute(classes, confidence, side)
    np.testing.assert_array_equal(mode_of(classes, side), mode)
    np.testing.assert_array_equal(mean_of(confidence, classes, side), mean)
    np.testing.assert_array_equal(count_cells(classes, classes, factor=side).dense, counts)
    assert mode_of(classes, side).dtype == mean_of(confidence, classes, side).dtype == np.uint8
    assert (counts.sum(axis=0) == side**2).all()


@given(class_maps(side=20))
def test_coarser_cells_by_way_of_finer_ones_are_those_of_level_0(drawn: Map) -> None:
    classes, confidence = drawn
    coarse = count_cells(classes, confidence, factor=5).coarser(2).coarser(2)
    mode, mean, counts = brute(classes, confidence, 20)
    np.testing.assert_array_equal(coarse.mode, mode)
    np.testing.assert_array_equal(coarse.mean, mean)
    np.testing.assert_array_equal(coarse.dense, counts)


def test_a_mode_of_modes_would_be_another_map() -> None:
    """Three blocks of 2:2 and one of 0:4: level 0 has ten pixels of class 7, and three modes are class 1."""
    classes = np.array([[1, 1, 1, 7], [7, 7, 1, 7], [1, 7, 7, 7], [7, 1, 7, 7]], np.uint8)
    assert mode_of(mode_of(classes, 2), 2) == 1
    assert mode_of(classes, 4) == 7


def test_one_pixel_with_data_decides_its_cell() -> None:
    classes, confidence = np.zeros((2, 50, 50), np.uint8)
    classes[49, 0], confidence[49, 0] = 12, 1
    assert mode_of(classes, 50) == 12
    assert mean_of(confidence, classes, 50) == 1
    assert count_cells(classes, classes, factor=50).dense[[0, 12], 0, 0].tolist() == [2499, 1]


def test_sums_over_the_largest_cells_hold() -> None:
    """A cell of 100 m: 250 000 pixels, all of the highest class and as sure as can be."""
    classes, confidence = np.full((500, 500), 19, np.uint8), np.full((500, 500), 255, np.uint8)
    coarse = count_cells(classes, confidence, factor=5)
    for factor in (2, 5, 5, 2):
        coarse = coarse.coarser(factor)
        assert (coarse.mean == 255).all()
        assert (coarse.mode == 19).all()
    assert coarse.dense[19] == 250_000
    assert mean_of(confidence, classes, 500) == 255


def test_a_confidence_of_0_on_data_is_not_made_no_data() -> None:
    classes = np.ones((2, 2), np.uint8)
    assert mean_of(np.zeros((2, 2), np.uint8), classes, 2) == 1


def test_what_is_no_class_map_is_refused() -> None:
    with pytest.raises(ValueError, match="value 20 is not a class"):
        mode_of(np.full((5, 5), 20, np.uint8), 5)
    with pytest.raises(ValueError, match="are not whole cells of 5 px"):
        count_cells(np.ones((5, 6), np.uint8), np.ones((5, 6), np.uint8), factor=5)


def test_nothing_at_all_is_no_data() -> None:
    empty = count_cells(np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8), factor=5)
    assert isinstance(empty, CellCounts)
    assert not empty.mode.any()
    assert not empty.mean.any()
