"""`quantize --check`: faster precisions against fp32 on domains that int8 has not seen, and the report of it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.config import load_campaign, load_recipe
from pipeline.domain import Domain
from pipeline.errors import EngineError
from pipeline.inference import Engine
from pipeline.inference.engine import missing_instructions
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.post_training_quantization import SCHEMES, quantize_graph, save_quantized
from pipeline.inference.quantized_model import describe_domains, read_quantized
from pipeline.model import Model, load_model
from pipeline.runs.planning.agreement_report import agreement_file, read_agreement
from pipeline.runs.planning.automatic_choices import choices_file
from pipeline.runs.planning.resolved_campaign import resolve
from pipeline.runs.quantization import check
from pipeline.runs.quantization.check import check_precisions
from pipeline.runs.quantization.windows import WindowSplit, draw_windows
from pipeline.sources.catalog.index import index
from tests.runs.quantization.test_quantize import landcover, write_balanced
from tests.support.campaigns import RECIPE, TILE, Made, make_campaign
from tests.support.deliveries import make_delivery

pytest.importorskip("openvino", reason="the extra `cpu` is not installed")
pytest.importorskip("nncf", reason="the extra `cpu` is not installed")
pytestmark = pytest.mark.skipif(
    bool(missing_instructions(Engine("openvino", "int8"))), reason="this processor has no instructions for int8"
)
SEEN, UNSEEN = "D034_2021", "D030_2021"


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDCOVER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two domains over the same tile; the int8 network has seen one of them."""
    made = make_campaign(tmp_path_factory.mktemp("campaign"), at=[(0, 0)])
    recipe = made.folder / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE | {"encoder": "tu-test_resnet", "live": [2, 5, 7, 11]}))
    write_balanced(made.folder / "weights.pth", recipe)
    other = make_delivery(made.folder / "other", at=[(1, 0)], size=TILE, domain=Domain(UNSEEN))
    index([other.folder], domain=other.domain, catalog=made.folder / "catalog", tile_size=TILE)
    model = load_model(made.campaign.weights, load_recipe(str(recipe)))
    split = draw_windows(made.campaign, model, windows=2)
    graph = quantize_graph(model, [w.pixels for w in split.quantization], SCHEMES[0])
    describe_domains(graph, [SEEN])
    save_quantized(graph, made.folder / "int8" / "model.xml")
    network = {"weights": "weights.pth", "recipe": "tiny.yaml", "quantized": "int8/model.xml"}
    return made.change(engine="openvino", model=network, domains=[{"name": SEEN}, {"name": UNSEEN}])


@pytest.fixture(scope="module")
def model(made: Made) -> Model:
    return load_model(made.campaign.weights, load_recipe(str(made.folder / "tiny.yaml")))


def test_int8_is_compared_on_the_domain_that_it_has_not_seen(made: Made, model: Model) -> None:
    output = landcover("quantize", made.config, "--check", "--windows", 4)
    assert "4 windows of unseen domains, against fp32:" in output
    assert "  int8: " in output
    report = read_agreement(made.campaign)
    assert report is not None
    assert report.precisions["int8"].by_domain.keys() == {UNSEEN}
    assert report.precisions["fp32"].agreement == 1
    quantized = read_quantized(made.folder / "int8" / "model.xml")
    assert report.precisions["int8"].quantized_sha256 == quantized.sha256
    # The plain comparison, window by window.
    split = draw_windows(made.campaign, model, domains=[UNSEEN], windows=2)
    int8 = OpenVinoPredictor(model, precision="int8", quantized=quantized)
    same = [
        (int8(w.pixels.bands[None], w.pixels.valid[None])[0, 0] == w.classes)[w.pixels.valid]
        for w in (*split.quantization, *split.held_out)
    ]
    assert report.precisions["int8"].agreement == pytest.approx(float(np.concatenate(same).mean()))


def test_an_int8_network_that_agrees_is_chosen_and_another_one_is_not(made: Made) -> None:
    report = check_precisions(made.campaign, windows=4)
    fastest = report.precisions["int8"].model_copy(update={"mpx_per_s": 1e6})
    report.model_copy(update={"precisions": report.precisions | {"int8": fastest}}).write(agreement_file(made.campaign))
    share = fastest.agreement
    auto = {"precision": "auto", "minimum_agreement": share}
    path = made.folder / "auto.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(made.config.read_text()) | auto))
    assert resolve(load_campaign(path)).engine.precision == "int8"
    choices_file(made.campaign).unlink()
    path.write_text(path.read_text().replace(str(share), "1.0"))
    assert resolve(load_campaign(path)).engine.precision == "fp32"


def test_a_network_that_has_seen_all_domains_or_records_none_is_not_compared(made: Made, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=f"was quantized with {SEEN}; name domains that it has not seen"):
        check_precisions(made.campaign, domains=[SEEN])
    lines: list[str] = []
    only = made.campaign.model_copy(update={"domains": made.campaign.domains[:1]})
    if missing_instructions(Engine("openvino", "bf16")):
        with pytest.raises(EngineError, match="has no faster precision to compare"):
            check_precisions(only, windows=2, say=lines.append)
    else:
        assert check_precisions(only, windows=2, say=lines.append).precisions.keys() == {"fp32", "bf16"}
    assert lines[0].startswith("int8 has seen every domain of the campaign")
    for part in (made.folder / "int8").iterdir():
        shutil.copy(part, tmp_path / part.name)
    xml = tmp_path / "model.xml"
    xml.write_text(xml.read_text().replace(f'<domains value="{SEEN}" />', ""))
    network = made.campaign.model.model_copy(update={"quantized": xml})
    with pytest.raises(EngineError, match="does not record the domains that it was quantized with"):
        check_precisions(made.campaign.model_copy(update={"model": network}))


def test_domains_of_which_no_window_was_drawn_are_named(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_one_domain(*about: Any, **how: Any) -> WindowSplit:
        return draw_windows(*about, **how | {"domains": [UNSEEN]})

    monkeypatch.setattr(check, "draw_windows", of_one_domain)
    lines: list[str] = []
    report = check_precisions(made.campaign, domains=[UNSEEN, "D064_2021"], windows=2, say=lines.append)
    assert report.precisions["int8"].by_domain.keys() == {UNSEEN}
    assert lines[0] == f"2 windows of {UNSEEN}"
    assert lines[1].startswith("not compared: D064_2021,")
