"""Class maps are found where they lie, each with its own CRS."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ProductError
from pipeline.geobox import lattice_geobox
from pipeline.grid import Window
from pipeline.products.assessment.class_maps import find_maps
from pipeline.products.national.grid import NationalGrid
from tests.support.nations import write_nation
from tests.support.products import sealed_at, stack_of, tile_at


@pytest.mark.parametrize("crs", ["EPSG:2154", "EPSG:2975"])
def test_a_nations_tiles_lie_on_its_own_lattice(tmp_path: Path, crs: str) -> None:
    grid = NationalGrid(Window(-38_350_000, 1_550_000, 200, 400), tile=200, shard=200, chunk=100, crs=crs)
    classes = np.tile(stack_of(1)[0], (1, 2))
    write_nation(tmp_path, grid, classes)
    west, east = find_maps(tmp_path)
    np.testing.assert_array_equal(east.read(east.window), classes[:, 200:])
    assert east.geobox[east.window.slices] == lattice_geobox(Window(-38_350_000, 1_550_200, 200, 200), crs)
    assert west.geobox == east.geobox


def test_a_tiles_cog_is_a_map_with_its_domain_and_place(tmp_path: Path) -> None:
    sealed_at(tmp_path, tile_at(1, 2), seed=4)
    (found,) = find_maps(tmp_path)
    assert found.domain == "D064_2021"
    assert found.geobox == lattice_geobox(tile_at(1, 2).window, "EPSG:2154")
    part = Window(20, 30, 40, 50)
    np.testing.assert_array_equal(found.read(part), stack_of(4)[0][part.slices])


def test_a_folder_without_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProductError, match="no class maps there"):
        find_maps(tmp_path)
