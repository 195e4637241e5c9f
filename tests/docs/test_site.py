"""The site's own rules, and the pages that it is put together from."""

from pathlib import Path

import nbformat
import pytest

from docs.builder.check import check_navigation, check_own_resources
from docs.builder.errors import DocsError
from docs.builder.gallery import write_gallery
from docs.builder.stage import stage
from tests.support.browser import screenshot
from tests.support.paths import ROOT

SITE = ROOT / "build" / "site"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def repository(folder: Path, page: str) -> Path:
    (folder / "docs" / "assets").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    (folder / "docs" / "index.md").write_text(page)
    (folder / "docs" / "assets" / "arrow.svg").write_text("<svg>\n  <path/>\n</svg>\n")
    (folder / "GUIDE.md").write_text("[start](docs/index.md)\n")
    return folder


def test_markers_are_filled_and_links_of_root_files_are_moved(tmp_path: Path) -> None:
    markers = [f"<!-- generated: {what} -->\n" for what in ("file GUIDE.md", "figure arrow", "groups")]
    root = repository(tmp_path / "root", "\n".join(markers))
    stage(root, tmp_path / "out", executed=tmp_path / "none")
    text = (tmp_path / "out" / "index.md").read_text()
    assert "[start](../index.md)" in text
    assert "<svg><path/></svg>" in text
    assert "| woodland |" in text


def test_an_unknown_marker_is_an_error(tmp_path: Path) -> None:
    root = repository(tmp_path / "root", "<!-- generated: weather -->\n")
    with pytest.raises(DocsError, match="weather"):
        stage(root, tmp_path / "out", executed=tmp_path / "none")


def test_a_notebook_shows_its_figure_once_it_was_executed(tmp_path: Path) -> None:
    plain = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Why?"), nbformat.v4.new_code_cell("draw()")],
    )
    executed = nbformat.from_dict(plain)
    executed.cells[1].outputs = [
        nbformat.v4.new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"}),
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
    ]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "executed").mkdir()
    nbformat.write(plain, tmp_path / "notebooks" / "one.ipynb")
    write_gallery(tmp_path / "notebooks", tmp_path / "executed", tmp_path / "pages")
    assert "figures are missing" in (tmp_path / "pages" / "one.md").read_text()
    nbformat.write(executed, tmp_path / "executed" / "one.ipynb")
    write_gallery(tmp_path / "notebooks", tmp_path / "executed", tmp_path / "pages")
    page = (tmp_path / "pages" / "one.md").read_text()
    assert "a warning" not in page
    assert "one_files/" in page
    assert len(list((tmp_path / "pages" / "one_files").glob("*.png"))) == 1


def test_a_page_outside_the_navigation_is_an_error(tmp_path: Path) -> None:
    for name in ("index.md", "guide.md"):
        (tmp_path / name).touch()
    check_navigation([{"Home": "index.md"}, {"More": [{"Guide": "guide.md"}]}], tmp_path)
    with pytest.raises(DocsError, match=r"lacks \['guide\.md'\]"):
        check_navigation(["index.md"], tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.html", '<script src="https://host/x.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//host/x.css">'),
        ("a.html", '<img src="https://host/x.png">'),
        ("a.html", "<style>@import 'https://host/x.css';</style>"),
        ("a.css", "@font-face { src: url(https://host/x.woff2) }"),
    ],
)
def test_a_page_that_loads_from_another_host_is_an_error(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "b.html").write_text(
        '<a href="https://host/">elsewhere</a><img src="x.png"><svg xmlns="http://www.w3.org/2000/svg"/>'
    )
    check_own_resources(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(DocsError, match=rf"{name}: (https:)?//host/x"):
        check_own_resources(tmp_path)


@pytest.mark.browser
@pytest.mark.parametrize("page", ["index.html", "explanation/data-flow/index.html", "reference/python/index.html"])
def test_a_built_page_asks_no_other_host_in_a_browser(page: str, tmp_path: Path) -> None:
    if not (SITE / page).is_file():
        pytest.skip("the site is not built: make docs")
    picture = tmp_path / "page.png"
    assert screenshot(SITE / page, picture, work=tmp_path, size=(420, 900)) == set()
    assert picture.stat().st_size > 10_000
