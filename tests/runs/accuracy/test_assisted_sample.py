"""A sample that is planned for an area, and areas by the map's confidence and by the composite model, on files."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rioxarray
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from pipeline.errors import ConfigError
from pipeline.legend import Layer
from pipeline.products.analysis.accessor import register_cover
from pipeline.products.tile.cog import write_cog
from pipeline.runs.accuracy.sample_size import SampleGoal
from pipeline.runs.accuracy.stratified_sample import evaluate_sample, sample_map
from tests.runs.accuracy.test_stratified_sample import interpret

LEFT, TOP, SIDE = 700_000, 6_600_000, 300


@pytest.fixture
def truth() -> np.ndarray:
    rng = np.random.default_rng(4)
    return rng.choice(np.array([1, 3, 5], np.uint8), (30, 30), p=(0.2, 0.3, 0.5)).repeat(10, 0).repeat(10, 1)


@pytest.fixture
def maps(tmp_path: Path, truth: np.ndarray) -> Path:
    """A map that is right as often as its confidence says."""
    rng = np.random.default_rng(5)
    confidence = rng.integers(64, 256, truth.shape, dtype=np.uint8)
    wrong = np.where(truth == 5, 1, 5)
    classes = np.where(rng.random(truth.shape) < confidence / 255, truth, wrong).astype(np.uint8)
    layers: dict[Layer, np.ndarray] = {"landcover": classes, "confidence": confidence}
    geobox = GeoBox(truth.shape, Affine(0.2, 0, LEFT, 0, -0.2, TOP), "EPSG:2154")
    (tmp_path / "maps").mkdir()
    for layer, pixels in layers.items():
        path = tmp_path / "maps" / f"D034_2021-0-{layer}.tif"
        write_cog(path, pixels, layer=layer, geobox=geobox, live=tuple(range(1, 13)), tags={})
    return tmp_path / "maps"


def answer(path: Path, truth: np.ndarray) -> None:
    interpret(path, lambda _, x, y: truth[((TOP - y) * 5).astype(int), ((x - LEFT) * 5).astype(int)])


def test_a_goal_is_parsed_and_others_are_refused() -> None:
    assert SampleGoal.parse("sealed ± 2 %") == SampleGoal("sealed", (1, 3), 2.0, "%")
    assert SampleGoal.parse("bare soil +- 0,5 ha at 90%") == SampleGoal("bare soil", (4,), 0.5, "ha", 0.9)
    assert SampleGoal.parse("Bare_Soil±0,125\N{NARROW NO-BREAK SPACE}%") == SampleGoal("Bare_Soil", (4,), 0.125, "%")
    for text, why in {
        "sealed 2 %": "expected a class or a group",
        "sealed ± 60 %": "a half width above 0",
        "sealed ± 2 % at 40 %": "a confidence of 50",
        "sealed ± 1,250 ha": "1,250 may be 1.25 or 1250 ha",
        "sealt ± 2 %": "'sealt' is neither a group",
    }.items():
        with pytest.raises(ConfigError, match=why):
            SampleGoal.parse(text)


def test_the_sample_for_an_area_gives_it_and_the_confidences_sharpen_it(
    maps: Path, truth: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "s.gpkg"
    drawn = sample_map(maps, out=out, size=SampleGoal.parse("sealed ± 4 %"), least=30)
    assert drawn.plan is not None
    assert drawn.plan.from_confidence
    assert 0.038 < drawn.plan.half_width <= 0.04
    assert any("95 % interval: " in sentence and "of the map" in sentence for sentence in drawn.plan.sentences())
    # The plan believes the confidences, which come true here: the errors' classes are all that it has to guess.
    assert sum(drawn.plan.expected[v] * drawn.plan.mapped_m2[v] for v in (1, 3, 5)) == pytest.approx(
        float(np.isin(truth, (1, 3)).sum() * 0.04), rel=0.2
    )
    answer(out, truth)
    alone = evaluate_sample(out, out=tmp_path / "alone")
    assert alone.regression is None
    assert "regression_ha" not in (tmp_path / "alone" / "area.json").read_text()
    both = evaluate_sample(out, out=tmp_path / "both", place=maps, workers=2)
    assert both.overall == alone.overall
    assert both.regression is not None
    assert abs(both.regression.value - both.overall.value) < 0.05
    assert both.regression.standard_error < both.overall.standard_error
    for c in both.classes:
        assert c.regression_ha is not None
        true_ha = float((truth == c.land_cover.value).sum()) * 0.04 / 1e4
        assert abs(c.regression_ha.value - true_ha) < 4 * c.regression_ha.standard_error
    written = json.loads((tmp_path / "both" / "area.json").read_text())
    assert written["overall_regression"]["value"] == both.regression.value
    assert "estimated with the confidences, ha" in both.report.read_text()
    with pytest.raises(ConfigError, match="leave out the clusters"):
        sample_map(maps, out=out, size=SampleGoal.parse("sealed ± 4 %"), clusters=2)
    with pytest.raises(ConfigError, match="the map has none of it; expected one of building, impervious"):
        sample_map(maps, out=out, size=SampleGoal.parse("vineyard ± 4 %"))
    with pytest.raises(ConfigError, match=r"2 ha is 556 % of the map, which has 0\.36 ha; expected less than 50 %"):
        sample_map(maps, out=out, size=SampleGoal.parse("sealed ± 2 ha"))


def test_a_class_of_one_pixel_is_sampled_whole(maps: Path, truth: np.ndarray, tmp_path: Path) -> None:
    with rasterio.open(maps / "D034_2021-0-landcover.tif") as file:
        classes = file.read(1)
    classes[7, 9] = 14
    one = tmp_path / "one.tif"
    geobox = GeoBox(truth.shape, Affine(0.2, 0, LEFT, 0, -0.2, TOP), "EPSG:2154")
    write_cog(one, classes, layer="landcover", geobox=geobox, live=tuple(range(1, 16)), tags={})
    out = tmp_path / "s.gpkg"
    assert sample_map(one, out=out, size=SampleGoal.parse("sealed ± 8 %")).units[14] == 1
    answer(out, truth)
    done = evaluate_sample(out, out=tmp_path / "one", place=one)
    (snow,) = (c for c in done.classes if c.land_cover.value == 14)
    assert (snow.points, snow.users.value, snow.area_ha.value) == (1, 0, 0)
    assert not any("snow" in note for note in done.notes)


def test_small_zones_borrow_strength_only_where_they_have_too_few_points(
    maps: Path, truth: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "s.gpkg"
    sample_map(maps, out=out, size=900)
    answer(out, truth)
    with rioxarray.open_rasterio(maps / "D034_2021-0-landcover.tif") as raster:
        product = xr.Dataset({"landcover": raster.squeeze("band", drop=True).drop_vars("spatial_ref")})
    product = product.rio.write_crs(2154)
    squares = [
        shapely.box(LEFT + c, TOP - r - 15, LEFT + c + 15, TOP - r) for r in range(0, 60, 15) for c in range(0, 60, 15)
    ]
    zones = gpd.GeoDataFrame(
        {"k": range(17)}, geometry=[*squares, shapely.box(LEFT, TOP - 60, LEFT + 60, TOP)], crs=2154
    )
    register_cover()
    plain = product.cover.area_by_class(zones, by="k", classes=["sealed"], sample=out)
    found = product.cover.area_by_class(zones, by="k", classes=["sealed"], sample=out, composite=True)
    assert (plain.not_adjusted != "").sum() >= 10
    assert list(found.estimated_by[plain.not_adjusted != ""].unique()) == ["composite model"]
    assert found.estimated_by[16] == "points in the zone"
    assert found.sealed_adjusted_ha[16] == plain.sealed_adjusted_ha[16]
    true = [
        np.isin(truth[5 * r : 5 * r + 75, 5 * c : 5 * c + 75], (1, 3)).sum() * 0.04 / 1e4
        for r in range(0, 60, 15)
        for c in range(0, 60, 15)
    ]
    assert found.sealed_adjusted_ha[:16].sum() == pytest.approx(sum(true), rel=0.15)
    assert (found.sealed_low_ha < found.sealed_adjusted_ha).all()
    assert (found.sealed_adjusted_ha < found.sealed_high_ha).all()
    alike = product.cover.area_by_class(zones.set_axis([0] * 17), classes=["sealed"], sample=out, composite=True)
    assert alike.sealed_adjusted_ha.tolist() == found.sealed_adjusted_ha.tolist(), "whatever their labels"
