"""A delivery is checked as a whole before anything is written, and errors name each bad file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pystac
import pytest

from pipeline.domain import Domain
from pipeline.errors import CatalogError, DeliveryError, StorageError
from pipeline.grid import Tile
from pipeline.sources.catalog.index import IndexReport, index
from pipeline.sources.catalog.reader import read_domain, read_tiles
from pipeline.sources.reading.mosaic import Mosaic
from tests.support.deliveries import (
    Delivery,
    flat,
    make_delivery,
    noise,
    tile_at,
    write_pair,
    write_raster,
    write_relief,
)
from tests.support.progress import Recorder

SIZE = 250
DOMAIN = Domain("D034_2021")


def indexed(delivery: Delivery, catalog: Path, **options: object) -> IndexReport:
    return index([delivery.folder], domain=delivery.domain, catalog=catalog, tile_size=SIZE, **options)  # type: ignore[arg-type]


def refused(delivery: Delivery, catalog: Path) -> str:
    """The error message; checks that no catalog was written."""
    with pytest.raises(DeliveryError) as caught:
        indexed(delivery, catalog)
    assert not files(catalog, "*.json")
    return str(caught.value)


def files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.rglob(pattern))


def test_an_index_is_a_valid_static_catalog_with_one_item_per_tile(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in")
    progress = Recorder()
    report = indexed(delivery, tmp_path / "cat", progress=progress)
    assert report.tiles == tuple(t.name for t in delivery.tiles)
    assert (progress.totals, progress.done) == ([15], 15), "twelve files, three tiles"
    assert (report.files, report.ignored) == (12, ())
    catalog = pystac.Catalog.from_file(str(tmp_path / "cat" / "catalog.json"))
    items = list(catalog.get_items(recursive=True))
    assert sorted(i.id for i in items) == [f"{DOMAIN}-{t.name}" for t in delivery.tiles]
    for item in items:
        item.stac_extensions = []  # their schemas are on the network; the core schemas are in pystac
        item.validate()
        assert Path(item.get_self_href() or "").parent == tmp_path / "cat" / DOMAIN
        assert all(Path(a.get_absolute_href() or "").is_file() for a in item.assets.values())
        assert all(not Path(a.href).is_absolute() for a in item.assets.values())


def test_a_domain_is_opened_without_its_rasters(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in")
    indexed(delivery, tmp_path / "cat")
    shutil.rmtree(delivery.folder)
    inputs = read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE)
    assert inputs.window == delivery.window
    assert tuple(t.tile for t in inputs.tiles) == delivery.tiles
    assert read_tiles(tmp_path / "cat", DOMAIN, tile_size=SIZE) == tuple(sorted(delivery.tiles))
    assert [a.kind for a in inputs.tile(inputs.names[0]).assets].count("rvb") == 1
    assert len(inputs.changes(inputs.assets)) == len(inputs.assets) == 12


def test_a_catalog_can_be_moved_with_its_delivery(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "here" / "in", at=[(0, 0)])
    indexed(delivery, tmp_path / "here" / "cat")
    (tmp_path / "here").rename(tmp_path / "there")
    inputs = read_domain(tmp_path / "there" / "cat", DOMAIN, tile_size=SIZE)
    assert inputs.changes(inputs.assets) == {}
    assert Mosaic.of(inputs, bands=("red",)).read(inputs.window).valid.all()


def test_indexing_a_domain_again_changes_no_other_domain(tmp_path: Path) -> None:
    first = make_delivery(tmp_path / "first", at=[(0, 0), (0, 1)])
    second = make_delivery(tmp_path / "second", at=[(0, 1)], domain=Domain("D030_2020"))
    indexed(first, tmp_path / "cat")
    indexed(second, tmp_path / "cat")
    before = {p.name: p.read_bytes() for p in (tmp_path / "cat" / "D030_2020").iterdir()}
    for path in files(first.folder, f"*{first.tiles[0].name}*"):
        path.unlink()
    indexed(first, tmp_path / "cat")
    assert read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE).names == (first.tiles[1].name,)
    assert len(files(tmp_path / "cat" / DOMAIN, f"{DOMAIN}-*.json")) == 1
    assert {p.name: p.read_bytes() for p in (tmp_path / "cat" / "D030_2020").iterdir()} == before
    links = json.loads((tmp_path / "cat" / "catalog.json").read_text())["links"]
    assert sorted(link["href"] for link in links if link["rel"] == "child") == [
        "./D030_2020/collection.json",
        "./D034_2021/collection.json",
    ]
    assert not files(tmp_path / "cat", ".*")


def test_the_digest_depends_on_content_and_extent_not_on_paths_or_dates(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in")
    indexed(delivery, tmp_path / "cat")
    inputs = read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE)
    window = delivery.tiles[0].window
    shutil.copytree(delivery.folder, tmp_path / "copy")
    copy = Delivery(
        tmp_path / "copy", *(getattr(delivery, n) for n in ("domain", "tiles", "window", "imagery", "covered"))
    )
    indexed(copy, tmp_path / "cat2")
    moved = read_domain(tmp_path / "cat2", DOMAIN, tile_size=SIZE)
    assert moved.inputs_digest(window) == inputs.inputs_digest(window)
    assert moved.around(window).inputs_digest(window) == inputs.inputs_digest(window)
    assert inputs.inputs_digest(window.grow(1)) != inputs.inputs_digest(window)
    write_pair(copy.folder, delivery.tiles[0], noise(delivery.tiles[0], seed=1))
    assert len(moved.changes(moved.assets)) == 2
    indexed(copy, tmp_path / "cat2")
    again = read_domain(tmp_path / "cat2", DOMAIN, tile_size=SIZE)
    assert again.inputs_digest(window) != inputs.inputs_digest(window)
    far = delivery.tiles[-1].window
    assert again.inputs_digest(far) == inputs.inputs_digest(far)


def test_a_touched_file_has_not_changed(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    indexed(delivery, tmp_path / "cat")
    inputs = read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE)
    for asset in inputs.assets:
        asset.path.touch()
    assert inputs.changes(inputs.assets) == {}


@pytest.mark.parametrize("suffix", ["jp2", "tif"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    delivery = make_delivery(tmp_path / "in", suffix=suffix)
    victim = files(delivery.folder, f"*-IRC-*.{suffix}")[1]
    victim.write_bytes(victim.read_bytes()[:-5000])
    message = refused(delivery, tmp_path / "cat")
    assert f"{victim}: is truncated" in message
    assert "a problem in the delivery" in message


def test_a_truncated_elevation_grid_is_named(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)], terrain=None)
    grid = write_relief(delivery.folder, "dtm", flat(100), corner=delivery.tiles[0].name, side_m=50, as_rge_alti=True)
    grid.write_bytes(grid.read_bytes()[:-30])
    assert f"{grid}: is truncated: the last row has" in refused(delivery, tmp_path / "cat")


@pytest.mark.parametrize(("gone", "kept"), [("IRC", "RVB"), ("RVB", "IRC")])
def test_half_a_pair_is_named(tmp_path: Path, gone: str, kept: str) -> None:
    delivery = make_delivery(tmp_path / "in")
    victim = next(
        p for p in files(delivery.folder, "*.tif") if f"OHR_{gone}" in str(p) and delivery.tiles[1].name in p.name
    )
    victim.unlink()
    message = refused(delivery, tmp_path / "cat")
    assert f"tile {delivery.tiles[1].name}: has no {gone} beside" in message
    assert f"OHR_{kept}" in message


def test_rgb_needs_neither_infrared_nor_elevation(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)], surface=None, terrain=None)
    files(delivery.folder, "*-IRC-*")[0].unlink()
    indexed(delivery, tmp_path / "cat", bands=("red", "green", "blue"))
    inputs = read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE)
    assert Mosaic.of(inputs, bands=("red", "green", "blue")).read(inputs.window).valid.all()
    with pytest.raises(CatalogError, match="no irc file behind tiles 077050-627760"):
        Mosaic.of(inputs, bands=("red", "green", "blue", "nir"))


def test_a_tile_without_any_elevation_is_named(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0), (0, 1)], terrain=None)
    write_relief(delivery.folder, "dtm", flat(1), corner=delivery.tiles[0].name, side_m=50)
    message = refused(delivery, tmp_path / "cat")
    assert f"tile {delivery.tiles[1].name}: neither a ready height nor" in message
    assert delivery.tiles[0].name not in message


def imagery_problem(tmp_path: Path, *, size: int = SIZE, bands: int = 3, dtype: str = "uint8", **how: object) -> str:
    """The error message for a delivery of two good tiles and one bad RVB."""
    delivery = make_delivery(tmp_path / "in")
    victim = next(p for p in files(delivery.folder, "*.tif") if "OHR_RVB" in str(p))
    left, _, _, top = delivery.tiles[0].window.bounds
    victim.unlink()
    pixels = np.ones((bands, size, size), dtype)
    write_raster(victim, pixels, how.pop("left", left), how.pop("top", top), **how)  # type: ignore[arg-type]
    message = refused(delivery, tmp_path / "cat")
    assert str(victim) in message
    return message


def test_a_wrong_crs_is_named(tmp_path: Path) -> None:
    assert "CRS is EPSG:32631; expected EPSG:2154" in imagery_problem(tmp_path, crs="EPSG:32631")


def test_a_wrong_resolution_is_named(tmp_path: Path) -> None:
    assert "resolution is 0.5 × 0.5 m; expected 0.2 m" in imagery_problem(tmp_path, step=0.5)


def test_a_wrong_size_is_named(tmp_path: Path) -> None:
    assert "is 200 × 200 px; expected tiles of 250 × 250 px" in imagery_problem(tmp_path, size=200)


def test_wrong_bands_are_named(tmp_path: Path) -> None:
    assert "has 5 bands; expected 3" in imagery_problem(tmp_path, bands=5)


def test_a_wrong_type_is_named(tmp_path: Path) -> None:
    assert "samples are uint16; expected uint8" in imagery_problem(tmp_path, dtype="uint16")


def test_a_tile_off_by_one_is_named_with_the_corner_of_its_georeference(tmp_path: Path) -> None:
    _, _, _, top = tile_at(1, 0).window.bounds
    message = imagery_problem(tmp_path, top=top + 50)
    assert "the georeference has x 770.500, y 6277.600 km, which is tile 077050-627760" in message
    assert "y in a name is the north edge" in message


def test_a_tile_that_was_delivered_twice_is_named(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    one = files(delivery.folder, "*-IRC-*")[0]
    shutil.copy(one, delivery.folder / one.name)
    assert "delivered twice, see" in refused(delivery, tmp_path / "cat")


def test_the_same_elevation_in_two_deliveries_counts_once(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    (one,) = files(delivery.folder / "DTM", "*.tif")
    (delivery.folder / "D030").mkdir()
    shutil.copy(one, delivery.folder / "D030" / one.name)
    assert indexed(delivery, tmp_path / "cat").files == 4


@pytest.mark.parametrize("domain", [Domain("D030_2021"), Domain("D034_2019")])
def test_another_departement_or_vintage_is_named(tmp_path: Path, domain: Domain) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    with pytest.raises(DeliveryError, match="its name has département 34, vintage 2021; expected"):
        index([delivery.folder], domain=domain, catalog=tmp_path / "cat", tile_size=SIZE)


def test_elevation_with_another_position_than_in_its_name_is_named(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    wrong = write_relief(delivery.folder, "dsm", flat(1), corner="0770-6278", side_m=50)
    wrong.rename(wrong.with_name(wrong.name.replace("6278", "6277")))
    assert "its name says that it lies in x 770.000..771.000, y 6276.000..6277.000 km" in refused(
        delivery, tmp_path / "cat"
    )


def test_rge_alti_at_5_m_has_tiles_of_5_km(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)], terrain=None)
    name = "RGEALTI_FXX_0770_6280_MNT_LAMB93_IGN69.asc"
    write_raster(delivery.folder / name, np.full((1, 40, 40), 100.0), 770_447.5, 6_277_652.5, step=5)
    assert indexed(delivery, tmp_path / "cat").files == 4


def test_all_problems_are_listed_and_a_long_list_is_shortened(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(r, c) for r in range(5) for c in range(5)], surface=None)
    message = refused(delivery, tmp_path / "cat")
    assert "25 problems in the delivery" in message
    assert message.count("\n") == 21
    assert message.endswith("… and 5 more")


def test_an_empty_delivery_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DeliveryError, match="no imagery under"):
        index([tmp_path / "in"], domain=DOMAIN, catalog=tmp_path / "cat")


def test_an_unknown_domain_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="not an input catalog"):
        read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE)
    indexed(make_delivery(tmp_path / "in", at=[(0, 0)]), tmp_path / "cat")
    with pytest.raises(CatalogError, match=": has no domain 'D099_2021'; it has D034_2021"):
        read_domain(tmp_path / "cat", Domain("D099_2021"), tile_size=SIZE)
    with pytest.raises(CatalogError, match=r"250 × 250 px; expected grid.tile = 500"):
        read_domain(tmp_path / "cat", DOMAIN, tile_size=500)
    with pytest.raises(CatalogError, match="has no tile '0000-0000'; its 1 tiles are 077050-627760"):
        read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE).tile("0000-0000")


def test_an_unwritable_catalog_is_named(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/cat.*cannot be written"):
        indexed(delivery, tmp_path / "file" / "cat")


def test_a_broken_item_is_named(tmp_path: Path) -> None:
    indexed(make_delivery(tmp_path / "in", at=[(0, 0)]), tmp_path / "cat")
    item = files(tmp_path / "cat" / DOMAIN, f"{DOMAIN}-*.json")[0]
    item.write_text(item.read_text().replace("landcover:tile", "other:tile"))
    with pytest.raises(CatalogError, match=f"{item.name}: cannot be read as a STAC item"):
        read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE)


def test_tile_names_that_do_not_fit_the_tile_size_are_refused(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    with pytest.raises(DeliveryError, match="is not a name of a tile of 5000 px"):
        index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=5000)
    assert Tile.named(delivery.tiles[0].name, SIZE) == delivery.tiles[0]


def test_an_item_that_is_not_json_is_named(tmp_path: Path) -> None:
    indexed(make_delivery(tmp_path / "in", at=[(0, 0)]), tmp_path / "cat")
    item = files(tmp_path / "cat" / DOMAIN, f"{DOMAIN}-*.json")[0]
    for damage in ("{", "[]", "{}"):
        item.write_text(damage)
        with pytest.raises(CatalogError, match=f"{item.name}: cannot be read as a STAC item"):
            read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE)
