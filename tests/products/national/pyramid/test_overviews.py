"""Levels 5 to 7: exact, in few files, linked tile by tile, and absent in products of former versions."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.errors import ProductError
from pipeline.grid import Window
from pipeline.products.analysis.open_product import open_product
from pipeline.products.manifest import SIZES, SUMS
from pipeline.products.national.edition_record import Edition, current_edition
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.publish_plan import Target
from pipeline.products.national.pyramid.downsample import count_cells
from pipeline.products.national.pyramid.overviews import write_overviews
from pipeline.products.national.pyramid.store import begin_pyramid, check_pyramid
from tests.support.nations import write_nation
from tests.support.products import NORTH, WEST

TILE = 1_250
GRID = NationalGrid(Window(NORTH, WEST, 2 * TILE, 3 * TILE), tile=TILE, shard=TILE, chunk=250)


@pytest.fixture
def national(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    patches = rng.integers(0, 13, (GRID.extent.height // 50, GRID.extent.width // 50), np.uint8)
    write_nation(tmp_path / "national", GRID, patches.repeat(50, 0).repeat(50, 1))
    return tmp_path / "national"


def edition_of(national: Path) -> Edition:
    edition = current_edition(national)
    assert edition is not None
    return edition


def test_a_coarsest_level_is_counted_from_level_0(national: Path) -> None:
    level_0, level = open_product(national), open_product(national, level=5)
    counted = count_cells(level_0.landcover.values, level_0.confidence.values, factor=TILE)
    np.testing.assert_array_equal(level.landcover.values, counted.mode)
    np.testing.assert_array_equal(level.confidence.values, counted.mean)
    assert counted.mode.any()
    assert level.landcover.rio.crs.to_epsg() == 2154
    assert [p.name for p in (national / "current/pyramid.zarr/5/landcover/c").rglob("*") if p.is_file()] == ["0"]


def test_tiles_that_did_not_change_keep_their_cells(national: Path, tmp_path: Path) -> None:
    former, new = edition_of(national), tmp_path / "new"
    target = Target(new / "product.zarr", GRID, former.store)
    tiles = [(0, 0), (0, 1), (1, 2)]
    (new / "product.zarr").mkdir(parents=True)
    assert begin_pyramid(target, former=former.path, tiles=tiles, changed=[(0, 1)]) == ((0, 1),)
    cells = {f"5/{layer}": np.full((1, 1), 7, np.uint8) for layer in ("landcover", "confidence")}
    write_overviews(target, {(0, 1): cells}, former=former.path, tiles=tiles)
    before = open_product(national, level=5).landcover.values
    now = np.asarray(zarr.open_array(new / "pyramid.zarr/5/landcover", mode="r")[:])
    assert now.tolist() == [[before[0, 0], 7, 0], [0, 0, before[1, 2]]]


def test_a_lost_file_of_a_coarsest_level_is_an_error(national: Path) -> None:
    (national / "current/pyramid.zarr/5/confidence/c/0/0").unlink()
    with pytest.raises(ProductError, match="5/confidence/c/0/0: shard is lost"):
        open_product(national, level=1)


def test_a_damaged_file_of_a_coarsest_level_has_all_tiles_counted_again(national: Path, tmp_path: Path) -> None:
    former = edition_of(national)
    target = Target(tmp_path / "new" / "product.zarr", GRID, former.store)
    target.store.mkdir(parents=True)
    damaged = ["pyramid.zarr/5/landcover/c/0/0"]
    left = begin_pyramid(target, former=former.path, tiles=[(0, 0), (1, 1)], changed=[], damaged=damaged)
    assert left == ((0, 0), (1, 1))


def test_a_product_of_a_version_without_these_levels_opens(national: Path) -> None:
    edition = edition_of(national)
    pyramid = edition.path / "pyramid.zarr"
    root = json.loads((pyramid / "zarr.json").read_bytes())
    root["attributes"]["pyramid_version"] = 1
    held = root["consolidated_metadata"]["metadata"]
    root["consolidated_metadata"]["metadata"] = {k: v for k, v in held.items() if not k.startswith("5")}
    (pyramid / "zarr.json").write_text(json.dumps(root))
    for path in sorted((pyramid / "5").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (pyramid / "5").rmdir()
    assert not any((edition.path / name).exists() for name in (SUMS, SIZES))
    assert check_pyramid(edition) == []
    assert open_product(national, level=4).landcover.values.any()
    with pytest.raises(ProductError, match="has no level 5"):
        open_product(national, level=5)
