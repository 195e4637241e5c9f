"""HTML pages escape every text, refuse missing values, and are laid out by templates alone."""

import re

import pytest
from jinja2 import UndefinedError

from pipeline.html_page import render
from tests.support.browser import outside
from tests.support.paths import ROOT

TEMPLATES = ROOT / "pipeline" / "templates"
DONE = {"design": "3 points", "overall": 0.5, "notes": (), "classes": ()}


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
    assert {"base.html", "parts.html"} < templates.keys()
    assert [n for n, text in templates.items() if re.search(r"\bsafe\b|autoescape|Markup", text)] == []
    pages = templates.keys() - {"base.html", "parts.html"}
    assert all(templates[name].startswith('{% extends "base.html" %}') for name in pages)
    modules = (ROOT / "pipeline").rglob("*.py")
    assert [str(p) for p in modules if re.search(r"</?(html|table|td|tr|div|p|img)\b[^>]*>", p.read_text())] == []
