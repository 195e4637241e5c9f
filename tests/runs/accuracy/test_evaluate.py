"""Networks on labelled patches and maps against references: exact, whatever the order, the workers and the grid."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
import yaml
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy.special import softmax
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.domain import Domain
from pipeline.errors import ClusterError, ConfigError, EvaluationError, ProductError, SourceError
from pipeline.evaluation import confusion_matrix, scores
from pipeline.geobox import lattice_geobox
from pipeline.grid import Window, union
from pipeline.halo import Layout
from pipeline.inference import Engine, predictor_for
from pipeline.inference.array_source import ArraySource
from pipeline.inference.block_mapping import map_block
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.legend import to_flair
from pipeline.model import Ensemble, Model, load_model
from pipeline.products.tile.cog import write_cog
from pipeline.runs.accuracy.evaluate import evaluate_map, evaluate_set
from pipeline.runs.accuracy.scoring import EvaluationOptions, EvaluationResult
from pipeline.sources.labels.patches import find_patches, read_image, read_mask, write_patch
from pipeline.sources.labels.reference import Reference
from tests.support.campaigns import RECIPE, write_weights
from tests.support.dask_client import in_process_client
from tests.support.flair_dataset import random_set, real_layout
from tests.support.products import product, publish, stack_of, tile_at


@dataclass(frozen=True)
class Net:
    weights: str
    recipe: str

    @property
    def model(self) -> Model:
        return load_model(self.weights, self.recipe)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Net:
    folder = tmp_path_factory.mktemp("net")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    return Net(str(write_weights(folder / "tiny_weights.pth", folder / "tiny.yaml")), str(folder / "tiny.yaml"))


@dataclass(frozen=True, eq=False)
class EvaluatedSet:
    """Random patches, evaluated in this process."""

    data: Path
    out: Path
    done: EvaluationResult


@pytest.fixture(scope="module")
def evaluated(net: Net, tmp_path_factory: pytest.TempPathFactory) -> EvaluatedSet:
    folder = tmp_path_factory.mktemp("evaluated")
    data, out = random_set(folder / "set"), folder / "out"
    return EvaluatedSet(data, out, evaluate_set([data], model=net.model, out=out, engine="torch"))


@pytest.mark.slow
def test_a_set_is_compared_patch_by_patch_whatever_the_workers(
    net: Net, evaluated: EvaluatedSet, tmp_path: Path
) -> None:
    expected = np.zeros((19, 19), np.int64)
    model = net.model
    for patch in find_patches([evaluated.data]):
        pixels = read_image(patch, bands=model.recipe.bands)
        classes = predictor_for(model, Engine("torch"))(pixels[None], np.ones((1, 64, 64), bool))[0, 0]
        expected += confusion_matrix(read_mask(patch) - 1, classes - 1, 19)
    given: dict[str, Any] = {"model": net.model, "engine": "torch"}
    spread = evaluate_set([evaluated.data], out=tmp_path / "spread", options=EvaluationOptions(workers=2), **given)
    np.testing.assert_array_equal(evaluated.done.evaluation.matrix, expected)
    np.testing.assert_array_equal(np.load(tmp_path / "spread" / "confmat.npy"), expected)
    assert (evaluated.out / "metrics.json").read_text() == (tmp_path / "spread" / "metrics.json").read_text()
    assert spread.report.stat().st_size > 10_000


def test_adjoining_patches_are_scored_as_one_map_too(net: Net, tmp_path: Path) -> None:
    """Four patches cut from one image, and one far away."""
    rng = np.random.default_rng(3)
    pixels, mask = rng.integers(0, 256, (5, 128, 128), np.uint8), rng.integers(1, 13, (128, 128), np.uint8)
    for number, (row, col) in enumerate([(0, 0), (0, 64), (64, 0), (64, 64), (0, 64)]):
        north, west = -6_600_000 * 5 + (640 if number == 4 else 0) + row, 700_000 * 5 + col
        part = Window(row, col, 64, 64).slices
        geobox = lattice_geobox(Window(north, west, 64, 64), "EPSG:2154")
        write_patch(tmp_path / "set", ("D004_2021", "Z1_NN", number), pixels[:, *part], mask[part], geobox=geobox)
    done = evaluate_set([tmp_path / "set"], model=net.model, out=tmp_path / "out", engine="torch")
    model, layout = net.model, Layout()
    whole, expected = Window(-6_600_000 * 5, 700_000 * 5, 128, 128), np.zeros((19, 19), np.int64)
    for window, own in ((whole, np.s_[:, :]), (Window(whole.row + 640, whole.col + 64, 64, 64), np.s_[:64, 64:])):
        source = ArraySource(pixels[:, *own], np.ones(window.shape, bool), window, window)
        mapped = map_block(source, window, layout=layout, predictor=predictor_for(model, Engine("torch")))
        expected += confusion_matrix(mask[own] - 1, mapped[0] - 1, 19)
    both = done.evaluation.as_mapped
    assert both is not None
    np.testing.assert_array_equal(both.matrix, expected)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "confmat-as-mapped.npy"), expected)
    assert (both.matrix != done.evaluation.matrix).any(), "alone, patches are mapped otherwise"
    assert both.about["adjoining"] == "4 patches in 1 mosaics"
    assert both.about["without a neighbour"].startswith("1 patches")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["as_mapped"]["pixels"] == written["pixels"] == 5 * 64 * 64
    assert "as mapped, mode legacy" in done.report.read_text()


def test_patches_can_be_scored_alone_only(net: Net, evaluated: EvaluatedSet, tmp_path: Path) -> None:
    options = EvaluationOptions(as_mapped=False)
    given: dict[str, Any] = {"model": net.model, "engine": "torch"}
    done = evaluate_set([evaluated.data], out=tmp_path, options=options, **given)
    assert done.evaluation.as_mapped is None
    assert "as mapped" not in done.report.read_text()
    np.testing.assert_array_equal(done.evaluation.matrix, evaluated.done.evaluation.matrix)


def test_a_running_cluster_gives_the_same_matrix_and_stays(net: Net, evaluated: EvaluatedSet, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": net.model, "engine": "torch"}
    with in_process_client(threads=1) as client:
        options = EvaluationOptions(scheduler=client.scheduler.address)
        done = evaluate_set([evaluated.data], out=tmp_path / "out", options=options, **given)
        assert len(client.nthreads()) == 1
    np.testing.assert_array_equal(done.evaluation.matrix, evaluated.done.evaluation.matrix)
    with pytest.raises(ClusterError, match="neither an address"):
        evaluate_set([evaluated.data], out=tmp_path / "none", options=EvaluationOptions(scheduler="nobody"), **given)


def test_the_files_hold_the_figures_by_domain_with_intervals_over_zones(
    net: Net, evaluated: EvaluatedSet, tmp_path: Path
) -> None:
    written = json.loads((evaluated.out / "metrics.json").read_text())
    matrix = np.load(evaluated.out / "confmat.npy")
    legacy = scores(matrix, live=range(12), mode="legacy")
    assert written["Avg_metrics"][:2] == pytest.approx([100 * legacy["miou"], 100 * legacy["oa"]])
    assert written["modes"]["present"]["miou"] == pytest.approx(scores(matrix, live=range(12), mode="present")["miou"])
    assert written["modes"]["present"]["miou"] > written["modes"]["legacy"]["miou"]
    assert written["by_domain"].keys() == {"D010_2021", "D011_2021"}
    assert written["intervals_95"]["units"] == "4 zones"
    low, high = written["intervals_95"]["means"]["oa"]
    assert low <= legacy["oa"] <= high
    assert 0 <= written["expected_calibration_error"] <= 1
    assert sum(m.sum() for m in evaluated.done.evaluation.by_domain.values()) == matrix.sum() == 8 * 64 * 64
    by_patch = evaluate_set(
        [evaluated.data],
        model=net.model,
        out=tmp_path / "p",
        engine="torch",
        options=EvaluationOptions(units="patches"),
    )
    assert by_patch.evaluation.intervals is not None
    assert by_patch.evaluation.intervals.units == 8


@pytest.mark.slow
def test_the_command_for_the_published_weights_runs_on_the_real_layout(shared_data: Path, tmp_path: Path) -> None:
    weights = shared_data / "weights" / "mini_resnet34-unet_weights.pth"
    recipe = "flair-inc_rgbie_12cl_resnet34-unet"
    places = real_layout(shared_data, tmp_path)
    done = evaluate_set(places, model=load_model(weights, recipe), out=tmp_path / "out")
    assert done.evaluation.matrix.sum() == 5 * 512 * 512
    assert len(done.evaluation.by_domain) == 5
    # The card's own way, step by step: normalise, forward, argmax over all logits that are switched on.
    model = load_model(weights, recipe)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (model.recipe.mean, model.recipe.std))
    expected = np.zeros((19, 19), np.int64)
    for patch in find_patches(places):
        image = torch.from_numpy(read_image(patch, bands=model.recipe.bands)).float()[None]
        with torch.inference_mode():
            classes = model.network((image - mean) / std)[0, :12].argmax(dim=0).numpy()
        expected += confusion_matrix(read_mask(patch) - 1, classes, 19)
    # Logits of two engines may differ in the last bit, and classes where two are equal.
    assert np.abs(done.evaluation.matrix - expected).sum() < 20


def shares_of(model: Model, pixels: np.ndarray) -> np.ndarray:
    """Probabilities (class, y, x) of one patch."""
    return softmax(TorchPredictor(model).logits(np.ascontiguousarray(pixels)[None])[0].astype(float), axis=0)


def test_an_average_is_scored_as_its_mean_probabilities_say(net: Net, evaluated: EvaluatedSet, tmp_path: Path) -> None:
    other = write_weights(tmp_path / "other.pth", Path(net.recipe), seed=1)
    members = net.model, load_model(other, net.recipe)
    expected = np.zeros((19, 19), np.int64)
    for patch in find_patches([evaluated.data]):
        pixels, mean = read_image(patch, bands=members[0].recipe.bands), np.zeros((12, 64, 64))
        for member in members:
            for axes in ((), (1,), (2,), (1, 2)):
                mean += np.flip(shares_of(member, np.flip(pixels, axes)), axes)
        expected += confusion_matrix(read_mask(patch) - 1, mean.argmax(axis=0), 19)
    options = EvaluationOptions(as_mapped=False)
    done = evaluate_set(
        [evaluated.data], model=Ensemble(members, "flips"), out=tmp_path / "a", engine="torch", options=options
    )
    assert np.abs(done.evaluation.matrix - expected).sum() < 20, "sums of probabilities are rounded in another order"
    assert (done.evaluation.matrix != evaluated.done.evaluation.matrix).any()


def test_the_command_takes_an_average_from_its_options_or_a_campaign(
    net: Net, evaluated: EvaluatedSet, tmp_path: Path
) -> None:
    other = write_weights(tmp_path / "other.pth", Path(net.recipe), seed=1)
    members = [{"weights": str(w), "recipe": net.recipe} for w in (net.weights, other)]
    campaign = {"name": "x", "catalog": "catalog", "domains": [{"name": "D034_2021"}]}
    config = tmp_path / "campaign.yaml"
    config.write_text(yaml.safe_dump(campaign | {"model": {"members": members, "tta": "flips"}}))
    given = ["evaluate", str(evaluated.data), "--engine", "torch", "--alone", "--out"]
    both = ["--weights", net.weights, "--weights", str(other), "--recipe", net.recipe, "--tta", "flips"]
    for name, words in (("options", both), ("campaign", ["--campaign", str(config)])):
        done = CliRunner().invoke(app, [*given, str(tmp_path / name), *words])
        assert done.exit_code == 0, done.output
    written = [(tmp_path / name / "metrics.json").read_text() for name in ("options", "campaign")]
    assert written[0] == written[1]
    about = json.loads(written[0])["about"]
    assert (about["weights 2"].split(",")[0], about["recipe 1"]) == (str(other), "tiny")
    assert about["average"].startswith("of 8 forwards: 2 networks, 4 positions of each window")
    assert "test-time augmentation flips" in (tmp_path / "options" / "report.html").read_text()
    for words, message in (
        ([*both, "--recipe", net.recipe, "--recipe", net.recipe], "found 2 --weights, 3 --recipe"),
        (["--campaign", str(config), "--tta", "d4"], "--campaign goes without"),
        ([*both, "--campaign", str(config)], "exactly one of --weights, --campaign"),
    ):
        done = CliRunner().invoke(app, [*given, str(tmp_path / "none"), *words])
        assert message in str(done.exception)


def test_patches_that_the_network_cannot_take_whole_are_refused(net: Net, tmp_path: Path) -> None:
    data = random_set(tmp_path / "set", zones=1, patches=1, side=48)
    with pytest.raises(EvaluationError, match="found 48 × 48 px, expected multiples of the network's stride, 32"):
        evaluate_set([data], model=net.model, out=tmp_path / "out")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in data.rglob("*.tif"):
        path.rename(flat / path.name)
    options = EvaluationOptions(units="zones")
    with pytest.raises(EvaluationError, match="its zone is not known; give --metadata, or use --units patches"):
        evaluate_set([flat], model=net.model, out=tmp_path / "out", options=options)


def write_map(path: Path, classes: np.ndarray, *, x: float = 700_000, y: float = 6_600_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    geobox = GeoBox(classes.shape, Affine(0.2, 0, x, 0, -0.2, y), "EPSG:2154")
    write_cog(path, classes, layer="landcover", geobox=geobox, live=tuple(range(1, 13)), tags={})
    return path


def test_a_map_is_compared_with_a_raster_of_another_nomenclature_and_extent(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 13, (300, 400), dtype=np.uint8)
    truth = rng.integers(0, 16, (300, 400), dtype=np.uint8)  # CoSIA; 0 is none
    for k in range(2):
        write_map(
            tmp_path / "maps" / f"D034_2021-{k}-landcover.tif", classes[:, 200 * k :][:, :200], x=700_000 + 40 * k
        )
    with rasterio.open(
        tmp_path / "cosia.tif", "w", driver="GTiff", width=380, height=260, count=1, dtype="uint8", crs="EPSG:2154",
        transform=Affine(0.2, 0, 700_002, 0, -0.2, 6_599_996),
    ) as file:  # fmt: skip
        file.write(truth[20:280, 10:390], 1)
    done = evaluate_map(tmp_path / "maps", tmp_path / "cosia.tif", out=tmp_path / "out", nomenclature="cosia")
    table = np.full(16, 255)
    for number, value in to_flair("cosia").items():
        table[number] = value - 1
    inner = (slice(20, 280), slice(10, 390))
    labels = np.where(classes[inner] == 0, 255, table[truth[inner]])
    np.testing.assert_array_equal(done.evaluation.matrix, confusion_matrix(labels, classes[inner].astype(int) - 1, 19))
    assert done.evaluation.live == tuple(range(12))
    assert list(done.evaluation.by_domain) == ["D034_2021"]


def test_a_national_product_and_its_cogs_get_the_same_matrix(tmp_path: Path) -> None:
    tiles = {tile_at(0, 0): 1, tile_at(0, 1): 2}
    publish(tmp_path / "national", [product(tmp_path / "products", Domain("D064_2021"), tiles)])
    window = union([t.window for t in tiles])
    truth = np.random.default_rng(0).integers(0, 13, window.shape, dtype=np.uint8)
    left, _, _, top = window.bounds
    write_map(tmp_path / "truth.tif", truth, x=left, y=top)
    expected = confusion_matrix(
        np.where(np.hstack([stack_of(s)[0] for s in (1, 2)]) == 0, 255, truth - np.uint8(1)),
        np.hstack([stack_of(s)[0] for s in (1, 2)]) - np.uint8(1),
        19,
    )
    for place in ("national", "products"):
        done = evaluate_map(tmp_path / place, tmp_path / "truth.tif", out=tmp_path / "out" / place)
        np.testing.assert_array_equal(done.evaluation.matrix, expected)
        assert done.evaluation.intervals is not None
        assert done.evaluation.intervals.units == 2
    with pytest.raises(ProductError, match="no class maps there"):
        evaluate_map(tmp_path / "out", tmp_path / "truth.tif", out=tmp_path / "out")


def test_the_command_needs_exactly_one_reference_and_prints_the_scores(tmp_path: Path) -> None:
    classes = np.repeat(np.array([[1, 5], [7, 1]], np.uint8), 40, axis=0)
    write_map(tmp_path / "m.tif", classes)
    run = CliRunner().invoke
    for given in ([], ["--reference", "r.tif", "--weights", "w.pth"]):
        refused = run(app, ["evaluate", str(tmp_path / "m.tif"), "--out", str(tmp_path / "out"), *given])
        assert isinstance(refused.exception, ConfigError)
        assert "give exactly one of --weights" in str(refused.exception)
    both = ["--reference", str(tmp_path / "m.tif"), "--out", str(tmp_path / "out")]
    shown = run(app, ["evaluate", str(tmp_path / "m.tif"), *both])
    assert shown.exit_code == 0, shown.exception
    assert "overall accuracy  100.000 %" in shown.output
    assert "coniferous" in shown.output
    drawn = run(
        app, ["sample", str(tmp_path / "m.tif"), "--size", "9", "--least", "2", "--out", str(tmp_path / "s.gpkg")]
    )
    assert drawn.exit_code == 0, drawn.exception
    assert "9 points" in drawn.output


def test_polygons_in_degrees_label_the_pixels_whose_centres_they_hold(tmp_path: Path) -> None:
    boxes = [shapely.box(700_000, 6_599_990, 700_010, 6_600_000), shapely.box(700_010, 6_599_990, 700_015, 6_600_000)]
    # Attributes with missing values, and those of some programs, are floats.
    for crs, name, numbers in (("EPSG:2154", "metres.gpkg", [6, 15]), ("EPSG:4326", "degrees.gpkg", [6.0, 15.0])):
        shapes = boxes
        if crs == "EPSG:4326":
            to = Transformer.from_crs("EPSG:2154", crs, always_xy=True).transform
            dense = shapely.segmentize(boxes, 0.5)
            shapes = [shapely.Polygon(zip(*to(*b.exterior.xy), strict=True)) for b in dense]
        pyogrio.raw.write(
            tmp_path / name, np.array([shapely.to_wkb(s) for s in shapes]), [np.array(numbers)], ["numero"],
            crs=crs, geometry_type="Polygon", driver="GPKG",
        )  # fmt: skip
        reference = Reference.open(tmp_path / name, nomenclature="cosia", field="numero")
        labels = reference.read(GeoBox((60, 80), Affine(0.2, 0, 700_000, 0, -0.2, 6_600_000), "EPSG:2154"))
        expected = np.zeros((60, 80), np.uint8)
        expected[:50, :50], expected[:50, 50:75] = 5, 18
        assert (labels != expected).mean() < 0.001, name
        away = reference.read(GeoBox((10, 10), Affine(0.2, 0, 800_000, 0, -0.2, 6_600_000), "EPSG:2154"))
        assert not away.any()


def test_references_that_are_none_are_refused(tmp_path: Path) -> None:
    write_map(tmp_path / "m-landcover.tif", np.ones((50, 50), np.uint8))
    write_map(tmp_path / "far.tif", np.ones((50, 50), np.uint8), x=900_000)
    (tmp_path / "p.geojson").write_text('{"type":"FeatureCollection","features":[]}')
    square = [[[3, 46], [3.1, 46], [3.1, 46.1], [3, 46]]]
    feature = {"type": "Feature", "properties": {"c": 77}, "geometry": {"type": "Polygon", "coordinates": square}}
    (tmp_path / "q.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    one = tmp_path / "m-landcover.tif"
    with pytest.raises(EvaluationError, match="nothing to compare: none of the 1 parts"):
        evaluate_map(one, tmp_path / "far.tif", out=tmp_path / "out")
    with pytest.raises(SourceError, match="has no attribute 'code' with the class"):
        evaluate_map(one, tmp_path / "q.geojson", out=tmp_path / "out", field="code")
    with pytest.raises(SourceError, match="expected a raster or polygons"):
        evaluate_map(one, tmp_path / "none.gpkg", out=tmp_path / "out", field="code")
    grid = GeoBox((10, 10), Affine(0.2, 0, 702_000, 0, -0.2, 6_546_000), "EPSG:2154")
    with pytest.raises(SourceError, match=r"attribute c has 77; expected numbers of flair19: 1\.\.19"):
        Reference.open(tmp_path / "q.geojson", field="c").read(grid)
