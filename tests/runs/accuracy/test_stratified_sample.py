"""A sample of a map: drawn at random, interpreted, read again; and its intervals over a map whose truth is known."""

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rioxarray  # noqa: F401 (registers .rio)
import shapely
import xarray as xr
from PIL import Image

from pipeline.demo.landscape import Landscape
from pipeline.errors import EvaluationError, ProductError
from pipeline.evaluation.area_estimation import allocate, estimate
from pipeline.grid import Window
from pipeline.products.analysis.accessor import register_cover
from pipeline.products.assessment.class_maps import find_maps
from pipeline.products.assessment.reference_sample import blocks_of, count, draw
from pipeline.runs.accuracy.stratified_sample import evaluate_sample, sample_map
from tests.runs.accuracy.test_evaluate import write_map
from tests.support.campaigns import TILE, Made, make_campaign


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_campaign(tmp_path / "campaign", at=((0, 0), (0, 1)))


def maps_of(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for k in range(2):
        classes = rng.choice(np.array([0, 1, 5, 7], np.uint8), (100, 150), p=(0.1, 0.05, 0.25, 0.6))
        write_map(folder / f"D034_2021-{k}-landcover.tif", classes, x=700_000 + 30 * k)
    return folder


def interpret(path: Path, truth: Any) -> None:
    """Fills `reference` by a function of (mapped, x, y)."""
    meta, _, wkb, columns = pyogrio.raw.read(path, layer="sample")
    names = list(meta["fields"])
    at = shapely.from_wkb(wkb)
    mapped = columns[names.index("mapped")]
    columns[names.index("reference")] = truth(mapped, shapely.get_x(at), shapely.get_y(at))
    path.unlink()
    pyogrio.raw.write(path, wkb, columns, names, layer="sample", driver="GPKG", crs=meta["crs"], geometry_type="Point")


def test_each_point_lies_on_its_class_and_the_seed_decides(tmp_path: Path) -> None:
    place = maps_of(tmp_path / "maps")
    done = sample_map(place, out=tmp_path / "s.gpkg", size=90, least=20)
    assert done.units == {1: 22, 5: 28, 7: 40}
    meta, _, wkb, (number, name, mapped, area, reference, _) = pyogrio.raw.read(tmp_path / "s.gpkg", layer="sample")
    assert list(meta["fields"]) == ["point", "map", "mapped", "mapped_m2", "reference", "crop"]
    maps = {m.name: m for m in find_maps(place)}
    whole = np.concatenate([m.read(m.window).ravel() for m in maps.values()])
    places = set()
    for which, value, m2, point in zip(name, mapped, area, shapely.from_wkb(wkb), strict=True):
        one = maps[which]
        col, row = (int(v) for v in one.geobox.wld2pix(point.x, point.y))
        assert one.read(Window(row, col, 1, 1))[0, 0] == value
        assert m2 == pytest.approx((whole == value).sum() * 0.04)
        places.add((which, row, col))
    assert len(places) == 90
    assert not reference.any()
    assert list(number) == list(range(1, 91))
    assert (np.diff(mapped) < 0).any(), "the order tells the class"
    again = sample_map(place, out=tmp_path / "again.gpkg", size=90, least=20)
    other = sample_map(place, out=tmp_path / "other.gpkg", size=90, least=20, seed=1)
    wkbs = [list(pyogrio.raw.read(s.path, layer="sample")[2]) for s in (done, again, other)]
    assert wkbs[0] == wkbs[1] != wkbs[2]


def test_every_pixel_of_a_class_is_drawn_as_often(tmp_path: Path) -> None:
    write_map(tmp_path / "a-landcover.tif", np.repeat(np.array([[1, 2], [2, 1]], np.uint8), 2, axis=1))
    blocks = blocks_of(find_maps(tmp_path))
    counts = np.stack([count(b) for b in blocks])
    times = np.zeros((2, 4))
    for seed in range(600):
        for point in draw(blocks, counts, {1: 2}, seed=seed):
            times[point.row, point.col] += 1
    assert times[0, 2:].sum() == times[1, :2].sum() == 0
    assert np.abs(times[times > 0] / 600 - 0.5).max() < 0.08
    with pytest.raises(ProductError, match="building has 4 pixels; 5 points were to be drawn"):
        draw(blocks, counts, {1: 5}, seed=0)


def test_an_interpreted_sample_gives_accuracy_and_areas(tmp_path: Path) -> None:
    sample_map(maps_of(tmp_path / "maps"), out=tmp_path / "s.gpkg", size=300, least=60)
    with pytest.raises(ProductError, match="300 of 300 points have no FLAIR value"):
        evaluate_sample(tmp_path / "s.gpkg", out=tmp_path / "out")
    # Every fifth point mapped as water (5) is coniferous (6), which the map does not have.
    interpret(tmp_path / "s.gpkg", lambda mapped, x, _: np.where((mapped == 5) & (np.round(x * 5) % 5 == 0), 6, mapped))
    done = evaluate_sample(tmp_path / "s.gpkg", out=tmp_path / "out")
    assert [c.land_cover.value for c in done.classes] == [1, 5, 6, 7]
    assert done.classes[0].users.value == 1
    assert done.classes[1].users.value == pytest.approx(0.8, abs=0.15)
    assert sum(c.area_ha.value for c in done.classes) == pytest.approx(sum(c.mapped_ha for c in done.classes))
    written = json.loads((tmp_path / "out" / "area.json").read_text())
    assert written["overall"]["value"] == done.overall.value
    assert [row["class"] for row in written["classes"]] == ["building", "water", "coniferous", "deciduous"]
    assert "coniferous" in done.report.read_text()


@pytest.mark.slow
def test_a_zones_true_areas_lie_in_its_intervals_and_small_zones_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    shape = (600, 600)
    truth = rng.choice(np.array([1, 3, 5], np.uint8), (60, 60), p=(0.2, 0.3, 0.5)).repeat(10, 0).repeat(10, 1)
    mapped = np.where(rng.random(shape) < 0.15, 5, truth).astype(np.uint8)
    write_map(tmp_path / "maps" / "D034_2021-0-landcover.tif", mapped, x=700_000)
    (one,) = find_maps(tmp_path / "maps")
    a, _, left, _, _, top, *_ = one.geobox.affine
    y, x = top - a * (np.arange(shape[0]) + 0.5), left + a * (np.arange(shape[1]) + 0.5)
    product = xr.Dataset({"landcover": (("y", "x"), mapped)}, coords={"y": y, "x": x}).rio.write_crs(2154)
    half = shapely.box(left, top - 120, left + 60, top)
    zones = gpd.GeoDataFrame(
        {"k": ["half", "corner"]}, geometry=[half, shapely.box(left, top - 5, left + 5, top)], crs=2154
    )
    true_m2 = {"sealed": np.isin(truth[:, :300], (1, 3)).sum() / 25, "water": (truth[:, :300] == 5).sum() / 25}
    register_cover()
    covered = 0
    for seed in range(40):
        sample_map(tmp_path / "maps", out=tmp_path / "s.gpkg", size=400, seed=seed)
        place = lambda sx, sy: truth[((top - sy) / a).astype(int), ((sx - left) / a).astype(int)]  # noqa: E731
        interpret(tmp_path / "s.gpkg", lambda _, sx, sy, place=place: place(sx, sy))
        found = product.cover.area_by_class(zones, by="k", classes=["sealed", "water"], sample=tmp_path / "s.gpkg")
        for slug, area in true_m2.items():
            covered += found[f"{slug}_low_ha"]["half"] <= area / 1e4 <= found[f"{slug}_high_ha"]["half"]
    # 80 intervals of 95 %: fewer than 70 have a chance below 1 in 1000, though the two classes' go together.
    assert covered >= 70
    assert found.water_ha["half"] > 1.05 * true_m2["water"] / 1e4
    assert found.not_adjusted["half"] == ""
    assert "sampled points in" in found.not_adjusted["corner"]
    assert np.isnan(found.sealed_adjusted_ha["corner"])


def test_crops_show_the_imagery_around_each_point(made: Made, tmp_path: Path) -> None:
    made.index()
    tile = made.delivery.tiles[0]
    left, _, _, top = tile.window.bounds
    name = f"{made.delivery.domain}-{tile.name}-landcover.tif"
    write_map(tmp_path / "maps" / name, np.ones((TILE, TILE), np.uint8), x=left, y=top)
    done = sample_map(tmp_path / "maps", out=tmp_path / "s.gpkg", size=3, least=2, catalog=made.folder / "catalog")
    assert done.crops == 3
    crops = pyogrio.raw.read(tmp_path / "s.gpkg", layer="sample", columns=["crop"])[3][0]
    for crop in crops:
        with Image.open(tmp_path / crop) as picture:
            assert picture.size == (512, 512)
            assert np.asarray(picture).std() > 1


def test_intervals_cover_the_true_areas_of_the_demos_country_in_19_of_20_samples() -> None:
    scene = Landscape(2022, 2021).scene(Window(-31_425_000, 3_925_000, 1000, 1000))
    truth = scene.truth
    rng = np.random.default_rng(0)
    # A map that errs more in some classes than in others, and shifts areas.
    mapped = np.where(rng.random(truth.shape) < 0.08 + 0.02 * (truth % 4), np.roll(truth, 60, axis=1), truth)
    values = [v for v in np.unique(mapped).tolist() if (mapped == v).mean() > 0.03]
    kept = np.isin(truth, values) & np.isin(mapped, values)
    truth, mapped = np.searchsorted(values, truth[kept]), np.searchsorted(values, mapped[kept])
    population = np.zeros((len(values), len(values)), np.int64)
    np.add.at(population, (mapped, truth), 1)
    areas, true = population.sum(axis=1), population.sum(axis=0)
    units = allocate(dict(enumerate(areas.astype(float).tolist())), 1200, least=100)
    covered = np.zeros(len(values))
    for _ in range(1000):
        counts = np.stack([rng.multivariate_hypergeometric(row, units[k]) for k, row in enumerate(population)])
        low, high = np.array([e.interval for e in estimate(counts, areas.tolist()).areas]).T
        covered += (low <= true) & (true <= high)
    assert 0.93 <= covered.mean() / 1000 <= 0.97, covered


def test_too_small_a_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="10 units are too few: expected at least 20 for each of the 3"):
        sample_map(maps_of(tmp_path / "maps"), out=tmp_path / "s.gpkg", size=10, least=20)
