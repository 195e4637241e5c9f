"""Asked of a product: what opens, what is cut, and hectares in real communes to the fraction of a pixel."""

import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rioxarray  # noqa: F401 (registers .rio)
import shapely
import xarray as xr
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

import pipeline
from pipeline import legend
from pipeline.errors import ConfigError, ProductError
from pipeline.grid import Window
from pipeline.products.analysis.accessor import register_cover
from pipeline.products.analysis.open_product import open_product
from pipeline.products.analysis.pixel_fractions import fractions
from pipeline.products.national.grid import NationalGrid
from tests.support.nations import write_nation
from tests.support.products import TILE, sealed_at, tile_at

GRID = NationalGrid(
    extent=Window.from_bounds((995_500, 6_740_000, 996_500, 6_742_500)), tile=2500, shard=2500, chunk=500
)
"""1 × 2.5 km around one commune of the Territoire de Belfort."""


@pytest.fixture(scope="session")
def communes(shared_data: Path) -> gpd.GeoDataFrame:
    folder = shared_data / "admin_france" / "90-territoire-de-belfort"
    return gpd.read_file(folder / "communes-90-territoire-de-belfort.geojson")


@pytest.fixture(scope="module")
def classes() -> NDArray[np.uint8]:
    """Patches of 7 × 11 px: no border of a class lies on a cell's."""
    rng = np.random.default_rng(7)
    rows, cols = GRID.extent.shape
    small = rng.integers(0, 13, (-(-rows // 7), -(-cols // 11)), np.uint8)
    return np.ascontiguousarray(small.repeat(7, axis=0)[:rows].repeat(11, axis=1)[:, :cols])


@pytest.fixture(scope="module")
def national(classes: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nation")
    write_nation(folder, GRID, classes)
    return folder


def counted_apart(classes: NDArray[np.uint8], zone: BaseGeometry) -> NDArray[np.float64]:
    """Square metres by value from exactextract, which shares no code with ours."""
    left, bottom, right, top = GRID.extent.bounds
    raster = NumPyRasterSource(classes, xmin=left, ymin=bottom, xmax=right, ymax=top)
    frame = gpd.GeoDataFrame(geometry=[zone], crs=2154)
    found = exact_extract(raster, frame, ["count", "unique", "frac"])[0]["properties"]
    areas = np.zeros(20)
    areas[found["unique"]] = np.asarray(found["frac"]) * found["count"] / 25
    return areas


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_each_pixels_fraction_is_the_area_of_its_square_in_the_polygon(seed: int) -> None:
    rng = np.random.default_rng(seed)
    around = [shapely.Point(*rng.uniform(-4, 22, 2)).buffer(rng.uniform(0.2, 12), quad_segs=3) for _ in range(4)]
    shape = shapely.union(around[0], around[1]).difference(around[2]).union(shapely.box(2, 3, 4.5, 9))
    squares = np.array([[shapely.box(x, y, x + 1, y + 1) for x in range(20)] for y in range(13)])
    expected = shapely.area(shapely.intersection(squares, shape))
    np.testing.assert_allclose(fractions(shape, (13, 20)), expected, atol=1e-9)


@pytest.mark.slow
def test_hectares_of_real_communes_are_those_of_a_count_with_fractional_edges(
    national: Path, classes: NDArray[np.uint8], communes: gpd.GeoDataFrame
) -> None:
    product = open_product(national)
    here = communes.to_crs(2154).cx[995_500:996_500, 6_740_000:6_742_500]
    assert len(here) >= 3
    with_cube = product.cover.area_by_class(here, by="nom")
    without = product.copy().cover.area_by_class(here, by="nom")
    inside = shapely.box(*GRID.extent.bounds)
    columns = [f"{legend.BY_VALUE[v].slug}_ha" for v in range(1, 13)]
    for name, row in with_cube.iterrows():
        expected = counted_apart(classes, row.geometry.intersection(inside)) / 10_000
        assert row.mapped_ha == pytest.approx(expected[1:].sum(), rel=1e-6, abs=1e-9), name
        assert row.no_data_ha == pytest.approx(expected[0], rel=1e-6, abs=1e-9)
        np.testing.assert_allclose(row[columns].astype(float), expected[1:13], atol=1e-6 * expected.sum() + 1e-9)
        assert row.outside_ha == pytest.approx(row.area_ha - row.geometry.intersection(inside).area / 1e4, abs=1e-6)
    numbers = with_cube.select_dtypes("number").columns
    np.testing.assert_allclose(with_cube[numbers].astype(float), without[numbers].astype(float), rtol=1e-9, atol=1e-9)


def flat(bounds: tuple[float, float, float, float], pixel: float) -> xr.Dataset:
    """Class 1 everywhere, of any resolution."""
    left, bottom, right, top = bounds
    rows, cols = round((top - bottom) / pixel), round((right - left) / pixel)
    coordinates = {"y": top - (np.arange(rows) + 0.5) * pixel, "x": left + (np.arange(cols) + 0.5) * pixel}
    layers = {"landcover": (("y", "x"), np.ones((rows, cols), np.uint8))}
    register_cover()
    return xr.Dataset(layers, coords=coordinates).rio.write_crs(2154)


def test_ellipsoidal_hectares_are_the_geodesic_areas_of_the_communes(communes: gpd.GeoDataFrame) -> None:
    # Edges are straight on the map; cut short, geodesics follow them.
    on_map = communes.to_crs(2154).set_index("nom").geometry.segmentize(50).iloc[::10]
    ellipsoid = pyproj.Geod(ellps="GRS80")
    for name, zone in on_map.items():
        left, bottom, right, top = (round(b, -2) for b in zone.bounds)
        product = flat((left - 100, bottom - 100, right + 100, top + 100), 2.0)
        found = product.cover.area_by_class(gpd.GeoDataFrame(geometry=[zone], crs=2154), classes=["building"]).iloc[0]
        (degrees,) = gpd.GeoSeries([zone], crs=2154).to_crs(4171)
        geodesic = abs(ellipsoid.geometry_area_perimeter(degrees)[0]) / 10_000
        assert found.building_ellipsoid_ha == pytest.approx(geodesic, rel=2e-6), name  # cells are 1 km wide here
        assert found.building_ha == pytest.approx(zone.area / 10_000, rel=1e-9)
        # It is no small thing that is tested here: Lambert-93 is off by more than one in a thousand.
        assert abs(found.building_ha / geodesic - 1) > 1e-3


GROWING = """
import resource, sys
import geopandas as gpd, numpy as np, shapely
from tests.products.analysis.test_open_product import flat
product = flat((900_000, 6_700_000, 920_000, 6_720_000), 10.0)
side = int(sys.argv[1])
step = 20_000 / side
corners = [(900_000 + i * step, 6_700_000 + j * step) for i in range(side) for j in range(side)]
squares = [shapely.box(x, y, x + step, y + step).buffer(step / 3) for x, y in corners]
zones = gpd.GeoDataFrame(geometry=squares, crs=2154)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
product.cover.area_by_class(zones)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_polygons() -> None:
    grown = [
        int(subprocess.run([sys.executable, "-c", GROWING, side], check=True, capture_output=True, text=True).stdout)
        for side in ("3", "10")
    ]
    # kB; ten times the zones, whose own results and shapes are a few MB.
    assert grown[1] < grown[0] + 30_000


def test_zones_that_share_an_attribute_are_one_and_overlaps_count_once(national: Path) -> None:
    left, bottom, _, _ = GRID.extent.bounds
    boxes = [shapely.box(left + 10.1 + d, bottom + 10, left + 110.1 + d, bottom + 60) for d in (0, 50, 300)]
    zones = gpd.GeoDataFrame({"k": ["a", "a", "b"]}, geometry=boxes, crs=2154)
    found = open_product(national).cover.area_by_class(zones, by="k", classes=["sealed", "building", 3])
    assert found.area_ha.tolist() == pytest.approx([0.75, 0.5])
    np.testing.assert_allclose(found.sealed_ha, found.building_ha + found.impervious_surface_ha)
    assert found.crs.to_epsg() == 2154


def test_the_cube_answers_only_for_the_pixels_that_it_was_counted_from(national: Path) -> None:
    product = open_product(national)
    zones = gpd.GeoDataFrame(geometry=[shapely.box(*GRID.extent.bounds).buffer(-150)], crs=2154)
    whole = product.cover.area_by_class(zones)
    buildings = product.cover.select(["building"]).cover.area_by_class(zones)
    assert buildings.mapped_ha[0] == pytest.approx(whole.building_ha[0], rel=1e-9)
    changed = product.copy(deep=False)
    changed["landcover"] = changed["landcover"].copy(data=np.full(GRID.extent.shape, 5, np.uint8))
    assert changed.cover.area_by_class(zones).water_ha[0] == pytest.approx(float(zones.area[0]) / 1e4, rel=1e-9)


def test_a_lost_piece_of_the_cube_is_an_error_and_not_no_data(tmp_path: Path) -> None:
    grid = NationalGrid(
        extent=Window.from_bounds((995_400, 6_740_000, 995_600, 6_740_200)), tile=1000, shard=1000, chunk=500
    )
    edition = write_nation(tmp_path, grid, np.full((1000, 1000), 4, np.uint8))
    for chunk in (edition / "pyramid.zarr" / "shares" / "count" / "c").rglob("0"):
        if chunk.is_file():
            chunk.unlink()
    zones = gpd.GeoDataFrame(geometry=[shapely.box(*grid.extent.bounds)], crs=2154)
    with pytest.raises(ProductError, match="shard is lost"):
        open_product(tmp_path).cover.area_by_class(zones)


def test_a_nation_an_edition_and_a_domain_open_alike(national: Path, tmp_path: Path) -> None:
    assert pipeline.open_product is open_product
    one = open_product(national)
    same = open_product(national / "editions" / "000001")
    xr.testing.assert_identical(one, same)
    xr.testing.assert_identical(one, open_product(national, edition=1))
    coarse, shares = open_product(national, level=2), open_product(national, level="shares")
    assert coarse.landcover.shape == (one.sizes["y"] // 10, one.sizes["x"] // 10)
    assert coarse.landcover.attrs["flag_colors"] == one.landcover.attrs["flag_colors"]
    assert int(shares["count"].sum()) == one.landcover.size
    tiles = [tile_at(0, 0), tile_at(1, 1)]
    for seed, tile in enumerate(tiles):
        sealed_at(tmp_path, tile, seed=seed)
    domain = open_product(tmp_path)
    assert domain.landcover.chunks is not None
    assert domain.landcover.shape == (2 * TILE, 2 * TILE)
    assert domain.landcover[:TILE, TILE:].values.max() == 0
    assert domain.landcover[:TILE, :TILE].values.max() > 0
    for product in (one, domain):
        assert product.rio.crs.to_epsg() == 2154
        assert product.landcover.attrs["flag_meanings"].split()[:2] == ["no_data", "building"]
        assert product.landcover.attrs["flag_colors"].split()[1] == legend.FLAIR[0].colour


def test_the_first_product_that_is_opened_registers_cover(national: Path) -> None:
    code = (
        "import pipeline, xarray\n"
        "opener = pipeline.open_product\n"
        "assert not hasattr(xarray.Dataset, 'cover')\n"
        f"assert opener({str(national)!r}).cover.select(['water']).landcover.shape\n"
        f"assert opener({str(national)!r}, level=3).isel(x=slice(0, 9)).cover.plot()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_be_opened_is_refused_with_what_is_there(national: Path, tmp_path: Path) -> None:
    with pytest.raises(ProductError, match="there is no edition 7; there is 1"):
        open_product(national, edition=7)
    with pytest.raises(ProductError, match="has no level 9"):
        open_product(national, level=9)
    with pytest.raises(ProductError, match="domains found: none"):
        open_product(tmp_path)
    with pytest.raises(ProductError, match="no such folder"):
        open_product(tmp_path / "nowhere")
    sealed_at(tmp_path, tile_at(0, 0))
    with pytest.raises(ProductError, match="is not a national product"):
        open_product(tmp_path, level=2)
    next(tmp_path.glob("*-landcover.tif")).unlink()
    with pytest.raises(ProductError, match="cannot be read"):
        open_product(tmp_path).landcover.compute()


def test_a_clip_keeps_the_pixels_whose_centres_lie_inside(national: Path, classes: NDArray[np.uint8]) -> None:
    left, _, _, top = GRID.extent.bounds
    circle = shapely.Point(left + 300.07, top - 420.03).buffer(60)
    cut = open_product(national).cover.clip(gpd.GeoSeries([circle], crs=2154).to_crs(4326))
    assert cut.landcover.chunks is not None
    rows = np.rint((top - cut.y.values) * 5 - 0.5).astype(int)
    cols = np.rint((cut.x.values - left) * 5 - 0.5).astype(int)
    x, y = np.meshgrid(cut.x, cut.y)
    inside = shapely.contains_xy(circle, x, y)
    wrong = cut.landcover.values != np.where(inside, classes[np.ix_(rows, cols)], 0)
    assert wrong.sum() <= 4  # the way there and back moves the outline by a micrometre
    assert (cut.confidence.values == 0)[~inside].sum() >= (~inside).sum() - 4
    assert cut.landcover.dtype == np.uint8
    with pytest.raises(ProductError, match="lies outside the product"):
        cut.cover.clip(shapely.Point(0, 0).buffer(1))


def test_a_selection_leaves_groups_and_classes_and_a_drawing_names_them(national: Path) -> None:
    part = open_product(national).isel(y=slice(0, 400), x=slice(0, 400))
    chosen = part.cover.select(["sealed", "plowed_land", 5])
    assert set(np.unique(chosen.landcover)) == {0, 1, 3, 5, 12}
    axes = chosen.cover.plot(title="what is sealed")
    shown = [t.get_text() for t in axes.get_legend().get_texts()]
    assert shown == ["building", "impervious surface", "water", "plowed land"]
    assert axes.get_legend().legend_handles[0].get_facecolor()[:3] == pytest.approx([v / 255 for v in (219, 14, 154)])
    with pytest.raises(ConfigError, match="neither a group"):
        part.cover.select(["concrete"])


def test_the_legend_of_a_square_map_lies_inside_its_figure(national: Path) -> None:
    part = open_product(national).isel(y=slice(0, 400), x=slice(0, 400)).copy(deep=True)
    part["landcover"] = part.landcover.copy(
        data=np.resize([c.value for c in legend.FLAIR], (400, 400)).astype(np.uint8)
    )
    axes = part.cover.plot(title="every class")
    axes.figure.canvas.draw()
    box = axes.get_legend().get_window_extent()
    assert box.x1 <= axes.figure.bbox.width
    assert box.x0 >= axes.get_window_extent().x1


def test_groups_share_no_class_and_name_only_classes() -> None:
    values = [v for group in legend.GROUPS.values() for v in group]
    assert len(values) == len(set(values))
    assert set(values) <= set(legend.BY_VALUE)
    assert legend.members("sealed") == (1, 3)


def test_importing_the_package_stays_light() -> None:
    code = "import pipeline, sys; print(sorted({'torch', 'xarray', 'rasterio', 'geopandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
