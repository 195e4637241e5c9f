"""The nation: each pixel from its owner, editions that share what did not change, no gap that looks like no data."""

import dataclasses
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import shapely
import xarray as xr

from pipeline.domain import Domain
from pipeline.errors import ConfigError, ProductError
from pipeline.grid import Tile, Window
from pipeline.products.analysis.open_product import open_product
from pipeline.products.national.edition_record import STORE_LAYERS, current_edition
from pipeline.products.national.edition_writer import begin, commit, remove_abandoned
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.publish_plan import DomainProduct, plan_edition
from pipeline.products.national.shard_writer import write_shard
from pipeline.products.national.zarr_store import check_shards
from tests.support.products import GRID, NORTH, TILE, WEST, product, publish, sealed_at, stack_of, tile_at

HALF = shapely.box(*Window(NORTH, WEST - 1000, 4 * TILE, 1000 + TILE + 130).bounds)
"""West of a border that runs through the second column of tiles, 130 px from its west edge."""
REST = shapely.box(*Window(NORTH, WEST + TILE + 130, 4 * TILE, 4 * TILE).bounds)
A, B = Domain("D064_2021"), Domain("D065_2022")


def two_domains(folder: Path) -> list[DomainProduct]:
    """Two domains that both have the second column of tiles, a border running through it; B lacks (1, 2)."""
    a = product(folder, A, {tile_at(0, 0): 1, tile_at(0, 1): 2, tile_at(1, 1): 3}, boundary=HALF)
    b = product(folder, B, {tile_at(0, 1): 4, tile_at(1, 1): 5, tile_at(0, 2): 6, tile_at(1, 2): None}, boundary=REST)
    return [a, b]


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> list[DomainProduct]:
    return two_domains(tmp_path_factory.mktemp("domains"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, domains: list[DomainProduct]) -> Path:
    """Both domains in their first edition: to read only."""
    national = tmp_path_factory.mktemp("published") / "national"
    publish(national, domains)
    return national


@pytest.fixture
def national(tmp_path: Path, published: Path) -> Path:
    """The same to do with as one likes; its files may be removed or replaced, not written into."""
    return Path(shutil.copytree(published, tmp_path / "national", symlinks=True, copy_function=os.link))


def failing(domain: DomainProduct, *names: str) -> DomainProduct:
    return dataclasses.replace(domain, failed=frozenset(names))


def with_tile(domain: DomainProduct, folder: Path, tile: Tile, seed: int) -> DomainProduct:
    """The domain with one tile made anew elsewhere."""
    new = sealed_at(folder / domain.name, tile, domain=domain.name, seed=seed)
    return dataclasses.replace(domain, sealed=tuple(new if s.tile == tile else s for s in domain.sealed))


def part(array: Any, tile: Tile) -> Any:
    rows, cols = tile.window.slices_in(GRID.extent)
    return np.asarray(array[rows, cols])


def files_of(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def inodes(store: Path) -> dict[str, int]:
    return {str(p.relative_to(store)): p.stat().st_ino for layer in STORE_LAYERS for p in store.glob(f"{layer}/c/*/*")}


def test_every_pixel_comes_from_its_owner(published: Path) -> None:
    nation = open_product(published)
    border = np.arange(TILE) < 130
    for tile, west, east in ((tile_at(0, 1), 2, 4), (tile_at(1, 1), 3, 5)):
        expected = np.where(border, stack_of(west), stack_of(east))
        np.testing.assert_array_equal(part(nation.landcover, tile), expected[0])
        np.testing.assert_array_equal(part(nation.confidence, tile), expected[1])
        codes = np.broadcast_to(np.where(border, 6421, 6522), (TILE, TILE))
        np.testing.assert_array_equal(part(nation.domain, tile), codes)
    np.testing.assert_array_equal(part(nation.landcover, tile_at(0, 0)), stack_of(1)[0])
    np.testing.assert_array_equal(part(nation.landcover, tile_at(0, 2)), stack_of(6)[0])
    table = [(d["code"], d["name"], d["campaign"]) for d in nation.attrs["domains"]]
    assert table == [(6421, A, "trial"), (6522, B, "trial")]


def test_a_tile_that_nobody_made_keeps_its_owner_and_its_shards(published: Path) -> None:
    nation = open_product(published)
    assert not part(nation.landcover, tile_at(1, 2)).any()
    np.testing.assert_array_equal(np.unique(part(nation.domain, tile_at(1, 2))), [6522])


def test_an_owners_failed_tile_is_not_filled_by_its_neighbour(national: Path, domains: list[DomainProduct]) -> None:
    tile = tile_at(1, 1)
    publish(national, [failing(domains[0], tile.name), domains[1]])
    nation = open_product(national)
    for layer, index in (("landcover", 0), ("confidence", 1)):
        pixels = part(nation[layer], tile)
        assert not pixels[:, :130].any()
        np.testing.assert_array_equal(pixels[:, 130:], stack_of(5)[index][:, 130:])
    np.testing.assert_array_equal(np.unique(part(nation.domain, tile)[:, :130]), [6421])
    np.testing.assert_array_equal(nation.coverage.values, [[1, 1, 1, 0], [0, 2, 3, 0], [0, 0, 0, 0]])


def test_plain_xarray_rioxarray_and_odc_geo_read_crs_and_place_to_the_pixel(published: Path) -> None:
    nation = xr.open_zarr(published / "current" / "product.zarr")
    dtypes = {name: nation[name].dtype.name for name in STORE_LAYERS}
    assert dtypes == {"landcover": "uint8", "confidence": "uint8", "domain": "uint16"}
    window = Window(NORTH + 30, WEST + TILE + 7, 50, 60)
    rows, cols = window.slices_in(GRID.extent)
    cut = nation.landcover[rows, cols]
    for array, place in ((nation.landcover, GRID.extent), (cut, window)):
        assert array.rio.crs.to_epsg() == 2154
        assert array.odc.crs.to_epsg() == 2154
        np.testing.assert_allclose(array.rio.bounds(), place.bounds, atol=1e-6)
        np.testing.assert_allclose(array.rio.transform(recalc=True)[:6], place.transform, atol=1e-6)
        assert array.odc.geobox.shape == place.shape
        np.testing.assert_allclose(array.odc.geobox.transform[:6], place.transform, atol=1e-6)
        assert array.rio.nodata == 0
    assert nation.odc.geobox.shape == GRID.extent.shape
    left, _, _, top = window.bounds
    assert float(cut.x[0]) == pytest.approx(left + 0.1, abs=1e-9)
    assert float(cut.y[0]) == pytest.approx(top - 0.1, abs=1e-9)
    at = nation.landcover.sel(x=left + 0.1, y=top - 0.1, method="nearest")
    assert int(at) == stack_of(2)[0][30, 7]
    assert nation.landcover.attrs["flag_meanings"].split()[1] == "building"
    assert len(nation.landcover.attrs["flag_values"]) == len(nation.landcover.attrs["flag_colors"].split()) == 20


def test_the_order_of_domains_and_shards_and_of_publishing_changes_no_byte(
    tmp_path: Path, published: Path, domains: list[DomainProduct]
) -> None:
    a, b = domains
    publish(tmp_path / "two", [b])
    publish(tmp_path / "two", [b, a], reverse=True)
    one, two = (files_of(n / "current" / "product.zarr") for n in (published, tmp_path / "two"))
    assert one == two


def test_publishing_the_same_again_finds_nothing_to_do(published: Path, domains: list[DomainProduct]) -> None:
    plan = publish(published, domains[::-1])
    assert plan.nothing_to_do
    assert (plan.write, plan.drop) == ((), ())
    assert [p.name for p in (published / "editions").iterdir()] == ["000001"]


def test_one_changed_tile_writes_its_shards_and_links_all_others(
    tmp_path: Path, national: Path, domains: list[DomainProduct]
) -> None:
    former = inodes(national / "current" / "product.zarr")
    plan = publish(national, [with_tile(domains[0], tmp_path, tile_at(0, 1), 77), domains[1]])
    # A owns 130 px of the tile: both columns of its 100 px shards, in both rows.
    assert [s.index for s in plan.write] == [(0, 2), (0, 3), (1, 2), (1, 3)]
    now = inodes(national / "current" / "product.zarr")
    assert former.keys() == now.keys()
    changed = {path for path in now if now[path] != former[path]}
    # Their owners are who they were: that layer came out as it was, and is linked too.
    assert changed == {f"{layer}/c/{row}/{col}" for layer in STORE_LAYERS[:2] for row in (0, 1) for col in (2, 3)}
    assert (national / "current").readlink() == Path("editions/000002")
    pixels = part(open_product(national).landcover, tile_at(0, 1))
    np.testing.assert_array_equal(pixels[:, :130], stack_of(77)[0][:, :130])
    np.testing.assert_array_equal(pixels[:, 130:], stack_of(4)[0][:, 130:])


def test_former_editions_stay_and_a_domain_that_is_left_out_leaves(
    national: Path, domains: list[DomainProduct]
) -> None:
    before = files_of(national / "editions" / "000001")
    plan = publish(national, domains[:1])
    assert {index[1] for index in plan.drop} == {4, 5}
    assert open_product(national).coverage.values[0].tolist() == [1, 1, 0, 0]
    assert files_of(national / "editions" / "000001") == before


@pytest.mark.parametrize("layer", STORE_LAYERS)
def test_a_lost_shard_is_an_error_and_the_next_publish_would_write_it(
    national: Path, domains: list[DomainProduct], layer: str
) -> None:
    (national / "current" / "product.zarr" / layer / "c" / "0" / "1").unlink()
    with pytest.raises(ProductError, match=rf"{layer}/c/0/1: shard is lost"):
        open_product(national)
    assert [s.index for s in plan_edition(national, GRID, domains).write] == [(0, 1)]


@pytest.mark.parametrize("name", ["coverage/c/0/0", "x/c/0"])
def test_lost_coverage_or_coordinates_are_seen(national: Path, name: str) -> None:
    edition = current_edition(national)
    assert edition is not None
    assert check_shards(edition) == []
    (edition.store / name).unlink()
    with pytest.raises(ProductError, match="0 of 1 chunks"):
        open_product(national)


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


def killing(step: str) -> Any:
    """`Path.rename` or `Path.replace` that kills at this step of a commit."""
    replace = Path.replace

    def method(self: Path, target: Any) -> Any:
        if step == "before rename" or self.name.startswith(".current"):
            raise Killed
        return replace(self, target)

    return method


def test_a_publish_killed_at_any_step_leaves_the_former_edition_current(
    national: Path, domains: list[DomainProduct], tmp_path: Path
) -> None:
    changed = [domains[0], with_tile(domains[1], tmp_path, tile_at(0, 2), 90)]
    former = files_of(national / "editions")
    for step in ("begun", "half written", "before rename", "before swap"):
        plan = plan_edition(national, GRID, changed)
        begin(plan)
        facts = [write_shard(plan.target, s) for s in plan.write[: {"begun": 0, "half written": 2}.get(step)]]
        if step in ("begun", "half written"):
            with pytest.raises(ProductError, match="were not written"):
                commit(plan, facts)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Path, "rename" if step == "before rename" else "replace", killing(step))
                with pytest.raises(Killed):
                    commit(plan, facts)
        np.testing.assert_array_equal(part(open_product(national).landcover, tile_at(0, 2)), stack_of(6)[0])
        assert remove_abandoned(national) != ()
        assert files_of(national / "editions") == former
        assert sorted(p.name for p in national.iterdir()) == ["current", "editions"]
    publish(national, changed)
    np.testing.assert_array_equal(part(open_product(national).landcover, tile_at(0, 2)), stack_of(90)[0])


def test_two_publishers_do_not_meet(national: Path, domains: list[DomainProduct]) -> None:
    plan = plan_edition(national, GRID, domains[:1])
    begin(plan)
    with pytest.raises(ProductError, match="another publish is running or was killed"):
        begin(plan)


def test_a_plan_that_another_publish_overtook_is_not_committed(national: Path, domains: list[DomainProduct]) -> None:
    late = plan_edition(national, GRID, domains[:1])
    publish(national, domains[1:])
    begin(late)
    with pytest.raises(ProductError, match="edition 2 became current since the plan"):
        commit(late, [])


def test_a_tile_sealed_anew_since_the_plan_stops_its_shard(tmp_path: Path) -> None:
    a = product(tmp_path, A, {tile_at(0, 0): 1, tile_at(0, 1): 2})
    plan = plan_edition(tmp_path / "national", GRID, [a])
    begin(plan)
    sealed_at(tmp_path / A, tile_at(0, 0), domain=A, seed=50)
    with pytest.raises(ProductError, match="sealed again since the publish was planned"):
        write_shard(plan.target, plan.write[0])
    a.sealed[1].files[0].path.unlink()
    with pytest.raises(ProductError, match=r"landcover\.tif: missing; "):
        write_shard(plan.target, next(s for s in plan.write if s.index == (0, 2)))


def test_a_written_shard_tells_what_each_domain_owns_of_it(tmp_path: Path, domains: list[DomainProduct]) -> None:
    plan = plan_edition(tmp_path, GRID, domains)
    begin(plan)
    facts = write_shard(plan.target, next(s for s in plan.write if s.index == (0, 3)))
    assert facts.tally.owned == {A: 3000, B: 7000}


def test_what_a_worker_is_sent_is_small_and_whole(tmp_path: Path, domains: list[DomainProduct]) -> None:
    plan = plan_edition(tmp_path, GRID, domains)
    for shard in plan.write:
        sent = pickle.dumps((plan.target, shard))
        assert pickle.loads(sent) == (plan.target, shard)
        assert len(sent) < 10_000


def test_a_nation_that_cannot_be_written_is_named_and_nothing_is_left(
    tmp_path: Path, national: Path, domains: list[DomainProduct]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProductError, match="file/national: cannot be written"):
        begin(plan_edition(tmp_path / "file" / "national", GRID, domains))
    plan = plan_edition(national, GRID, domains[:1])
    (national / "current" / "product.zarr" / "domain" / "c" / "0" / "0").unlink()
    with pytest.raises(ProductError, match="cannot be written"):
        begin(plan)
    assert [p.name for p in (national / "editions").iterdir()] == ["000001"]


def test_a_tile_outside_the_extent_and_a_domain_given_twice_are_refused(tmp_path: Path) -> None:
    far = product(tmp_path, A, {tile_at(5, 0): None})
    with pytest.raises(ProductError, match="lies outside the national extent"):
        plan_edition(tmp_path, GRID, [far])
    with pytest.raises(ProductError, match="given twice"):
        plan_edition(tmp_path, GRID, [product(tmp_path, A, {}), product(tmp_path, A, {})])


def test_another_grid_writes_all_anew(published: Path, domains: list[DomainProduct]) -> None:
    coarser = NationalGrid(extent=GRID.extent, tile=TILE, shard=TILE, chunk=100)
    plan = plan_edition(published, coarser, domains)
    assert (len(plan.write), plan.link) == (5, ())
    with pytest.raises(ConfigError, match="must divide"):
        NationalGrid(extent=GRID.extent, tile=TILE, shard=150, chunk=50)
    with pytest.raises(ConfigError, match="whole tiles"):
        NationalGrid(extent=Window(0, 0, 300, 400), tile=TILE, shard=100, chunk=50)


def test_before_the_first_publish_and_with_a_broken_pointer_the_reader_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProductError, match="expected a national product"):
        open_product(tmp_path)
    (tmp_path / "current").symlink_to("editions/000007")
    with pytest.raises(ProductError, match="cannot be read"):
        open_product(tmp_path)


def test_the_record_says_what_went_into_the_edition(published: Path) -> None:
    record = json.loads((published / "current" / "edition.json").read_bytes())
    assert (record["number"], record["parent"]) == (1, None)
    assert [d["name"] for d in record["domains"]] == [A, B]
    assert len(record["shards"]) == 5 * 4
