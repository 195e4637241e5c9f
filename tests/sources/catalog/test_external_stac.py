"""Ready catalogues, static or behind an API, give the pixels that folders give, and credentials stay at home."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.domain import Domain
from pipeline.errors import CatalogError
from pipeline.sources import BANDS, DomainInputs, Mosaic, index, open_domain
from pipeline.sources.catalog.index import Query
from pipeline.sources.http_path import HEADERS_VARIABLE
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
    """A folder with a delivery and its catalogue."""
    folder = tmp_path_factory.mktemp("origin")
    delivery = make_delivery(folder / "in", at=[(0, 0), (0, 1)], suffix="jp2")
    indexed(delivery.folder, catalog=folder / "cat")
    return folder


def indexed(
    *sources: str | Path, catalog: Path, query: Query | None = None, bands: tuple[str, ...] = BANDS
) -> DomainInputs:
    index(sources, domain=DOMAIN, catalog=catalog, tile_size=SIZE, query=query, bands=bands)
    return open_domain(catalog, DOMAIN, tile_size=SIZE)


def assert_same(one: DomainInputs, other: DomainInputs) -> None:
    """The same pixels, byte for byte, and so the same fingerprints."""
    first, second = (Mosaic.of(inputs, bands=BANDS) for inputs in (one, other))
    np.testing.assert_array_equal(first.read(one.window).bands, second.read(other.window).bands)
    np.testing.assert_array_equal(first.read(one.window).valid, second.read(other.window).valid)
    assert one.inputs_digest(one.window) == other.inputs_digest(other.window)
    assert one.attribution == other.attribution == "IGN, BD ORTHO 2021, LiDAR HD"


def items_of(origin: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted((origin / "cat" / DOMAIN).glob(f"{DOMAIN}-*.json"))]


def test_a_static_catalogue_gives_the_pixels_of_its_folders(origin: Path, tmp_path: Path) -> None:
    folders = open_domain(origin / "cat", DOMAIN, tile_size=SIZE)
    assert_same(indexed(str(origin / "cat" / "catalog.json"), catalog=tmp_path / "cat"), folders)


def test_a_static_catalogue_on_the_web_gives_them_too(origin: Path, tmp_path: Path, serve: Callable[..., str]) -> None:
    adopted = indexed(f"{serve(origin)}/cat/catalog.json", catalog=tmp_path / "cat")
    assert all(a.href.startswith("http://127.0.0.1") for a in adopted.assets)
    assert adopted.changed(adopted.assets) == []
    assert_same(adopted, open_domain(origin / "cat", DOMAIN, tile_size=SIZE))


def test_a_stac_api_gives_them_too(origin: Path, tmp_path: Path, serve: Callable[..., str]) -> None:
    files = serve(origin)
    items = items_of(origin)
    for item in items:
        item["links"] = []
        item["collection"] = DOMAIN
        for asset in item["assets"].values():
            asset["href"] = asset["href"].replace("../../in", f"{files}/in")
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items, "links": []}))
    with stac_api(tmp_path / "items.json") as url:
        adopted = indexed(url, catalog=tmp_path / "cat", query=Query((DOMAIN,), (3.0, 43.0, 4.5, 44.0), "2021"))
        with pytest.raises(CatalogError, match="no items that fit"):
            indexed(url, catalog=tmp_path / "none", query=Query(datetime="2019-01-01/2019-12-31"))
    assert_same(adopted, open_domain(origin / "cat", DOMAIN, tile_size=SIZE))


def test_a_static_catalogue_is_searched_as_an_api_is(origin: Path, tmp_path: Path) -> None:
    source = str(origin / "cat" / "catalog.json")
    west = items_of(origin)[0]["bbox"]
    query = Query((DOMAIN,), (west[0], west[1], west[0] + 1e-5, west[3]), "2021-06")
    assert indexed(source, catalog=tmp_path / "cat", query=query).names == ("077050-627760",)
    for none in (Query(("other",)), Query(bbox=(0, 0, 1, 1)), Query(datetime="2020")):
        with pytest.raises(CatalogError, match="no items that fit"):
            indexed(source, catalog=tmp_path / "none", query=none)


def test_credentials_come_from_the_environment_and_go_to_their_own_host(
    origin: Path, tmp_path: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"{serve(origin, token=WORD)}/cat/catalog.json"
    with pytest.raises(CatalogError, match="cannot be read as a STAC catalogue"):
        indexed(source, catalog=tmp_path / "cat")
    monkeypatch.setenv(HEADERS_VARIABLE, f"X-Token: {WORD}\n")
    assert_same(indexed(source, catalog=tmp_path / "cat"), open_domain(origin / "cat", DOMAIN, tile_size=SIZE))
    assert WORD not in "".join(p.read_text() for p in (tmp_path / "cat").rglob("*") if p.is_file())
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(origin / "cat", elsewhere / "cat")
    for path in (elsewhere / "cat" / DOMAIN).glob(f"{DOMAIN}-*.json"):
        path.write_text(path.read_text().replace("../../in", "http://127.0.0.2:1/in"))
    with pytest.raises(CatalogError, match=r"on another host than .*refused while LANDCOVER_STAC_HEADERS is set"):
        indexed(f"{serve(elsewhere, token=WORD)}/cat/catalog.json", catalog=tmp_path / "none")


def test_an_rgb_recipe_takes_only_the_colours_of_a_catalogue(origin: Path, tmp_path: Path) -> None:
    adopted = indexed(str(origin / "cat" / "catalog.json"), catalog=tmp_path / "cat", bands=("red", "green", "blue"))
    assert {a.kind for a in adopted.assets} == {"rvb"}


def test_a_delivery_and_a_catalogue_add_up(origin: Path, tmp_path: Path) -> None:
    more: Delivery = make_delivery(tmp_path / "in", at=[(1, 0)])
    both = indexed(more.folder, str(origin / "cat" / "catalog.json"), catalog=tmp_path / "cat")
    assert len(both.names) == 3
