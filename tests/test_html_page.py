"""HTML pages escape every text, refuse missing values, and are laid out by templates alone."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from jinja2 import UndefinedError

from pipeline import legend
from pipeline.domain import Domain
from pipeline.html_page import Wording, _environment, render
from pipeline.products.analysis.change import Change
from pipeline.runs.mapping.events import SealedTiles, TileEnded
from pipeline.runs.planning.plan import make_plan
from tests.support.browser import outside
from tests.support.campaigns import make_campaign
from tests.support.paths import ROOT

TEMPLATES = ROOT / "pipeline" / "templates"
DONE = {"design": "3 points", "overall": 0.5, "regression": None, "notes": (), "classes": ()}


def area_page(**values: object) -> str:
    return render("area.html", **({"title": "T", "sample": "S", "done": DONE} | values))


def test_texts_are_escaped_in_head_and_body() -> None:
    page = area_page(title="<script>", sample='"a" & b')
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2
    assert "&#34;a&#34; &amp; b" in page
    assert outside(page) == []


def test_a_missing_value_is_an_error_and_not_an_empty_cell() -> None:
    with pytest.raises(UndefinedError, match="'sample' is undefined"):
        render("area.html", title="T", done=DONE)


def test_no_template_switches_escaping_off_and_no_module_writes_markup() -> None:
    templates = {p.name: p.read_text() for p in TEMPLATES.glob("*.html")}
    parts = {"base.html", "charts.html", "parts.html"}
    assert parts < templates.keys()
    assert [n for n, text in templates.items() if re.search(r"\bsafe\b|autoescape|Markup", text)] == []
    pages = templates.keys() - {*parts, "notebook.html"}
    assert all(templates[name].startswith('{% extends "base.html" %}') for name in pages)
    modules = (ROOT / "pipeline").rglob("*.py")
    assert [str(p) for p in modules if re.search(r"</?(html|table|td|tr|div|p|img)\b[^>]*>", p.read_text())] == []


def test_a_notebook_shows_plans_and_runs_as_tables(tmp_path: Path) -> None:
    made = make_campaign(tmp_path / "made", at=[(0, 0), (0, 1)])
    plan = make_plan(made.campaign)._repr_html_()
    assert "tiles to map: 2" in plan
    assert "2 not mapped yet" in plan
    ended = SealedTiles([TileEnded(Domain("D034_2021"), "<tile>", 2.0, 5_000_000, None)])
    assert "tiles sealed: 1, 5 Mpx" in ended._repr_html_()
    assert '&lt;tile&gt;</th><td style="text-align:right">2.0</td>' in ended._repr_html_()
    assert ended == (ended[0],)


def test_a_notebook_shows_the_whole_matrix_of_a_change() -> None:
    names = [c.name for c in legend.FLAIR]
    matrix = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    shown = Change(matrix, xr.DataArray(), 0.1, 0.1, 0.2, 0.05, None)._repr_html_()
    assert [f"<th>{name}</th>" in shown for name in names] == [True] * len(names)
    assert shown.count("1.000") == len(names)
    assert "10.00% of the certain pixels" in shown


def test_numbers_are_written_as_the_language_does() -> None:
    english, french = Wording("en"), Wording("fr")
    assert (english.count(12345), english.decimal(-1234.5, 1), english.percent(0.5)) == (
        "12,345",
        "-1,234.5",
        "50.00 %",
    )
    assert french.count(12345) == "12\N{NARROW NO-BREAK SPACE}345"
    assert french.decimal(1234.5, 1, "+") == "+1\N{NARROW NO-BREAK SPACE}234,5"
    assert french.percent(None) == "–"
    assert [french.plural("limit is exceeded", "limits are exceeded", n)[:7] for n in (0, 1, 2)] == [
        "limite ",
        "limite ",
        "limites",
    ]


def test_every_text_has_one_translation_and_none_is_unused() -> None:
    made = _environment("en")
    found: set[str] = set()
    for path in TEMPLATES.glob("*.html"):
        for _, _, texts in made.extract_translations(path.read_text()):  # type: ignore[attr-defined]  (of the extension)
            found |= {texts} if isinstance(texts, str) else {text for text in texts or () if text}
    strings: set[str] = set()
    for path in (ROOT / "pipeline").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        strings |= {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        if "import Wording" in path.read_text():
            calls = (
                n
                for n in nodes
                if isinstance(n, ast.Call) and re.fullmatch(r"(\w+\.)?say(\.plain)?", ast.unparse(n.func))
            )
            found |= {n.args[0].value for n in calls if n.args and isinstance(n.args[0], ast.Constant)}
    french = json.loads((TEMPLATES / "fr.json").read_text())
    assert len(found) > 100
    assert found - french.keys() == set()
    assert french.keys() - found - strings == set()
    for english, translated in french.items():
        assert sorted(re.findall(r"%\(\w+\)s|</?\w+>", english)) == sorted(re.findall(r"%\(\w+\)s|</?\w+>", translated))
