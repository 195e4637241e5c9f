"""A small picture of an edition is what its cells say, wherever it is cut and however small it is."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ProductError
from pipeline.grid import Window
from pipeline.legend import LAYERS, Layer
from pipeline.products.analysis.open_product import open_product
from pipeline.products.gis import overviews
from pipeline.products.gis.overviews import edition_overview
from pipeline.products.national.grid import NationalGrid
from tests.support.nations import write_nation
from tests.support.products import NORTH, WEST

TILE = 500
GRID = NationalGrid(Window(NORTH, WEST, 2 * TILE, 3 * TILE), tile=TILE, shard=TILE, chunk=100)


@pytest.fixture(scope="module")
def national(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patches of classes of 8 px, and a corner without data."""
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 13, (125, 188), np.uint8).repeat(8, 0).repeat(8, 1)[: 2 * TILE, : 3 * TILE]
    classes[:600, 1100:] = 0
    folder = tmp_path_factory.mktemp("national")
    write_nation(folder, GRID, classes)
    return folder


def plainly(cells: NDArray[np.uint8], step: int, layer: Layer) -> NDArray[np.uint8]:
    """A loop over the picture: the most frequent class, the lowest of several; the mean confidence, halves up."""
    height, width = (-(-length // step) for length in cells.shape)
    picture = np.zeros((height, width), np.uint8)
    for row, col in np.ndindex(height, width):
        here = cells[row * step : (row + 1) * step, col * step : (col + 1) * step]
        if data := [int(v) for v in here.ravel() if v]:
            most = min(sorted(set(data)), key=lambda v: (-data.count(v), v))
            picture[row, col] = most if layer == "landcover" else int(sum(data) / len(data) + 0.5)
    return picture


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("side", "level", "step"), [(170, None, 3), (100, 1, 1), (45, 2, 2), (9, 3, 2), (1, 4, 2)])
def test_a_picture_is_counted_from_the_coarsest_level_that_is_fine_enough(
    layer: Layer, side: int, level: int | None, step: int, national: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overviews, "_AT_ONCE", 5000)
    within = Window(NORTH, WEST + 2 * TILE, TILE, TILE)
    cells = open_product(national, level=level)[layer].to_numpy()
    cells = cells[: cells.shape[0] // 2, cells.shape[1] // 3 * 2 :]
    seen = edition_overview(national / "current", GRID, layer, within=within, side=side)
    assert max(seen.shape) <= side
    np.testing.assert_array_equal(seen, plainly(cells, step, layer))


def test_a_picture_of_a_part_or_beyond_the_edge_has_the_same_pixels(national: Path) -> None:
    whole = edition_overview(national / "current", GRID, "landcover", within=GRID.extent, side=300)
    part = edition_overview(
        national / "current", GRID, "landcover", within=Window(NORTH + TILE, WEST, TILE, 2 * TILE), side=200
    )
    np.testing.assert_array_equal(part, whole[100:, :200])
    beyond = Window(NORTH - TILE, WEST - TILE, 4 * TILE, 5 * TILE)
    more = edition_overview(national / "current", GRID, "landcover", within=beyond, side=500)
    np.testing.assert_array_equal(more[100:300, 100:400], whole)
    assert more.astype(int).sum() == whole.astype(int).sum()


def test_a_level_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "pyramid.zarr").mkdir()
    with pytest.raises(ProductError, match=r"pyramid\.zarr/3/landcover: cannot be read; run `landcover verify`"):
        edition_overview(tmp_path, GRID, "landcover", within=GRID.extent, side=30)
