"""Interpreting a sample: on its page in Chromium, in the form for QGIS, and back through the estimation."""

import base64
import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from PIL import Image

from pipeline import legend
from pipeline.errors import ProductError
from pipeline.products.assessment.reference_sample import read_sample
from pipeline.runs.accuracy.sample_page import _CONTEXT, _CROP
from pipeline.runs.accuracy.stratified_sample import evaluate_sample, sample_map
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.mosaic import Mosaic
from tests.runs.accuracy.test_evaluate import write_map
from tests.support.browser import chromium
from tests.support.campaigns import TILE, Made, make_campaign

SIZE = 14


@dataclass(frozen=True)
class Drawn:
    """A sample with a page, and the truth that its interpreter sees."""

    path: Path
    made: Made

    @property
    def page(self) -> Path:
        return self.path.with_suffix(".html")

    @property
    def sample(self) -> str:
        return str(data_of(self.page)["sample"])

    @property
    def truth(self) -> list[int]:
        """FLAIR value of each point: as mapped, but water is bare soil, and some buildings are greenhouses."""
        mapped = pyogrio.raw.read(self.path, layer="sample", columns=["mapped"])[3][0].tolist()
        return [18 if value == 1 and k % 3 == 0 else 4 if value == 5 else value for k, value in enumerate(mapped)]


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("drawn")
    made = make_campaign(folder / "campaign", at=((0, 0),))
    tile = made.delivery.tiles[0]
    left, _, _, top = tile.window.bounds
    classes = np.ones((TILE, TILE), np.uint8)
    classes[:, 200:] = 5
    classes[300:, :] = 11
    write_map(folder / "maps" / f"{made.delivery.domain}-{tile.name}-landcover.tif", classes, x=left, y=top)
    catalog = made.folder / "catalog"
    done = sample_map(folder / "maps", out=folder / "sample.gpkg", size=SIZE, least=4, catalog=catalog, language="fr")
    assert done.page == folder / "sample.html"
    return Drawn(done.path, made)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@dataclass
class Interpreter:
    """The page in a tab, and what it asked for and complained of."""

    tab: Any
    asked: list[str]
    errors: list[str]

    def press(self, value: int) -> None:
        """The key that the button of this class shows."""
        button = self.tab.locator(f'button.class[data-value="{value}"]')
        self.tab.keyboard.press(button.locator("kbd").text_content())

    @property
    def done(self) -> str:
        return str(self.tab.inner_text("#done"))

    def save(self, folder: Path) -> Path:
        with self.tab.expect_download() as expected:
            self.tab.click("#save")
        path = folder / expected.value.suggested_filename
        expected.value.save_as(path)
        return path


def open_page(browser: Any, page: Path, *, width: int = 1300) -> Interpreter:
    """In a browser of its own, which knows no answers."""
    tab = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True).new_page()
    opened = Interpreter(tab, [], [])
    tab.on("request", lambda request: opened.asked.append(request.url))
    tab.on("console", lambda said: opened.errors.append(said.text) if said.type == "error" else None)
    tab.on("pageerror", lambda error: opened.errors.append(str(error)))
    tab.goto(page.as_uri())
    return opened


@pytest.mark.browser
def test_answers_by_keys_come_back_through_the_estimation(browser: Any, drawn: Drawn, tmp_path: Path) -> None:
    interpreter = open_page(browser, drawn.page)
    for value in drawn.truth[:5]:
        interpreter.press(value)
    assert interpreter.done == f"5 réponses sur {SIZE}"
    interpreter.tab.reload()
    assert interpreter.done == f"5 réponses sur {SIZE}", "the browser keeps them"
    assert "Point 6 " in interpreter.tab.inner_text("figcaption #name")
    half = interpreter.save(tmp_path)
    with pytest.raises(ProductError, match=f"{SIZE - 5} of {SIZE} points have no FLAIR value"):
        evaluate_sample(drawn.path, out=tmp_path / "out", answers=half)

    elsewhere = open_page(browser, drawn.page)
    assert elsewhere.done == f"0 réponses sur {SIZE}"
    elsewhere.tab.set_input_files("#load", half)
    elsewhere.tab.wait_for_function("document.getElementById('said').textContent.includes('5')")
    for value in drawn.truth[5:]:
        elsewhere.press(value)
    assert "Tous les points ont une réponse" in elsewhere.tab.inner_text("#said")
    answers = elsewhere.save(tmp_path)
    assert answers.name == "sample-answers.csv"
    assert read_sample(drawn.path, answers=answers).reference.tolist() == drawn.truth
    done = evaluate_sample(drawn.path, out=tmp_path / "out", answers=answers)
    assert {c.land_cover.value for c in done.classes} == {*drawn.truth, 1, 5, 11}
    assert done.overall.value < 1
    for tab in (interpreter, elsewhere):
        assert tab.errors == []
        assert {url.partition(":")[0] for url in tab.asked} <= {"file", "data", "blob"}


@pytest.mark.browser
def test_an_answer_can_be_changed_cleared_and_chosen_by_a_click(browser: Any, drawn: Drawn, tmp_path: Path) -> None:
    interpreter = open_page(browser, drawn.page, width=420)
    assert interpreter.tab.evaluate("document.documentElement.scrollWidth") == 420
    interpreter.press(7)
    interpreter.press(19)
    for key in ("ArrowLeft", "ArrowLeft"):
        interpreter.tab.keyboard.press(key)
    pressed = 'button.class[aria-pressed="true"]'
    assert interpreter.tab.get_attribute(pressed, "data-value") == "7"
    interpreter.tab.click('button.class[data-value="2"]')
    assert "Point 3 " in interpreter.tab.inner_text("#name"), "the next one without an answer"
    interpreter.tab.click("#back")
    interpreter.tab.keyboard.press("Backspace")
    assert interpreter.tab.locator(pressed).count() == 0
    rows = interpreter.save(tmp_path).read_text().splitlines()
    assert rows[:3] == ["sample,point,reference", f"{drawn.sample},1,2", f"{drawn.sample},2,"]
    other = tmp_path / "other.csv"
    other.write_text("sample,point,reference\n0123,2,4\n")
    interpreter.tab.set_input_files("#load", other)
    interpreter.tab.wait_for_function("document.getElementById('said').textContent.includes('autre échantillon')")
    assert interpreter.done == f"1 réponses sur {SIZE}"
    assert interpreter.errors == []


def test_the_page_knows_nothing_of_the_map(drawn: Drawn) -> None:
    data = data_of(drawn.page)
    assert {frozenset(point) for point in data["points"]} == {frozenset(("point", "place", "crop", "context"))}
    assert [point["point"] for point in data["points"]] == list(range(1, SIZE + 1))
    text = drawn.page.read_text()
    seals, names = pyogrio.raw.read(drawn.path, layer="sample", columns=["seal", "map"])[3]
    assert not [word for word in {*seals.tolist(), *names.tolist()} if word in text]


def test_crop_and_surroundings_show_the_imagery_of_the_point(drawn: Drawn) -> None:
    made = drawn.made
    mosaic = Mosaic.of(
        read_domain(made.campaign.catalog, made.delivery.domain, tile_size=TILE), bands=("red", "green", "blue")
    )
    truth = np.moveaxis(mosaic.read(mosaic.window).bands, 0, -1).astype(int)
    places = shapely.get_coordinates(shapely.from_wkb(pyogrio.raw.read(drawn.path, layer="sample")[2]))
    for point, (x, y) in zip(data_of(drawn.page)["points"], places.tolist(), strict=True):
        row, col = int(-y * 5) - mosaic.window.row, int(x * 5) - mosaic.window.col
        for name, side, cell in (("crop", _CROP, 1), ("context", _CONTEXT, 4)):
            shown = picture(point[name])
            assert shown.shape == (side // cell, side // cell, 3)
            seen = shown.repeat(cell, 0).repeat(cell, 1)
            rows, cols = (np.arange(k - 8, k + 8) for k in (row, col))
            kept = np.ix_((rows >= 0) & (rows < TILE), (cols >= 0) & (cols < TILE))
            middle = slice(side // 2 - 8, side // 2 + 8)
            here = truth[np.ix_(rows.clip(0, TILE - 1), cols.clip(0, TILE - 1))][kept]
            assert np.abs(seen[middle, middle][kept].mean((0, 1)) - here.mean((0, 1))).max() < 10


def picture(uri: str) -> np.ndarray:
    with Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("point,reference\n1,4\n", "columns sample are missing; expected sample, point, reference"),
        ("sample,point,reference\nother,1,4\n", "line 2: an answer of sample other; expected {sample}"),
        ("sample,point,reference\n{sample},99,4\n", r"line 2: expected a point 1\.\.14, found '99'"),
        ("sample,point,reference\n{sample},1,20\n", r"expected a FLAIR value 1\.\.19 in `reference`, found '20'"),
        ("sample;point;reference\n{sample};1;4\n{sample};1;5\n", "point 1 has two answers, 4 and 5"),
        ("sample,point,reference\n{sample},²,4\n", "expected a point"),
        (f"sample,point,reference\n{{sample}},{'1' * 5000},4\n", "expected a point"),
        ("sample,point,reference\n{sample}\n", "expected a point"),
        ("\0", "cannot be read as answers|columns"),
        ("", "columns sample, point, reference are missing"),
    ],
)
def test_answers_that_do_not_fit_are_refused(drawn: Drawn, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "answers.csv"
    path.write_text(text.replace("{sample}", drawn.sample))
    with pytest.raises(ProductError, match=said.replace("{sample}", drawn.sample)):
        read_sample(drawn.path, answers=path)


def test_answers_of_the_page_and_of_qgis_must_agree(drawn: Drawn, tmp_path: Path) -> None:
    copy, answers = tmp_path / "s.gpkg", tmp_path / "answers.csv"
    points = gpd.read_file(drawn.path, layer="sample")
    points.assign(reference=np.where(points.point < 5, 4, 0)).to_file(copy, layer="sample", driver="GPKG")
    rows = [f"{drawn.sample},{k},{4 if k < 5 else 7}" for k in range(1, SIZE + 1)]
    answers.write_text("\n".join(["sample,point,reference", *rows]))
    assert read_sample(copy, answers=answers).reference.tolist() == [4] * 4 + [7] * (SIZE - 4)
    answers.write_text("\n".join(["sample,point,reference", rows[0].replace(",4", ",5"), *rows[1:]]))
    with pytest.raises(ProductError, match=r"point 1 has another class than in .*: 5, expected 4; 1 points differ"):
        read_sample(copy, answers=answers)


def test_qgis_finds_a_form_with_the_classes_and_without_the_map(drawn: Drawn) -> None:
    with sqlite3.connect(drawn.path) as database:
        ((table, used, style),) = database.execute("SELECT f_table_name, useAsDefault, styleQML FROM layer_styles")
    database.close()
    assert (table, used) == ("sample", 1)
    root = ET.fromstring(style)  # noqa: S314  (our own file)
    pairs = root.findall(
        "fieldConfiguration/field[@name='reference']/editWidget/config//Option[@name='map']/Option/Option"
    )
    assert [(o.attrib["name"], o.attrib["value"]) for o in pairs] == [(c.french, str(c.value)) for c in legend.FLAIR]
    columns = pyogrio.read_info(drawn.path, layer="sample")["fields"].tolist()
    shown = [field.attrib["name"] for field in root.findall("attributeEditorForm/attributeEditorField")]
    visible = [
        c.attrib["name"] for c in root.findall("attributetableconfig/columns/column") if c.attrib["hidden"] == "0"
    ]
    assert set(shown) == set(visible) == {"point", "reference", "crop"}
    editable = [f.attrib["name"] for f in root.findall("editable/field") if f.attrib["editable"] == "1"]
    assert editable == ["reference"]
    assert [f.attrib["name"] for f in root.findall("editable/field")] == columns
