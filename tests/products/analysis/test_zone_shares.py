"""Class shares of zones from the share cube: whole cells exactly, cells on an edge by their share inside."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from pipeline.errors import ProductError
from pipeline.grid import Window
from pipeline.products.analysis import zone_shares
from pipeline.products.analysis.open_product import open_product
from pipeline.products.analysis.zone_shares import zone_table
from pipeline.products.national.edition_record import Edition, edition_of
from pipeline.products.national.grid import NationalGrid
from tests.support.nations import write_nation
from tests.support.products import NORTH, WEST

GRID = NationalGrid(Window(NORTH, WEST, 1000, 1500), tile=500, shard=500, chunk=250)
LEFT, TOP = WEST / 5, -NORTH / 5


@pytest.fixture(scope="module")
def edition(tmp_path_factory: pytest.TempPathFactory) -> Edition:
    national = tmp_path_factory.mktemp("nation")
    write_nation(national, GRID, np.random.default_rng(3).integers(0, 5, (1000, 1500)).astype(np.uint8))
    return edition_of(national, 1)


@pytest.fixture
def zones(tmp_path: Path) -> Path:
    """A square of four cells, a half of it below its diagonal, and a place elsewhere; in degrees as IGN's are not."""
    square = shapely.box(LEFT + 100, TOP - 200, LEFT + 300, TOP)
    half = shapely.Polygon([(LEFT + 100, TOP), (LEFT + 300, TOP - 200), (LEFT + 100, TOP - 200)])
    far = shapely.box(LEFT + 10_000, TOP, LEFT + 10_100, TOP + 100)
    path = tmp_path / "communes.gpkg"
    gpd.GeoDataFrame({"nom": ["Sète", "Agde", "far"]}, geometry=[square, half, far], crs="EPSG:2154").to_file(path)
    return path


def test_whole_cells_are_those_of_area_by_class(edition: Edition, zones: Path, tmp_path: Path) -> None:
    table = zone_table(edition, zones, "nom", former=tmp_path / "none")
    assert [z["name"] for z in table["zones"]] == ["Agde", "Sète"]
    assert table["title"] == "communes"
    areas = open_product(edition.path).cover.area_by_class(zones, by="nom", classes=[1, 2, 3, 4]).loc["Sète"]
    found = table["zones"][1]["pixels"]
    assert [n * table["pixel_m2"] / 1e4 for n in found[1:5]] == pytest.approx(
        areas[["building_ha", "pervious_surface_ha", "impervious_surface_ha", "bare_soil_ha"]].to_list()
    )
    assert sum(found) == 1000 * 1000
    assert table["zones"][1]["rings"][0][:2] in [
        [round(LEFT + x), round(TOP - y)] for x in (100, 300) for y in (0, 200)
    ]


def test_cells_on_an_edge_count_by_their_share_inside(edition: Edition, zones: Path, tmp_path: Path) -> None:
    """Of the four cells, two are half inside and one is whole."""
    found = zone_table(edition, zones, "nom", former=tmp_path / "none")["zones"][0]["pixels"]
    classes = open_product(edition.path).landcover.values
    cells = {
        (i, j): np.bincount(classes[500 * i :, 500 * j :][:500, :500].ravel(), minlength=20)
        for i in (0, 1)
        for j in (1, 2)
    }
    expected = cells[0, 1] / 2 + cells[1, 2] / 2 + cells[1, 1]
    assert np.abs(np.array(found) - expected).max() <= 0.5 + 1e-6


def test_a_table_of_the_same_inputs_is_kept(edition: Edition, zones: Path, tmp_path: Path) -> None:
    table = zone_table(edition, zones, "nom", former=tmp_path / "none")
    former = tmp_path / "zones.json"
    former.write_text(f'{{"source": "{table["source"]}", "zones": "kept"}}')
    assert zone_table(edition, zones, "nom", former=former)["zones"] == "kept"
    former.write_text("damaged")
    assert zone_table(edition, zones, "nom", former=former) == table
    gpd.read_file(zones).assign(nom="x").to_file(zones)
    former.write_text(f'{{"source": "{table["source"]}", "zones": "kept"}}')
    assert zone_table(edition, zones, "nom", former=former)["zones"] != "kept"


def test_what_cannot_be_listed_is_said(
    edition: Edition, zones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProductError, match=r"no attribute 'name'; set output\.zones_name to one of nom"):
        zone_table(edition, zones, "name", former=tmp_path / "none")
    with pytest.raises(ProductError, match=r"output\.zones names a file of polygons"):
        zone_table(edition, tmp_path / "absent.gpkg", "nom", former=tmp_path / "none")
    monkeypatch.setattr(zone_shares, "MOST_ZONES", 2)
    with pytest.raises(ProductError, match="3 polygons; the map page lists at most 2"):
        zone_table(edition, zones, "nom", former=tmp_path / "none")
