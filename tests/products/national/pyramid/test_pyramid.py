"""Levels and class shares: each pixel of them from level 0, found where every reader looks, and no lost file hidden."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pyproj
import pytest
import rasterio
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
import zarr_cm

from pipeline.domain import Domain
from pipeline.errors import ProductError
from pipeline.grid import Tile, Window
from pipeline.products.analysis.open_product import Level, open_product
from pipeline.products.national.edition_record import current_edition
from pipeline.products.national.edition_writer import begin, commit
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.publish_plan import DomainProduct, EditionPlan, plan_edition
from pipeline.products.national.pyramid.edition_root import write_root
from pipeline.products.national.pyramid.levels import FACTORS, groups
from pipeline.products.national.pyramid.overviews import write_overviews
from pipeline.products.national.pyramid.store import begin_pyramid, check_pyramid
from pipeline.products.national.pyramid.tile_writer import write_tile
from pipeline.products.national.shard_writer import write_shard
from tests.support.products import NORTH, WEST, product, sealed_at

TILE = 500
GRID = NationalGrid(Window(NORTH, WEST, 2 * TILE, 3 * TILE), tile=TILE, shard=250, chunk=50)
A = Domain("D064_2021")


def tile_at(row: int, col: int) -> Tile:
    return Tile.at(NORTH + row * TILE, WEST + col * TILE, TILE)


def publish(national: Path, domains: list[DomainProduct], grid: NationalGrid = GRID) -> tuple[EditionPlan, Any]:
    """Plan, begin, shards, levels, commit; returns the plan and the tiles whose levels were written."""
    plan = plan_edition(national, grid, domains)
    begin(plan)
    facts = [write_shard(plan.target, shard) for shard in plan.write]
    changed = plan.grid.tiles_of(s.index for s in plan.write)
    left = begin_pyramid(plan.target, former=plan.former, tiles=plan.grid.tiles_of(plan.digests), changed=changed)
    cells = {tile: write_tile(plan.target, tile) for tile in left}
    write_overviews(plan.target, cells, former=plan.former, tiles=plan.grid.tiles_of(plan.digests))
    write_root(plan.target.store, plan.grid)
    commit(plan, facts)
    return plan, left


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> DomainProduct:
    """Two tiles in a row, and one that is missing."""
    tiles = {tile_at(0, 0): 1, tile_at(0, 1): 2, tile_at(1, 2): None}
    return product(tmp_path_factory.mktemp("domain"), A, tiles)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, domain: DomainProduct) -> Path:
    """To read only."""
    national = tmp_path_factory.mktemp("published") / "national"
    publish(national, [domain])
    return national


@pytest.fixture
def national(tmp_path: Path, published: Path) -> Path:
    """To remove files of."""
    return Path(shutil.copytree(published, tmp_path / "national", symlinks=True, copy_function=os.link))


def counted(national: Path, side: int) -> tuple[Any, Any, Any]:
    """Mode, mean and counts of level 0, cell by cell: the plainest way."""
    level_0 = open_product(national)
    classes, confidence = level_0.landcover.values, level_0.confidence.values
    shape = (classes.shape[0] // side, classes.shape[1] // side)
    mode, mean, counts = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), np.zeros((20, *shape), int)
    for row, col in np.ndindex(*shape):
        here = (slice(row * side, (row + 1) * side), slice(col * side, (col + 1) * side))
        counts[:, row, col] = number = np.bincount(classes[here].ravel(), minlength=20)
        if data := int(number[1:].sum()):
            mode[row, col] = 1 + number[1:].argmax()
            mean[row, col] = int(confidence[here].sum()) / data + 0.5
    return mode, mean, counts


def pyramid(national: Path) -> Path:
    return national / "current" / "pyramid.zarr"


def inodes(folder: Path) -> dict[str, int]:
    """Of every tile's file."""
    found = [p for pattern in ("[1-4]/*/c/*/*", "shares/count/c/*/*/*") for p in folder.glob(pattern)]
    return {str(p.relative_to(folder)): p.stat().st_ino for p in found}


def test_each_level_and_the_shares_are_what_loops_over_level_0_find(published: Path) -> None:
    nation, shares = open_product(published), open_product(published, level="shares")
    for group, factor in FACTORS.items():
        mode, mean, counts = counted(published, factor)
        if group == "shares":
            # Where no tile was delivered nothing was counted, not even no data.
            counts *= np.repeat(np.repeat(nation.coverage.values != 0, TILE // factor, 0), TILE // factor, 1)
            np.testing.assert_array_equal(shares["count"].values, counts)
            np.testing.assert_allclose(shares.share.values, counts / factor**2, rtol=1e-6)
            np.testing.assert_array_equal(shares["class"].values, np.arange(20))
            assert shares["count"].dtype == np.uint32
        else:
            level = open_product(published, level=int(group))
            np.testing.assert_array_equal(level.landcover.values, mode)
            np.testing.assert_array_equal(level.confidence.values, mean)


def test_xarray_alone_opens_all_levels_as_a_tree(published: Path) -> None:
    tree = xr.open_datatree(published / "current", engine="zarr")
    assert sorted(tree.children) == ["product.zarr", "pyramid.zarr"]
    assert sorted(tree["pyramid.zarr"].children) == ["1", "2", "3", "4", "shares"]
    np.testing.assert_array_equal(tree["product.zarr"].landcover.values, open_product(published).landcover.values)
    # As readers of former versions do.
    former = xr.open_datatree(pyramid(published), engine="zarr")
    np.testing.assert_array_equal(former["0"].landcover.values, open_product(published).landcover.values)


def test_shares_are_derived_only_when_they_are_asked_for(published: Path) -> None:
    shares = open_product(published, level="shares")
    assert shares["count"].chunks is not None
    assert shares.share.chunks == shares["count"].chunks


def test_every_reader_finds_crs_and_place_of_every_level(published: Path) -> None:
    for group, frame in groups(GRID).items():
        opened = xr.open_zarr(pyramid(published), group=group)
        array = opened["count" if group == "shares" else "landcover"]
        size = frame.factor / 5
        assert array.shape[-2:] == (GRID.extent.height // frame.factor, GRID.extent.width // frame.factor)
        assert array.rio.crs.to_epsg() == array.odc.crs.to_epsg() == 2154
        np.testing.assert_allclose(array.rio.bounds(), GRID.extent.bounds, atol=1e-6)
        np.testing.assert_allclose(array.odc.geobox.transform, frame.geobox.transform, atol=1e-6)
        left, _, _, top = GRID.extent.bounds
        assert (float(array.x[0]), float(array.y[0])) == (left + size / 2, top - size / 2)
    assert opened["count"].attrs["pixels_per_cell"] == 250_000
    level = xr.open_zarr(pyramid(published), group="1")
    assert level.landcover.attrs["flag_meanings"].split()[1] == "building"
    assert level.landcover.rio.nodata == 0


def test_the_metadata_keep_the_conventions_rules(published: Path) -> None:
    """By the validator of the conventions' own organisation; and each asset is a group of the shape that is told."""
    for group in (".", *FACTORS, "0"):
        metadata = json.loads((pyramid(published) / group / "zarr.json").read_bytes())
        zarr_cm.proj.validate_group_metadata(metadata)
        zarr_cm.spatial.validate_group_metadata(metadata)
    edition = published / "current"
    root = json.loads((edition / "zarr.json").read_bytes())
    zarr_cm.proj.validate_group_metadata(root)
    zarr_cm.multiscales.validate_group_metadata(root)
    assert pyproj.CRS(root["attributes"]["proj:wkt2"]) == pyproj.CRS(root["attributes"]["proj:projjson"])
    assert pyproj.CRS(root["attributes"]["proj:wkt2"]).to_epsg() == 2154
    layout = root["attributes"]["multiscales"]["layout"]
    assert [level["asset"] for level in layout] == ["product.zarr", *(f"pyramid.zarr/{name}" for name in "1234")]
    places = [edition / level["asset"] for level in layout]
    assert not [place for place in places if place.resolve() != edition.resolve() / place.relative_to(edition)]
    finest = layout[0]
    for level in layout:
        array = xr.open_zarr(edition, group=level["asset"]).landcover
        assert list(array.shape) == level["spatial:shape"]
        scale = level["transform"]["scale"]
        assert [s * n for s, n in zip(scale, array.shape, strict=True)] == finest["spatial:shape"]
        np.testing.assert_allclose(array.rio.transform()[:6], level["spatial:transform"], atol=1e-6)
    assert {level.get("derived_from") for level in layout[1:]} == {"product.zarr"}


def test_one_file_opens_the_whole_tree(published: Path) -> None:
    """Consolidated: a reader over a network lists no folders."""
    root = json.loads((published / "current" / "zarr.json").read_bytes())
    held = root["consolidated_metadata"]["metadata"]
    arrays = {f"pyramid.zarr/{name}" for name in ("1/landcover", "4/confidence", "shares/count", "4/spatial_ref")}
    assert arrays | {"product.zarr/landcover", "product.zarr/x"} <= held.keys()
    assert not [name for name in held if name.startswith("pyramid.zarr/0")]
    for name, node in held.items():
        assert json.loads((published / "current" / name / "zarr.json").read_bytes()).items() >= node.items()


def test_gdal_reads_a_level(published: Path) -> None:
    if tuple(int(v) for v in rasterio.__gdal_version__.split(".")[:2]) < (3, 13):
        pytest.skip(f"GDAL {rasterio.__gdal_version__} does not know Zarr v3 as it became final, nor shards: 3.13 does")
    with rasterio.open(f'ZARR:"{pyramid(published)}":/1/landcover') as opened:
        np.testing.assert_array_equal(opened.read(1), open_product(published, level=1).landcover.values)
        assert opened.crs.to_epsg() == 2154


def test_a_level_that_does_not_divide_the_tile_is_left_out(tmp_path: Path) -> None:
    grid = NationalGrid(Window(NORTH, WEST, 200, 200), tile=200, shard=100, chunk=50)
    publish(tmp_path / "national", [product(tmp_path, A, {Tile.at(NORTH, WEST, 200): 3})], grid)
    assert sorted(xr.open_datatree(pyramid(tmp_path / "national"), engine="zarr").children) == ["0", "1", "2", "3"]
    level = open_product(tmp_path / "national", level=3)
    np.testing.assert_array_equal(level.landcover.values, counted(tmp_path / "national", 50)[0])
    with pytest.raises(ProductError, match=r"no level shares; .* 1, 2, 3, whose cells divide its tiles of 200 px"):
        open_product(tmp_path / "national", level="shares")


def test_only_tiles_that_changed_are_counted_again(tmp_path: Path, national: Path, domain: DomainProduct) -> None:
    before = inodes(pyramid(national))
    new = sealed_at(tmp_path / A, tile_at(0, 1), domain=A, seed=7)
    again = DomainProduct(A, None, (domain.sealed[0], new), domain.expected, about=domain.about)
    _, left = publish(national, [again])
    assert left == ((0, 1),)
    now = inodes(pyramid(national))
    assert now.keys() == before.keys()
    layers = [f"{group}/{layer}/c" for group in "1234" for layer in ("landcover", "confidence")]
    assert {p for p in now if now[p] != before[p]} == {f"{p}/0/1" for p in [*layers, "shares/count/c/0"]}
    mode = counted(national, 50)[0]
    np.testing.assert_array_equal(open_product(national, level=3).landcover.values, mode)
    former, shares = open_product(national, 1, level=3).landcover.values, open_product(national, 1, level="shares")
    assert not np.array_equal(former, mode)
    assert int(shares["count"].sum()) == int(open_product(national, level="shares")["count"].sum())


@pytest.mark.parametrize(
    "name",
    ["1/landcover/c/0/1", "2/confidence/c/0/0", "4/landcover/c/1/2", "shares/count/c/0/0/0", "shares/count/c/0/1/2"],
)
def test_a_lost_file_is_an_error_and_not_no_data(national: Path, domain: DomainProduct, name: str) -> None:
    edition = current_edition(national)
    assert edition is not None
    assert check_pyramid(edition) == []
    (pyramid(national) / name).unlink()
    for level in (None, 1, "shares"):
        with pytest.raises(ProductError, match=f"{name}: shard is lost"):
            open_product(national, level=level)
    *_, row, col = name.split("/")
    _, left = publish(national, [domain])
    assert left == ((int(row), int(col)),), "the next edition has it again, and links the others"
    assert open_product(national, level=4).landcover.any()


def test_a_lost_shard_of_level_0_or_a_lost_tree_is_an_error(national: Path) -> None:
    (national / "current" / "product.zarr" / "landcover" / "c" / "0" / "0").unlink()
    with pytest.raises(ProductError, match="landcover/c/0/0: shard is lost"):
        open_product(national, level=1)


@pytest.mark.parametrize("level", [1, "shares"])
def test_a_lost_pyramid_is_an_error(national: Path, level: Level) -> None:
    shutil.rmtree(pyramid(national))
    with pytest.raises(ProductError, match="is missing or damaged; publish again"):
        open_product(national, level=level)
    assert open_product(national).landcover.any()
