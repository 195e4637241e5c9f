"""External catalogs, static or behind an API, give the pixels of folders, and credentials stay with their origin."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from pipeline.domain import Domain
from pipeline.errors import CatalogError
from pipeline.sources.catalog.external_stac import CatalogFiles, Query, add_catalog
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.domain_inputs import BANDS, DomainInputs
from pipeline.sources.http_client import HEADERS_VARIABLE
from pipeline.sources.reading.mosaic import Mosaic
from tests.support.deliveries import Delivery, make_delivery
from tests.support.file_server import serving
from tests.support.stac_server import stac_api

SIZE = 250
DOMAIN = Domain("D034_2021")
WORD = "open-sesame"


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves a folder on loopback; returns its URL."""
    with ExitStack() as stack:
        yield lambda folder, **how: stack.enter_context(serving(folder, **how))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a delivery and its catalog."""
    folder = tmp_path_factory.mktemp("origin")
    delivery = make_delivery(folder / "in", at=[(0, 0), (0, 1)], suffix="jp2")
    indexed(delivery.folder, catalog=folder / "cat")
    return folder


def indexed(
    *sources: str | Path, catalog: Path, query: Query | None = None, bands: tuple[str, ...] = BANDS
) -> DomainInputs:
    index(sources, domain=DOMAIN, catalog=catalog, tile_size=SIZE, query=query, bands=bands)
    return read_domain(catalog, DOMAIN, tile_size=SIZE)


def assert_same(one: DomainInputs, other: DomainInputs) -> None:
    """Both have the same pixels, byte for byte, and so the same fingerprints."""
    first, second = (Mosaic.of(inputs, bands=BANDS) for inputs in (one, other))
    np.testing.assert_array_equal(first.read(one.window).bands, second.read(other.window).bands)
    np.testing.assert_array_equal(first.read(one.window).valid, second.read(other.window).valid)
    # As a run reads it: each internal tile of a file once.
    planned = first.planned([one.window, one.window.grow(-50)], 1 << 30)
    np.testing.assert_array_equal(planned.read(one.window).bands, second.read(other.window).bands)
    planned.read(one.window.grow(-50))
    assert one.inputs_digest(one.window) == other.inputs_digest(other.window)
    assert one.origin.attribution == other.origin.attribution == "IGN, BD ORTHO 2021, LiDAR HD"


def items_of(origin: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted((origin / "cat" / DOMAIN).glob(f"{DOMAIN}-*.json"))]


def test_a_static_catalog_gives_the_pixels_of_its_folders(origin: Path, tmp_path: Path) -> None:
    folders = read_domain(origin / "cat", DOMAIN, tile_size=SIZE)
    assert_same(indexed(str(origin / "cat" / "catalog.json"), catalog=tmp_path / "cat"), folders)


def test_a_static_catalog_on_the_web_gives_the_same_pixels(
    origin: Path, tmp_path: Path, serve: Callable[..., str]
) -> None:
    found = indexed(f"{serve(origin)}/cat/catalog.json", catalog=tmp_path / "cat")
    assert all(a.href.startswith("http://127.0.0.1") for a in found.assets)
    assert found.changes(found.assets) == {}
    assert_same(found, read_domain(origin / "cat", DOMAIN, tile_size=SIZE))


def test_a_stac_api_gives_the_same_pixels(
    origin: Path, tmp_path: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("requests.Session.send", lambda *_, **__: pytest.fail("not sent by our HTTP client"))
    files = serve(origin)
    items = items_of(origin)
    for item in items:
        item["links"] = []
        item["collection"] = DOMAIN
        for asset in item["assets"].values():
            asset["href"] = asset["href"].replace("../../in", f"{files}/in")
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items, "links": []}))
    with stac_api(tmp_path / "items.json") as url:
        found = indexed(url, catalog=tmp_path / "cat", query=Query((DOMAIN,), (3.0, 43.0, 4.5, 44.0), "2021"))
        with pytest.raises(CatalogError, match="no items match"):
            indexed(url, catalog=tmp_path / "none", query=Query(datetime="2019-01-01/2019-12-31"))
    assert_same(found, read_domain(origin / "cat", DOMAIN, tile_size=SIZE))


def test_all_pages_of_a_stac_api_are_read(origin: Path, tmp_path: Path) -> None:
    item = items_of(origin)[0] | {"links": [], "collection": DOMAIN}
    features = [item | {"id": f"item-{number:02d}"} for number in range(25)]
    for feature in features:
        name = f"34-2021-{feature['id'][-2:]}7050-627760-LA93-0M20-E080.tif"
        feature["assets"] = {"rvb": {"href": f"http://127.0.0.1:9/{name}"}}
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features, "links": []}))
    with stac_api(tmp_path / "items.json") as url:
        files = CatalogFiles()
        add_catalog(files, url, Query())
        assert len(files.delivered) == 25


def test_a_static_catalog_is_searched_like_an_api(origin: Path, tmp_path: Path) -> None:
    source = str(origin / "cat" / "catalog.json")
    west = items_of(origin)[0]["bbox"]
    query = Query((DOMAIN,), (west[0], west[1], west[0] + 1e-5, west[3]), "2021-06")
    assert indexed(source, catalog=tmp_path / "cat", query=query).names == ("077050-627760",)
    for none in (Query(("other",)), Query(bbox=(0, 0, 1, 1)), Query(datetime="2020")):
        with pytest.raises(CatalogError, match="no items match"):
            indexed(source, catalog=tmp_path / "none", query=none)


def test_credentials_of_the_environment_are_sent_to_their_own_host(
    origin: Path, tmp_path: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"{serve(origin, token=WORD)}/cat/catalog.json"
    with pytest.raises(CatalogError, match=r"cannot be read as a STAC catalog: .*set LANDCOVER_STAC_HEADERS"):
        indexed(source, catalog=tmp_path / "cat")
    monkeypatch.setenv(HEADERS_VARIABLE, f"X-Token: {WORD}\n")
    assert_same(indexed(source, catalog=tmp_path / "cat"), read_domain(origin / "cat", DOMAIN, tile_size=SIZE))
    assert WORD not in "".join(p.read_text() for p in (tmp_path / "cat").rglob("*") if p.is_file())
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(origin / "cat", elsewhere / "cat")
    for path in (elsewhere / "cat" / DOMAIN).glob(f"{DOMAIN}-*.json"):
        path.write_text(path.read_text().replace("../../in", "http://127.0.0.2:1/in"))
    with pytest.raises(CatalogError, match=r"on another host than .*refused while LANDCOVER_STAC_HEADERS is set"):
        indexed(f"{serve(elsewhere, token=WORD)}/cat/catalog.json", catalog=tmp_path / "none")


def test_a_catalog_that_redirects_elsewhere_gets_no_credentials_there(
    origin: Path, tmp_path: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HEADERS_VARIABLE, f"X-Token: {WORD}\n")
    elsewhere = serve(origin, token=WORD)
    link = f"{serve(tmp_path)}/redirect/{quote(f'{elsewhere}/cat/catalog.json', safe='')}"
    (tmp_path / "catalog.json").write_text(
        json.dumps({"type": "Catalog", "id": "c", "links": [{"rel": "child", "href": link}]})
    )
    with pytest.raises(CatalogError, match="403 Forbidden after a redirect to"):
        indexed(f"{link.partition('/redirect')[0]}/catalog.json", catalog=tmp_path / "none")


def test_an_rgb_recipe_uses_only_the_colours_of_a_catalog(origin: Path, tmp_path: Path) -> None:
    found = indexed(str(origin / "cat" / "catalog.json"), catalog=tmp_path / "cat", bands=("red", "green", "blue"))
    assert {a.kind for a in found.assets} == {"rvb"}


def test_a_delivery_and_a_catalog_can_be_indexed_together(origin: Path, tmp_path: Path) -> None:
    more: Delivery = make_delivery(tmp_path / "in", at=[(1, 0)])
    both = indexed(more.folder, str(origin / "cat" / "catalog.json"), catalog=tmp_path / "cat")
    assert len(both.names) == 3
