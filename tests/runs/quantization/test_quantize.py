"""A network in int8: made from windows, measured on others, kept only where it agrees, and then run like any engine."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import load_campaign, load_recipe
from pipeline.errors import ConfigError, EngineError, StorageError
from pipeline.inference import Engine, predictor_for, resolve_engine
from pipeline.inference.engine import check_gives_features
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.post_training_quantization import SCHEMES, quantize_graph, save_quantized
from pipeline.inference.quantized_model import QuantizedModel, read_quantized
from pipeline.model import Model, load_model
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.quantization.quantize import quantize
from pipeline.sources.reading.raster import Pixels
from tests.support.campaigns import RECIPE, Made, make_campaign, write_weights
from tests.support.deliveries import write_raster
from tests.support.networks import exact_model

openvino = pytest.importorskip("openvino", reason="the extra `cpu` is not installed")
pytest.importorskip("nncf", reason="the extra `cpu` is not installed")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDCOVER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign whose random network is one of half a million parameters."""
    made = make_campaign(tmp_path_factory.mktemp("campaign"), at=((0, 0), (0, 1), (1, 0)))
    recipe = made.folder / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE | {"encoder": "tu-test_resnet", "live": [2, 5, 7, 11]}))
    write_balanced(made.folder / "weights.pth", recipe)
    return made


def write_balanced(path: Path, recipe: Path) -> None:
    """A random network whose classes all occur: as drawn, one would win everywhere, and all maps would agree."""
    write_weights(path, recipe)
    network = load_model(path, load_recipe(str(recipe))).network
    with torch.inference_mode():
        logits = network(torch.randn((2, 5, 96, 96), generator=torch.Generator().manual_seed(0)))
    state = torch.load(path, weights_only=True)
    spread = logits.std(dim=(0, 2, 3))
    state["model.seg_model.segmentation_head.0.weight"] /= spread[:, None, None, None]
    bias = state["model.seg_model.segmentation_head.0.bias"]
    bias.copy_((bias - logits.mean(dim=(0, 2, 3))) / spread)
    torch.save(state, path)


@pytest.fixture(scope="module")
def model(made: Made) -> Model:
    return load_model(made.campaign.weights, load_recipe(str(made.folder / "tiny.yaml")))


@pytest.fixture(scope="module")
def xml(made: Made) -> Path:
    """The network that the command writes, with a low limit: a random network has classes close together."""
    xml = made.folder / "int8" / "model.xml"
    output = landcover("quantize", made.config, "--out", xml, "--windows", 3, "--min-agreement", 0.9)
    assert "of seen imagery: there is one domain only" in output
    return xml


def landcover(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def in_int8(made: Made, xml: Path, **changes: object) -> Path:
    """The campaign's YAML, with the quantized network in it."""
    content = yaml.safe_load(made.config.read_text()) | {"engine": "auto", "precision": "int8"} | changes
    content["model"] = content["model"] | {"quantized": str(xml)}
    path = made.folder / "int8.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def windows(size: tuple[int, int], count: int = 2) -> list[Pixels]:
    rng = np.random.default_rng(7)
    coarse = [np.kron(rng.integers(0, 256, (5, s, t)), np.ones((16, 16))) for s, t in [(size[0] // 16, size[1] // 16)]]
    return [
        Pixels(np.clip(coarse[0] + rng.normal(0, 9, coarse[0].shape), 0, 255).astype(np.uint8), rng.random(size) > 0.1)
        for _ in range(count)
    ]


def layers(predictor: OpenVinoPredictor, window: Pixels) -> NDArray[np.uint8]:
    return predictor(window.bands[None], window.valid[None])[0]


def test_int8_gives_features_where_it_was_quantized_with_them(model: Model, tmp_path: Path) -> None:
    given = windows((96, 96), 4)
    plain, scoring = (
        save_quantized(quantize_graph(model, given, SCHEMES[0], features=wanted), tmp_path / f"{wanted}.xml")
        for wanted in (False, True)
    )
    assert (plain.gives_features, scoring.gives_features) == (False, True)
    with pytest.raises(EngineError, match="run `landcover quantize` again"):
        check_gives_features(Engine("openvino", "int8", plain))
    predictor = predictor_for(model, Engine("openvino", "int8", scoring), features=True, threads=1)
    batch = np.stack([w.bands for w in given]), np.stack([w.valid for w in given])
    found, features = predictor.with_features(*batch)
    without = OpenVinoPredictor(model, precision="int8", quantized=plain, threads=1)(*batch)
    np.testing.assert_array_equal(found, without)
    _, expected = OpenVinoPredictor(model, features=True, threads=1).with_features(*batch)
    assert features.shape == expected.shape
    assert np.abs(features - expected).mean() < 0.1 * np.abs(expected).mean()


def test_the_report_has_agreement_by_class_and_window_and_all_trials(xml: Path, model: Model) -> None:
    report = json.loads(xml.with_suffix(".json").read_text())
    assert report["weights_sha256"] == model.weights_hash
    assert report["quantized_sha256"] == read_quantized(xml).sha256
    counts = np.array(report["confusion"]["pixels"])
    assert report["agreement"] == pytest.approx(np.trace(counts) / counts.sum())
    named = dict(zip(report["confusion"]["classes"], np.diag(counts) / counts.sum(axis=1).clip(1), strict=True))
    assert report["agreement_by_class"] == pytest.approx({k: named[k] for k in report["agreement_by_class"]})
    assert report["measured_on"] == "seen imagery"
    last = {"scheme": report["scheme"], "agreement": report["agreement"], "agreement_unseen": None}
    assert report["tried"][-1] == last
    assert len(report["calibration"]) == len(report["held_out"]) == 3

    def places(kind: str) -> set[tuple[int, ...]]:
        return {tuple(w["window"]) for w in report[kind]}

    assert not places("calibration") & places("held_out")
    assert len({w["tile"] for w in report["held_out"]}) == 3
    page = xml.with_suffix(".html").read_text()
    assert page.count("data:image/png;base64,") == 4 * 3
    assert 'src="http' not in page


def test_only_the_four_files_are_left(xml: Path) -> None:
    assert {p.name for p in xml.parent.iterdir()} == {"model.xml", "model.bin", "model.json", "model.html"}


def test_the_same_seed_gives_the_same_network(made: Made, xml: Path) -> None:
    again = quantize(made.campaign, out=made.folder / "again" / "other.xml", windows=3, min_agreement=0.9)
    assert again.quantized.sha256 == read_quantized(xml).sha256


def test_too_little_agreement_is_refused_with_all_trials_and_leaves_nothing(made: Made, tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(EngineError, match=r"expected 100\.00% or more, nothing was written") as refused:
        quantize(made.campaign, out=tmp_path / "model.xml", windows=1, min_agreement=1.0, say=lines.append)
    assert all(scheme.name in str(refused.value) for scheme in SCHEMES)
    assert "--slow" in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_not_an_xml_is_refused_before_any_work(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.onnx: expected the name of an XML"):
        quantize(made.campaign, out=tmp_path / "model.onnx")


def test_an_unwritable_output_is_named_in_the_error(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"model\.xml: cannot be written: .*; choose another place"):
        quantize(made.campaign, out=tmp_path / "file" / "model.xml", windows=1, min_agreement=0.1)


def test_only_the_network_is_quantized_and_windows_may_have_any_size(model: Model, tmp_path: Path) -> None:
    quantized = save_quantized(quantize_graph(model, windows((64, 64)), SCHEMES[0]), tmp_path / "model.xml")
    graph = openvino.Core().read_model(quantized.path)
    fakes = [o for o in graph.get_ordered_ops() if o.get_type_name() == "FakeQuantize"]
    assert len(fakes) > 30
    followers = {t.get_node().get_type_name() for o in fakes for t in o.output(0).get_target_inputs()}
    assert not followers & {"Gather", "TopK", "ReduceMax", "Exp", "Subtract", "Softmax"}
    assert [str(i.element_type) for i in (*graph.inputs, *graph.outputs)] == ["<Type: 'uint8_t'>"] * 3

    int8, fp32 = OpenVinoPredictor(model, precision="int8", quantized=quantized), OpenVinoPredictor(model)
    for size in ((64, 64), (96, 160), (32, 32)):
        (window,) = windows(size, 1)
        ours, theirs = layers(int8, window), layers(fp32, window)
        assert ours.shape == (3, *size)
        assert set(np.unique(ours[0])) <= set(model.recipe.live)
        assert (ours[0] == theirs[0]).mean() > 0.85


def test_masked_pixels_are_the_channel_mean_in_int8_too(model: Model, xml: Path) -> None:
    predictor = OpenVinoPredictor(model, precision="int8", quantized=read_quantized(xml))
    (window,) = windows((64, 64), 1)
    other = window.bands.copy()
    other[:, ~window.valid] = 255
    np.testing.assert_array_equal(layers(predictor, window), layers(predictor, Pixels(other, window.valid)))


@pytest.mark.slow
def test_a_campaign_in_int8_is_mapped_and_sealed_once(made: Made, xml: Path, scheduler_option: tuple[str, str]) -> None:
    config = in_int8(made, xml, output=yaml.safe_load(made.config.read_text())["output"] | {"domains": "mapped"})
    name = make_plan(load_campaign(config)).domains[0].tiles[0].tile.name
    landcover("run", config, "--tile", name, *scheduler_option)
    assert "nothing to do" in landcover("run", config, "--tile", name)
    record = json.loads(next((made.folder / "mapped").rglob("run.json")).read_text())
    assert record["quantized_sha256"] == read_quantized(xml).sha256
    item = next((made.folder / "mapped").rglob(f"*{name}*.json")).read_text()
    assert '"int8"' in item
    properties = json.loads(item)["properties"]
    assert properties["landcover:quantized_sha256"] == read_quantized(xml).sha256


def fingerprints(config: Path) -> list[str]:
    return [t.fingerprint for d in make_plan(load_campaign(config)).domains for t in d.tiles]


def test_the_fingerprint_follows_the_networks_bytes_and_not_its_place(made: Made, xml: Path, tmp_path: Path) -> None:
    here = fingerprints(in_int8(made, xml))
    for part in (xml, xml.with_suffix(".bin")):
        shutil.copy(part, tmp_path / part.name)
    assert fingerprints(in_int8(made, tmp_path / "model.xml")) == here
    assert fingerprints(in_int8(made, xml, precision="fp32")) != here
    moved = tmp_path / "model.bin"
    moved.write_bytes(moved.read_bytes()[:-4] + bytes(4))
    assert fingerprints(in_int8(made, tmp_path / "model.xml")) != here


def test_fp32_keeps_the_fingerprint_that_it_had() -> None:
    assert Engine("openvino").content == {"name": "openvino", "precision": "fp32"}


def test_a_worker_refuses_a_network_that_changed_since_the_plan(model: Model, xml: Path, tmp_path: Path) -> None:
    for part in (xml, xml.with_suffix(".bin")):
        shutil.copy(part, tmp_path / part.name)
    engine = resolve_engine(precision="int8", quantized=tmp_path / "model.xml", model=model)
    assert engine.quantized == read_quantized(tmp_path / "model.xml")
    (tmp_path / "model.xml").write_text(xml.read_text() + "\n")
    engine = pickle.loads(pickle.dumps(engine))
    with pytest.raises(EngineError, match=r"expected a quantized network of SHA-256 .* got"):
        OpenVinoPredictor(model, precision="int8", quantized=engine.quantized)


def test_a_network_of_other_weights_or_a_damaged_file_is_refused(model: Model, xml: Path, tmp_path: Path) -> None:
    def refused(message: str, given: Path | None = xml, of: Model = model) -> None:
        with pytest.raises(EngineError, match=message):
            resolve_engine(precision="int8", quantized=given, model=of)

    refused("was made from weights of SHA-256", of=exact_model())
    other = model.recipe.model_copy(update={"height_step_m": 0.5})
    refused("another version of recipe", of=Model(model.network, other, model.weights_hash))
    refused("needs a quantized network", given=None)
    refused(r"missing\.xml: a quantized network's file cannot be read", given=tmp_path / "missing.xml")
    shutil.copy(xml, tmp_path / "alone.xml")
    refused(r"alone\.bin: a quantized network's file cannot be read", given=tmp_path / "alone.xml")
    (tmp_path / "alone.bin").touch()
    (tmp_path / "alone.xml").write_text("<net/>")
    refused("does not record the weights", given=tmp_path / "alone.xml")
    (tmp_path / "alone.xml").write_text("not at all")
    refused("is not an XML of OpenVINO", given=tmp_path / "alone.xml")
    with pytest.raises(EngineError, match="needs engine openvino, got torch"):
        resolve_engine("torch", precision="int8", quantized=xml, model=model)


def test_a_campaign_in_int8_must_name_its_network(made: Made) -> None:
    content = yaml.safe_load(made.config.read_text()) | {"precision": "int8"}
    path = made.folder / "nameless.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"precision int8 needs model\.quantized"):
        load_campaign(path)


def test_predict_runs_it_on_a_raster(made: Made, model: Model, xml: Path, tmp_path: Path) -> None:
    (window,) = windows((160, 224), 1)
    raster = write_raster(tmp_path / "image.tif", window.bands, 770_000, 6_278_000)
    given = ("predict", raster, "--weights", made.campaign.weights, "--recipe", made.folder / "tiny.yaml")
    landcover(*given, "--out", tmp_path, "--precision", "int8", "--quantized", xml, "--window", 224, "--halo", 0)
    with rasterio.open(tmp_path / "image-landcover.tif") as cog:
        mapped = cog.read(1)
    whole = Pixels(window.bands, np.ones((160, 224), bool))
    assert mapped.shape == (160, 224)
    predictor = OpenVinoPredictor(model, precision="int8", quantized=read_quantized(xml))
    np.testing.assert_array_equal(mapped, layers(predictor, whole)[0])
    with pytest.raises(ConfigError, match="use --precision int8"):
        landcover(*given, "--out", tmp_path, "--quantized", xml)


def test_a_quantized_network_can_be_pickled() -> None:
    quantized = QuantizedModel(Path("/a/model.xml"), "0" * 64, "1" * 64, "2" * 32)
    engine = Engine("openvino", "int8", quantized)
    assert hash(pickle.loads(pickle.dumps(engine))) == hash(engine)
    assert engine.content == {"name": "openvino", "precision": "int8", "quantized": "0" * 64}
