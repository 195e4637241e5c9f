"""The generalised map has one answer: that of a plain algorithm on the whole map, whatever parts it is made of."""

import random
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from pipeline.errors import ProductError
from pipeline.grid import Window
from pipeline.products.national.generalised.merging import OpenEdges, generalise
from pipeline.products.national.generalised.patches import find_patches
from pipeline.products.national.generalised.settling import settle
from tests.support.plain_generalise import by_graph, by_pixels

Classes = NDArray[np.uint8]
OCSGE = np.array([0, 5_000, *[12_500] * 18])
FIFTH = OCSGE // 5


def units_of(pixels: list[int]) -> NDArray[np.int64]:
    return np.array([0, *pixels, *[0] * (19 - len(pixels))])


MAPS = npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 4))
UNITS = st.lists(st.integers(0, 9), min_size=4, max_size=4).map(units_of)


@given(classes=MAPS, units=UNITS)
def test_a_random_map_is_that_of_the_plain_algorithms(classes: Classes, units: NDArray[np.int64]) -> None:
    merged = generalise(classes, units, OpenEdges())
    expected = by_pixels(classes, units)
    np.testing.assert_array_equal(merged.classes, expected)
    np.testing.assert_array_equal(by_graph(classes, units), expected)
    assert merged.settled.all()
    np.testing.assert_array_equal(merged.classes == 0, classes == 0)


@given(classes=MAPS, units=UNITS, data=st.data())
def test_what_a_window_settles_is_so_in_the_whole_map(
    classes: Classes, units: NDArray[np.int64], data: st.DataObject
) -> None:
    whole = by_pixels(classes, units)
    (top, bottom), (left, right) = (
        sorted(data.draw(st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True))) for side in classes.shape
    )
    edges = OpenEdges(top > 0, left > 0, bottom < classes.shape[0], right < classes.shape[1])
    part = generalise(classes[top:bottom, left:right], units, edges)
    np.testing.assert_array_equal(part.classes[part.settled], whole[top:bottom, left:right][part.settled])


def in_blocks(classes: Classes, units: NDArray[np.int64], side: int, *, seed: int = 0) -> tuple[Classes, int]:
    """The map made block by block in any order, and the pixels of the largest window that was read."""
    extent, made, largest = Window(0, 0, *classes.shape), np.zeros_like(classes), 0

    def read(window: Window) -> Classes:
        nonlocal largest
        largest = max(largest, window.pixels)
        return classes[window.slices]

    blocks = list(extent.split(side))
    random.Random(seed).shuffle(blocks)
    for block in blocks:
        made[block.slices] = settle(read, block, extent=extent, units=units).classes
    return made, largest


@given(classes=MAPS, units=UNITS, side=st.integers(1, 5), seed=st.integers(0, 9))
def test_blocks_of_any_size_in_any_order_give_one_map(
    classes: Classes, units: NDArray[np.int64], side: int, seed: int
) -> None:
    np.testing.assert_array_equal(in_blocks(classes, units, side, seed=seed)[0], by_pixels(classes, units))


def test_ties_nodata_and_chains_by_hand() -> None:
    units = units_of([4, 4, 4, 4, 9])
    tie = np.array([[2, 2, 1, 3, 3], [2, 2, 1, 3, 3], [0, 0, 0, 0, 0], [0, 5, 0, 5, 4]], np.uint8)
    # The lower of two classes with equal borders; only nodata around; the smallest first, then what it became.
    np.testing.assert_array_equal(
        generalise(tie, units, OpenEdges()).classes,
        [[2, 2, 2, 3, 3], [2, 2, 2, 3, 3], [0, 0, 0, 0, 0], [0, 5, 0, 4, 4]],
    )
    chain = np.array([[1, 2, 2, 1, 1, 1, 2, 2, 2, 2]], np.uint8)
    # 1 px → class 2, 3 px; these come before the other 3 px, by their place → class 1, 6 px; nothing is small now.
    np.testing.assert_array_equal(generalise(chain, units, OpenEdges()).classes, [[1, 1, 1, 1, 1, 1, 2, 2, 2, 2]])


@pytest.fixture(scope="module")
def predicted(shared_data: Path) -> tuple[Classes, Classes]:
    """A part of a real map, and its generalised map by the plain algorithm, with units of a fifth of the preset's."""
    with rasterio.open(shared_data / "flair_predictions" / "pred13_D012_2019_Z3_UU.tif") as file:
        classes = np.asarray(file.read(1)[2_000:3_600, 2_000:3_400] + 1, np.uint8)
    return classes, by_graph(classes, FIFTH)


@pytest.mark.slow
@pytest.mark.parametrize("side", [200, 256, 1_000])
def test_real_predictions_are_the_same_for_every_size_of_blocks(predicted: tuple[Classes, Classes], side: int) -> None:
    classes, expected = predicted
    made, largest = in_blocks(classes, FIFTH, side, seed=side)
    np.testing.assert_array_equal(made, expected)
    assert largest <= (side + 2 * 460) ** 2
    patches = find_patches(made)
    assert (patches.areas >= FIFTH[patches.classes]).all()


def test_single_predictions_are_those_of_the_plain_algorithm(shared_data: Path) -> None:
    paths = sorted((shared_data / "flair_predictions").glob("PRED_*.tif"))
    assert len(paths) == 3
    for path in paths:
        with rasterio.open(path) as file:
            classes = np.asarray(file.read(1) + 1, np.uint8)
        np.testing.assert_array_equal(generalise(classes, OCSGE, OpenEdges()).classes, by_graph(classes, OCSGE))


def test_a_chain_without_end_is_refused_instead_of_filling_the_memory() -> None:
    # Patches of 1, 2, 3, … pixels in a row: each waits for the one before.
    classes = np.repeat(np.arange(1, 200) % 2 + 1, np.arange(1, 200)).astype(np.uint8)[None]
    units = units_of([400, 400])
    extent = Window(0, 0, *classes.shape)
    last = Window(0, classes.size - 300, 1, 10)
    with pytest.raises(ProductError, match=r"depend on ground that is more than .* m away"):
        settle(lambda w: classes[w.slices], last, extent=extent, units=units)
