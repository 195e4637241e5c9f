"""A sample of a map: drawn at random, interpreted, read again; and its intervals over a map whose truth is known."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rioxarray  # noqa: F401 (registers .rio)
import shapely
import xarray as xr
from PIL import Image

from pipeline.demo.landscape import Landscape
from pipeline.errors import EvaluationError, ProductError
from pipeline.evaluation.area_estimation import allocate
from pipeline.evaluation.stratified_shares import simple_shares
from pipeline.grid import Window
from pipeline.products.analysis.accessor import register_cover
from pipeline.products.assessment import reference_sample
from pipeline.products.assessment.class_maps import find_maps
from pipeline.products.assessment.reference_sample import blocks_of, count, draw, read_sample
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
    meta, _, wkb, (number, name, mapped, area, reference, *_) = pyogrio.raw.read(tmp_path / "s.gpkg", layer="sample")
    assert list(meta["fields"])[:6] == ["point", "map", "mapped", "mapped_m2", "reference", "crop"]
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
    counts = np.stack([count(b)[0] for b in blocks])
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
    # Coniferous is not on the map, so no user's accuracy exists: not 0.
    assert written["classes"][2]["users"] is None
    assert written["classes"][2]["producers"]["value"] == 0
    assert written["classes"][0]["users"]["low"] < 1
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
    counts = np.stack(
        [rng.multivariate_hypergeometric(row, units[k], 1000) for k, row in enumerate(population)], axis=1
    )
    weights, truths = areas / areas.sum(), true / true.sum()
    limits = [simple_shares(counts[..., k], counts[0].sum(axis=-1), weights).interval() for k in range(len(values))]
    covered = [((low <= truths[k]) & (truths[k] <= high)).mean() for k, (low, high) in enumerate(limits)]
    assert min(covered) >= 0.93, covered
    assert 0.94 <= np.mean(covered) <= 0.98, covered


def test_too_small_a_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="10 units are too few: expected at least 20 for each of the 3"):
        sample_map(maps_of(tmp_path / "maps"), out=tmp_path / "s.gpkg", size=10, least=20)


def dataset(classes: np.ndarray) -> xr.Dataset:
    """A product with the pixels of the first of `maps_of`."""
    y, x = 6_600_000 - 0.2 * (np.arange(len(classes)) + 0.5), 700_000 + 0.2 * (np.arange(classes.shape[1]) + 0.5)
    layers = {"landcover": (("y", "x"), classes.astype(np.uint8))}
    found: xr.Dataset = xr.Dataset(layers, coords={"y": y, "x": x}).rio.write_crs(2154)
    return found


def edited(path: Path, change: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame]) -> Path:
    """A copy of a sample after a change, written as GIS programs write it."""
    other = path.with_name("edited.gpkg")
    other.unlink(missing_ok=True)
    change(gpd.read_file(path, layer="sample")).to_file(other, layer="sample", driver="GPKG")
    return other


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample of 90 points, interpreted as mapped; 22 are buildings."""
    folder = tmp_path_factory.mktemp("drawn")
    path = sample_map(maps_of(folder / "maps"), out=folder / "s.gpkg", size=90, least=20).path
    interpret(path, lambda mapped, *_: mapped)
    return path


def moved(points: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    points.loc[4, "geometry"] = shapely.Point(points.geometry[4].x + 0.2, points.geometry[4].y)
    return points


def restratified(points: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    at = points.index[points.mapped == 5][0]
    points.loc[at, ["mapped", "mapped_m2"]] = (7, points.mapped_m2[points.mapped == 7].iloc[0])
    return points


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda p: p[p.mapped != 1],
            r"expected 90 points, found 68 \(building: expected 22, found 0\); 22 points are miss",
        ),
        (lambda p: p.drop(index=7), r"expected 90 points, found 89 .*1 points are missing: 8"),
        (lambda p: pd.concat([p, p.iloc[[3]]]), r"found 91 .*1 points are repeated or not of this sample: 4"),
        (lambda p: pd.concat([p.drop(index=7), p.iloc[[3]]]), r"1 points are missing: 8; 1 points are repeated"),
        (moved, r"point 5 moved: expected 700\d+\.\d\d, .* found 700"),
        (restratified, r"point \d+: expected stratum water, found deciduous"),
        (lambda p: p.assign(mapped_m2=p.mapped_m2 * 2), r"expected mapped_m2 \d+"),
        (lambda p: p.assign(cluster=1), "its seal does not fit"),
        (lambda p: p.assign(x=p.x + 1, geometry=p.translate(1, 0)), "its seal does not fit"),
        (lambda p: p.to_crs(4326), "expected CRS EPSG:2154, in which it was drawn, found EPSG:4326"),
        (lambda p: p.assign(design=p.design.str.replace('"seed":2022', '"seed":1')), "its seal does not fit"),
        (lambda p: p.assign(design="{}"), "column design is damaged"),
        (lambda p: p.drop(columns="design"), r"its design is not sealed \(attributes design are missing\).*--unsealed"),
    ],
)
def test_a_sample_that_is_not_as_it_was_drawn_is_refused(
    drawn: Path, change: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame], said: str
) -> None:
    assert read_sample(edited(drawn, lambda points: points)).design is not None, "a copy is as good"
    with pytest.raises(ProductError, match=said):
        read_sample(edited(drawn, change))


def test_points_of_two_samples_are_not_one(drawn: Path) -> None:
    other = sample_map(drawn.parent / "maps", out=drawn.parent / "o.gpkg", size=90, least=20, seed=1).path
    half = gpd.read_file(other, layer="sample").iloc[45:]
    with pytest.raises(ProductError, match="expected the points of one sample, found rows of 2 designs"):
        read_sample(edited(drawn, lambda points: pd.concat([points.iloc[:45], half])))


def test_a_sample_of_another_map_is_refused(drawn: Path, tmp_path: Path) -> None:
    maps = drawn.parent / "maps"
    assert evaluate_sample(drawn, out=tmp_path / "out", place=maps).overall.value == 1
    # The same pixels in a file of another name are the same map.
    shutil.copytree(maps, tmp_path / "copy")
    first = tmp_path / "copy" / "D034_2021-0-landcover.tif"
    first.rename(first.with_name("D034_2021-9-landcover.tif"))
    assert evaluate_sample(drawn, out=tmp_path / "out", place=tmp_path / "copy").overall.value == 1
    (one, two) = find_maps(maps)
    pixels = one.read(one.window)
    write_map(tmp_path / "other" / "D034_2021-1-landcover.tif", two.read(two.window), x=700_030)
    write_map(tmp_path / "other" / "D034_2021-0-landcover.tif", pixels[::-1], x=700_000)
    with pytest.raises(ProductError, match=r"not the map .* its classes have the same areas in other places"):
        evaluate_sample(drawn, out=tmp_path / "out", place=tmp_path / "other")
    write_map(tmp_path / "other" / "D034_2021-0-landcover.tif", np.where(pixels == 1, 5, pixels), x=700_000)
    with pytest.raises(ProductError, match=r"not the map .* expected building 0\.0\d+ ha, found 0\.0\d+ ha"):
        evaluate_sample(drawn, out=tmp_path / "out", place=tmp_path / "other")
    zones = gpd.GeoDataFrame(geometry=[shapely.box(700_000, 6_599_980, 700_030, 6_600_000)], crs=2154)
    register_cover()
    assert dataset(pixels).cover.area_by_class(zones, sample=drawn).not_adjusted[0]
    with pytest.raises(ProductError, match=r"drawn from another map: .* expected building, found water"):
        dataset(np.where(pixels == 1, 5, pixels)).cover.area_by_class(zones, sample=drawn)


def test_a_sample_of_an_earlier_version_is_accepted_knowingly(drawn: Path, tmp_path: Path) -> None:
    sealed = ["cluster", "x", "y", "seal", "design"]
    old = edited(drawn, lambda points: points.drop(columns=sealed))
    with pytest.raises(ProductError, match="--unsealed"):
        evaluate_sample(old, out=tmp_path)
    done = evaluate_sample(old, out=tmp_path, unsealed=True)
    assert done.classes == evaluate_sample(drawn, out=tmp_path / "sealed").classes
    assert "no sealed design" in (tmp_path / "area.html").read_text()
    with pytest.raises(ProductError, match="does not say from which map"):
        evaluate_sample(old, out=tmp_path, unsealed=True, place=drawn.parent / "maps")


def test_points_in_drawn_squares_are_a_two_stage_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_sample, "_BLOCK", 50)
    maps = maps_of(tmp_path / "maps")
    path = sample_map(maps, out=tmp_path / "s.gpkg", size=90, least=20, clusters=5).path
    interpret(path, lambda mapped, *_: mapped)
    points = gpd.read_file(path, layer="sample")
    assert sorted(points.cluster.unique()) == [1, 2, 3, 4, 5]
    places = zip(points["map"], points["x"], points["y"], strict=True)
    squares = {(name, round(x // 10), round(y // 10)) for name, x, y in places}
    assert len(squares) == 5
    done = evaluate_sample(path, out=tmp_path / "out", place=maps)
    assert done.design == "90 points in 5 clusters (two stages), stratified by mapped class"
    simple = sample_map(maps, out=tmp_path / "simple.gpkg", size=90, least=20).path
    interpret(simple, lambda mapped, *_: mapped)
    assert done.overall.low < evaluate_sample(simple, out=tmp_path / "out").overall.low
    with pytest.raises(ProductError, match=r"expected 2\.\.12 clusters, squares of 1 km with mapped pixels; got 13"):
        sample_map(maps, out=tmp_path / "s.gpkg", size=90, least=20, clusters=13)
    with pytest.raises(ProductError, match=r"building has \d+ pixels in the 2 drawn squares; draw more clusters; 400"):
        sample_map(maps, out=tmp_path / "s.gpkg", size=1_200, least=400, clusters=2)


def test_few_points_are_said_on_the_page_and_in_json(drawn: Path, tmp_path: Path) -> None:
    (note,) = evaluate_sample(drawn, out=tmp_path).notes
    assert note.startswith("Fewer than 30 points were drawn of: building (22), water (28).")
    assert json.loads((tmp_path / "area.json").read_text())["notes"] == [note]
    assert "Fewer than 30 points" in (tmp_path / "area.html").read_text()
