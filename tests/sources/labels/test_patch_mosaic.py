"""Labelled patches that touch become one raster; others stay alone."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from pipeline.grid import Window
from pipeline.sources.labels.patch_mosaic import mosaic_patches
from pipeline.sources.labels.patches import Patch, find_patches, write_patch

SIDE = 32
BANDS = ("red", "green", "blue")
IMAGE = np.random.default_rng(0).integers(0, 256, (3, 4 * SIDE, 4 * SIDE), np.uint8)


def patch_at(
    root: Path,
    row: int,
    col: int,
    *,
    number: int,
    zone: str = "Z1_NN",
    shift: tuple[float, float] = (0, 0),
    turn: float = 0,
    step: float = 0.2,
) -> Patch:
    """The part of IMAGE whose corner is at this pixel, moved by metres."""
    to_map = Affine.translation(700_000 + shift[0], 6_600_000 - shift[1]) * Affine.scale(step, -step)
    to_map = to_map * Affine.rotation(turn) * Affine.translation(col, row)
    pixels: NDArray[np.uint8] = IMAGE[:, row : row + SIDE, col : col + SIDE]
    mask = np.ones((SIDE, SIDE), np.uint8)
    return write_patch(
        root, ("D004_2021", zone, number), pixels, mask, geobox=GeoBox((SIDE, SIDE), to_map, "EPSG:2154")
    )


def sizes(root: Path) -> list[int]:
    return sorted(len(m.patches) for m in mosaic_patches(find_patches([root]), bands=BANDS))


def test_patches_that_touch_are_read_as_one_image(tmp_path: Path) -> None:
    for number, (row, col) in enumerate([(0, 0), (0, SIDE), (SIDE, 0), (2 * SIDE, SIDE)]):
        patch_at(tmp_path, row, col, number=number)
    (mosaic,) = mosaic_patches(find_patches([tmp_path]), bands=BANDS)
    assert mosaic.window.shape == (3 * SIDE, 2 * SIDE), "the last touches at a corner"
    assert mosaic.window.row == -33_000_000
    covered = np.zeros(mosaic.window.shape, bool)
    for placed in mosaic.patches:
        covered[placed.window.slices_in(mosaic.window)] = True
    assert covered.sum() == 4 * SIDE**2
    part = Window(mosaic.window.row + 5, mosaic.window.col + 7, 80, 40)
    for source in (mosaic, mosaic.around(part)):
        pixels = source.read(part, within=part.grow(3))
        np.testing.assert_array_equal(pixels.valid[3:-3, 3:-3], covered[5:85, 7:47])
        np.testing.assert_array_equal(pixels.bands[:, 3:-3, 3:-3], IMAGE[:, 5:85, 7:47] * covered[5:85, 7:47])
        assert not pixels.valid[:3].any()


@pytest.mark.parametrize(
    "second",
    [
        {"col": 2 * SIDE},  # a gap
        {"col": SIDE, "zone": "Z2_NN"},
        {"col": SIDE, "shift": (0.1, 0)},  # half a pixel off its grid
        {"col": SIDE - 1},  # overlaps
        {"col": SIDE, "turn": 3.0},
        {"col": SIDE, "step": 0.4},
    ],
    ids=["gap", "zone", "phase", "overlap", "rotated", "resolution"],
)
def test_patches_that_cannot_be_one_image_stay_alone(tmp_path: Path, second: dict[str, object]) -> None:
    patch_at(tmp_path, 0, 0, number=1)
    patch_at(tmp_path, 0, number=2, **second)  # type: ignore[arg-type]
    assert sizes(tmp_path) == [1, 1]


def test_a_patch_that_overlaps_leaves_the_others_together(tmp_path: Path) -> None:
    for number, col in enumerate([0, SIDE, SIDE + 3, 2 * SIDE]):
        patch_at(tmp_path, 0, col, number=number)
    assert sizes(tmp_path) == [1, 1, 2]


def test_the_real_patches_have_no_neighbours(shared_data: Path) -> None:
    patches = find_patches([shared_data / "flair_patches"], metadata=shared_data / "flair_patches" / "metadata.json")
    mosaics = mosaic_patches(patches, bands=("red", "green", "blue", "nir", "elevation"))
    assert [len(m.patches) for m in mosaics] == [1] * 5
    assert all(m.read(m.window).valid.all() for m in mosaics)
