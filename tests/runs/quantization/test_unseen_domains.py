"""int8 is measured on domains that it has not seen, and on labels where there are some."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from odc.geo.geobox import GeoBox

from pipeline.domain import Domain
from pipeline.errors import EngineError
from pipeline.evaluation import confusion_matrix
from pipeline.grid import Window
from pipeline.inference import Engine, predictor_for
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.post_training_quantization import SCHEMES, quantize_graph, save_quantized
from pipeline.model import Model
from pipeline.runs.quantization.agreement import agree
from pipeline.runs.quantization.quantize import agreement_text, quantize
from pipeline.runs.quantization.unseen_domains import SchemeResult, UnseenDomains, measure_scheme
from pipeline.runs.quantization.windows import SampledWindow, WindowSplit, classes_of
from pipeline.sources.catalog.index import index
from pipeline.sources.labels.patches import Patch, read_image, read_mask, write_patch
from pipeline.sources.reading.raster import Pixels
from tests.runs.quantization.test_quantize import write_balanced
from tests.support.campaigns import RECIPE, TILE, Made, make_campaign
from tests.support.deliveries import make_delivery
from tests.support.networks import exact_model

pytest.importorskip("openvino", reason="the extra `cpu` is not installed")
pytest.importorskip("nncf", reason="the extra `cpu` is not installed")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDCOVER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def window(model: Model, domain: str, *, high: int, seed: int) -> SampledWindow:
    """Noise up to a level: the domains differ in their radiometry."""
    bands = np.random.default_rng(seed).integers(0, high, (5, 64, 64), np.uint8)
    pixels = Pixels(bands, np.ones((64, 64), bool))
    place = Window(0, 64 * seed, 64, 64)
    return SampledWindow(domain, "", place, pixels, classes_of(predictor_for(model, Engine("openvino")), pixels))


def split_of(model: Model, domains: dict[str, int]) -> WindowSplit:
    sides = [
        tuple(window(model, name, high=high, seed=2 * i + side) for i, (name, high) in enumerate(domains.items()))
        for side in (0, 1)
    ]
    return WindowSplit(*sides)


def result_of(model: Model, split: WindowSplit, labelled: tuple[Patch, ...] = ()) -> SchemeResult:
    graph = quantize_graph(model, [w.pixels for w in split.quantization], SCHEMES[0])
    return measure_scheme(model, graph, split, SCHEMES[0], max_drop=0.01, labelled=labelled)


def int8_without(model: Model, split: WindowSplit, domain: str, folder: Path) -> OpenVinoPredictor:
    """Quantized here, with the windows of the other domains."""
    others = [w.pixels for w in split.quantization if w.domain != domain]
    quantized = save_quantized(quantize_graph(model, others, SCHEMES[0]), folder / f"without-{domain}.xml")
    return OpenVinoPredictor(model, precision="int8", quantized=quantized)


def test_each_domain_is_mapped_by_a_network_that_has_not_seen_it(tmp_path: Path) -> None:
    model = exact_model()
    split = split_of(model, {"dark": 40, "bright": 256, "middle": 128})
    found = result_of(model, split)
    assert found.unseen is not None
    maps = [classes_of(int8_without(model, split, w.domain, tmp_path), w.pixels) for w in split.held_out]
    expected = agree([w.classes for w in split.held_out], maps)
    np.testing.assert_array_equal(found.unseen.agreement.confusion, expected.confusion)
    assert found.unseen.by_domain == dict(zip(("dark", "bright", "middle"), expected.by_window, strict=True))
    assert found.decisive is found.unseen.agreement
    assert found.unseen.by_domain["bright"] < found.seen.by_window[1], "ranges of darker domains are too narrow"


def test_one_domain_only_is_measured_on_seen_imagery_and_says_so() -> None:
    model = exact_model()
    found = result_of(model, split_of(model, {"only": 256}))
    assert found.unseen is None
    assert found.decisive is found.seen
    assert "of seen imagery: there is one domain only" in agreement_text(found)


def test_the_limit_is_compared_with_the_unseen_figure() -> None:
    classes = np.ones((4, 4), np.uint8)
    good, bad = agree([classes], [classes]), agree([classes], [classes + 1])
    seen = SchemeResult("x", good, [classes], None, None)
    unseen = replace(seen, unseen=UnseenDomains(bad, {"a": 0.0}))
    assert (seen.decisive.overall, unseen.decisive.overall) == (1.0, 0.0)
    assert agreement_text(unseen).startswith("0.0000% of the pixels of unseen domains as in fp32, least in a")


def labelled(root: Path, domain: str, number: int) -> Patch:
    rng = np.random.default_rng(number)
    pixels, mask = rng.integers(0, 256, (5, 64, 64), np.uint8), rng.integers(0, 6, (64, 64), np.uint8)
    geobox = GeoBox.from_bbox((0, 0, 12.8, 12.8), "EPSG:2154", shape=(64, 64))
    return write_patch(root, (domain, "Z1_NN", number), pixels, mask, geobox=geobox)


def test_accuracy_is_of_the_network_that_has_not_seen_the_patch(tmp_path: Path) -> None:
    model = exact_model()
    split = split_of(model, {"D001_2021": 40, "D002_2021": 256})
    patches = tuple(labelled(tmp_path, domain, i) for i, domain in enumerate(("D001_2021", "D002_2021", "D003_2021")))
    found = result_of(model, split, patches).accuracy
    assert found is not None
    assert (found.patches, found.unseen) == (3, 3), "the third is of a domain that no network has seen"
    expected = {"fp32": np.zeros((19, 19), np.int64), "int8": np.zeros((19, 19), np.int64)}
    networks = {"fp32": lambda _: predictor_for(model, Engine("openvino"))}
    networks["int8"] = lambda domain: int8_without(model, split, domain, tmp_path)
    for patch in patches:
        pixels = Pixels(read_image(patch, bands=model.recipe.bands), np.ones((64, 64), bool))
        for name, network in networks.items():
            expected[name] += confusion_matrix(read_mask(patch) - 1, classes_of(network(patch.domain), pixels) - 1, 19)
    np.testing.assert_array_equal(found.fp32, expected["fp32"])
    np.testing.assert_array_equal(found.int8, expected["int8"])
    shown = found.as_json()
    live = [0, 1, 2, 4]
    kept = expected["int8"][np.ix_(live, live)]
    assert shown["int8"]["oa"] == pytest.approx(np.trace(kept) / kept.sum())
    one = result_of(model, split_of(model, {"D001_2021": 40}), patches).accuracy
    assert one is not None
    assert (one.patches, one.unseen) == (3, 2)


@pytest.fixture(scope="module")
def two_domains(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = make_campaign(tmp_path_factory.mktemp("campaign"), at=((0, 0), (0, 1)))
    recipe = made.folder / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE | {"encoder": "tu-test_resnet", "live": [2, 5, 7, 11]}))
    write_balanced(made.folder / "weights.pth", recipe)
    other = make_delivery(made.folder / "other", at=((1, 0), (1, 1)), size=TILE, domain=Domain("D030_2021"))
    index([other.folder], domain=other.domain, catalog=made.folder / "catalog", tile_size=TILE)
    return made.change(domains=[{"name": "D034_2021"}, {"name": "D030_2021"}])


def test_the_report_of_two_domains_has_both_figures_and_accuracy(two_domains: Made, tmp_path: Path) -> None:
    patch = labelled(tmp_path / "labels", "D034_2021", 1)
    given: dict[str, Any] = {"windows": 2, "labels": [tmp_path / "labels"]}
    done = quantize(two_domains.campaign, out=tmp_path / "model.xml", min_agreement=0.5, **given)
    report = json.loads((tmp_path / "model.json").read_text())
    assert report["measured_on"] == "unseen domains"
    assert report["agreement_unseen_by_domain"].keys() == {"D030_2021", "D034_2021"}
    assert report["agreement_unseen"] == done.result.decisive.overall != report["agreement"]
    assert report["tried"][-1]["agreement_unseen"] == report["agreement_unseen"]
    assert report["accuracy"]["patches"] == report["accuracy"]["patches_unseen"] == 1
    assert patch.domain == "D034_2021"
    page = (tmp_path / "model.html").read_text()
    assert "when it is left out" in page
    assert "overall accuracy" in page
    with pytest.raises(EngineError, match=r"(?s)expected 100\.00%.*of unseen domains as in fp32, least in D03"):
        quantize(two_domains.campaign, out=tmp_path / "none.xml", min_agreement=1.0, windows=2)
