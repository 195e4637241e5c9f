"""Heights are compared with analytic surfaces: bilinear resampling does not change a plane."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.domain import Domain
from pipeline.grid import RESOLUTION_M, Window
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.elevation import height_units
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.reading.vrt import NODATA_M
from tests.support.deliveries import Surface, flat, hills, make_delivery, roofs, tile_at, write_relief

SIZE = 500
BANDS = ("red", "elevation")
TILE = tile_at(0, 0, SIZE)
LEFT, BOTTOM, RIGHT, TOP = TILE.window.bounds


def slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A plane so steep that half a pixel of 1 m is 1.3 units of height eastwards and 0.8 southwards."""
    return 100 + 0.5313 * (x - LEFT) - 0.3071 * (y - TOP)


def heights(surface: Surface, terrain: Surface, window: Window = TILE.window) -> NDArray[np.float64]:
    """The analytic difference at the centres of 0.20 m pixels, in units of 0.2 m, not rounded."""
    left, _, _, top = window.bounds
    x = left + (np.arange(window.width)[None, :] + 0.5) * RESOLUTION_M
    y = top - (np.arange(window.height)[:, None] + 0.5) * RESOLUTION_M
    return np.clip((surface(x, y) - terrain(x, y)) / 0.2, 0, 255)


INNER = (slice(5, -5), slice(5, -5))
"""Without the metre at the files' edges, where a neighbour for the interpolation is missing."""


def read(folder: Path, window: Window = TILE.window) -> NDArray[np.uint8]:
    index([folder], domain=Domain("D034_2021"), catalog=folder / "cat", tile_size=SIZE)
    return (
        Mosaic.of(read_domain(folder / "cat", Domain("D034_2021"), tile_size=SIZE), bands=BANDS).read(window).bands[1]
    )


def notes(folder: Path) -> list[str]:
    report = index([folder], domain=Domain("D034_2021"), catalog=folder / "cat", tile_size=SIZE)
    return [note for _, note in report.notes]


def assert_heights(found: NDArray[np.uint8], expected: NDArray[np.float64]) -> None:
    """Compares rounded heights, with a tolerance for heights between two units."""
    assert np.abs(found - expected).max() <= 0.5 + 1e-3


def test_units_are_rounded_and_clipped_and_unknown_heights_are_0() -> None:
    surface = np.array([[100.0, 101.0, 100.29, 99.0, 151.2, 1000.0, NODATA_M, 100.0, np.nan]], np.float32)
    terrain = np.array([[100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, NODATA_M, 100.0]], np.float32)
    units, known = height_units(surface, terrain, step_m=0.2)
    assert units.tolist() == [[0, 5, 1, 0, 255, 255, 0, 0, 0]]
    assert known.tolist() == [[True] * 6 + [False] * 3]


def test_the_half_pixel_shift_of_rge_alti_is_right_for_a_sloping_surface(tmp_path: Path) -> None:
    make_delivery(tmp_path, at=[(0, 0)], size=SIZE, terrain=None, surface=None)
    write_relief(tmp_path, "dsm", slope, corner=TILE.name, side_m=100)
    # RGE ALTI's neighbours to the north and west would cover the half pixel by which this file is shifted.
    write_relief(tmp_path, "dtm", flat(100), corner=TILE.name, side_m=101, step=1.0, as_rge_alti=True)
    assert_heights(read(tmp_path)[INNER], heights(slope, flat(100))[INNER])
    assert "dtm: 1 of 1 files have no CRS: Lambert-93 is used" in notes(tmp_path)
    assert any(
        n.startswith("dtm: 1 of 1 files lie half a pixel off the corner in their names") for n in notes(tmp_path)
    )


def test_the_half_pixel_shift_of_rge_alti_is_right_for_a_sloping_terrain(tmp_path: Path) -> None:
    make_delivery(tmp_path, at=[(0, 0)], size=SIZE, terrain=None, surface=None)
    write_relief(tmp_path, "dsm", flat(160), corner=TILE.name, side_m=100)
    write_relief(tmp_path, "dtm", slope, corner=TILE.name, side_m=101, step=1.0, as_rge_alti=True)
    found, expected = read(tmp_path), heights(flat(160), slope)
    assert_heights(found[INNER], expected[INNER])
    shifted = heights(flat(160), lambda x, y: slope(x + 0.5, y - 0.5))
    assert np.abs(shifted - expected)[INNER].max() > 1.9, "the test would see the shift"


def test_adjacent_files_leave_no_seam(tmp_path: Path) -> None:
    for folder, corners, side in (
        ("one", [TILE.name], 100.0),
        ("four", [tile_at(r, c, 250).name for r in (0, 1) for c in (0, 1)], 50.0),
    ):
        make_delivery(tmp_path / folder, at=[(0, 0)], size=SIZE, terrain=None, surface=None)
        for corner in corners:
            write_relief(tmp_path / folder, "dsm", roofs, corner=corner, side_m=side)
            write_relief(tmp_path / folder, "dtm", hills, corner=corner, side_m=side)
    np.testing.assert_array_equal(read(tmp_path / "one"), read(tmp_path / "four"))


def test_heights_of_a_curved_surface_are_within_a_unit(tmp_path: Path) -> None:
    make_delivery(tmp_path, at=[(0, 0), (0, 1)], size=SIZE)
    assert np.abs(read(tmp_path) - heights(roofs, hills))[INNER].max() < 1.0


@pytest.mark.parametrize("kind", ["dsm", "dtm"])
def test_a_hole_is_0_and_its_surroundings_keep_their_height(tmp_path: Path, kind: str) -> None:
    make_delivery(tmp_path, at=[(0, 0)], size=SIZE, terrain=None, surface=None)
    hole = (slice(40, 80), slice(60, 100))
    for each, level in (("dsm", 110.0), ("dtm", 100.0)):
        write_relief(tmp_path, each, flat(level), corner=TILE.name, side_m=100, hole=hole if each == kind else None)  # type: ignore[arg-type]
    found = read(tmp_path)
    assert not found[105:195, 155:245].any()
    found[95:205, 145:255] = 50
    assert (found == 50).all()


def test_the_finer_grid_has_priority_and_the_coarser_fills_its_holes(tmp_path: Path) -> None:
    make_delivery(tmp_path, at=[(0, 0)], size=SIZE, terrain=None, surface=flat(120))
    write_relief(tmp_path, "dtm", flat(100), corner=TILE.name, side_m=101, step=1.0, as_rge_alti=True)
    write_relief(tmp_path, "dtm", flat(110), corner=TILE.name, side_m=50, hole=(slice(20, 60), slice(20, 60)))
    found = read(tmp_path)
    assert set(np.unique(found)) == {50, 100}
    assert (found[:245, :40] == 50).all()
    assert (found[60:140, 60:140] == 100).all()
    assert (found[255:] == 100).all()


def test_a_part_without_elevation_is_0_and_is_noted(tmp_path: Path) -> None:
    make_delivery(tmp_path, at=[(0, 0)], size=SIZE, terrain=flat(100), surface=None)
    write_relief(tmp_path, "dsm", flat(110), corner=TILE.name, side_m=50)
    found = read(tmp_path)
    assert (found[:250, :250] == 50).all()
    assert not found[253:].any()
    assert any("files cover 25.00% of the tile" in n for n in notes(tmp_path))
