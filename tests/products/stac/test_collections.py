"""What a publish leaves for catalogues and GIS people opens, says what the items say, and can be searched."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pystac
import pytest
import rasterio
import rioxarray
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from pystac_client import Client

from pipeline import legend
from pipeline.config import load_recipe
from pipeline.domain import Domain
from pipeline.errors import ConfigError, ProductError
from pipeline.grid import Tile, union
from pipeline.legend import LAYERS
from pipeline.products.gis.gis_files import write_gis
from pipeline.products.gis.overviews import overview
from pipeline.products.stac.collections import read_item, write_domain, write_edition
from pipeline.products.stac.search import search
from pipeline.products.tile.seal import SealedTile, list_sealed, seal
from pipeline.products.tile.stac_item import share_name
from tests.support.products import LIVE, PROVENANCE, TILE, stack_of, tile_at
from tests.support.stac_server import duckdb_home, stac_api

WEST, EAST = Domain("D064_2021"), Domain("D065_2022")
PLACES = {WEST: ((0, 0), (0, 1), (1, 1)), EAST: ((0, 1), (0, 2), (1, 2))}
"""(row, column) of the tiles; both domains have (0, 1)."""


def classes_at(domain: str, row: int, col: int) -> np.ndarray:
    """uint8 (layer, y, x): the more vineyard and confidence the further south-east."""
    stack = stack_of(10 * row + col + (domain == EAST) * 100)
    if row + col > 1:
        stack[0, :, TILE // 2 :] = 9
        stack[1, :, TILE // 2 :] = 250
    return stack


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the products of two domains and an edition of them, reached over the pointer."""
    root = tmp_path_factory.mktemp("published")
    edition = root / "national" / "editions" / "000003"
    recipe = load_recipe("flair-inc_rgbie_12cl_resnet34-unet").model_copy(update={"name": PROVENANCE.recipe})
    domains = {}
    for name, places in PLACES.items():
        tiles = tuple(
            seal(
                root / "products" / name,
                domain=name,
                tile=tile_at(*place),
                stack=classes_at(name, *place),
                fingerprint="f",
                live=LIVE,
                provenance=PROVENANCE,
                inputs=["../../in/a.jp2", "https://host/b.jp2"],
            )
            for place in places
        )
        domains[name] = (write_domain(root / "products" / name, tiles, recipe=recipe), tiles)
        write_gis(root / "products" / name, tiles, quick_look=picture_of(tiles), prefix=f"{name}-")
    write_edition(edition / "catalog", domains, number=3)
    write_gis(edition, sealed(root), quick_look=picture_of(sealed(root)))
    (root / "national" / "current").symlink_to(Path("editions", "000003"))
    return root


def picture_of(tiles: Sequence[SealedTile]) -> np.ndarray:
    return overview(tiles, "landcover", within=union([t.tile.window for t in tiles]))


def sealed(root: Path) -> tuple[SealedTile, ...]:
    from pipeline.products.tile.seal import list_sealed

    return tuple(s for name in PLACES for s in list_sealed(root / "products" / name, name, TILE))


def test_the_index_gives_every_pixel_of_every_cog_and_the_newest_on_top(published: Path) -> None:
    for layer in LAYERS:
        with rasterio.open(published / "products" / WEST / f"{WEST}-{layer}.gti.gpkg") as index:
            assert index.driver == "GTI"
            for row, col in PLACES[WEST]:
                # A fresh dataset a window: GDAL 3.10 loses pixels of neighbours in windows of their own.
                expected = classes_at(WEST, row, col)[LAYERS.index(layer)]
                window = ((row * TILE, (row + 1) * TILE), (col * TILE, (col + 1) * TILE))
                with rasterio.open(index.name) as fresh:
                    np.testing.assert_array_equal(fresh.read(1, window=window), expected)
    with rasterio.open(published / "national" / "current" / "landcover.gti.gpkg") as nation:
        assert nation.shape == (2 * TILE, 3 * TILE)
        assert nation.colormap(1)[9] == (*legend.BY_VALUE[9].rgb, 255)
        newest = classes_at(EAST, 0, 1)[0]
        under = np.where(newest == 0, classes_at(WEST, 0, 1)[0], newest)
        np.testing.assert_array_equal(nation.read(1, window=((0, TILE), (TILE, 2 * TILE))), under)


def test_an_index_moves_with_its_products(published: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(published)
    with rasterio.open(tmp_path / "elsewhere" / "national" / "current" / "landcover.gti.gpkg") as nation:
        assert nation.read(1).any()
    for path in published.rglob("*.gti.gpkg"):
        assert str(published).encode() not in path.read_bytes()


@given(
    rows=st.tuples(st.integers(0, 399), st.integers(1, 400)), cols=st.tuples(st.integers(0, 599), st.integers(1, 600))
)
def test_any_window_of_an_index_is_a_crop_of_the_whole(
    rows: tuple[int, int], cols: tuple[int, int], published: Path
) -> None:
    top, left = min(rows), min(cols)
    bottom, right = max(*rows, top + 1), max(*cols, left + 1)
    path = published / "national" / "current" / "landcover.gti.gpkg"
    with rasterio.open(path) as one, rasterio.open(path) as other:
        part = one.read(1, window=((top, bottom), (left, right)))
        np.testing.assert_array_equal(part, other.read(1)[top:bottom, left:right])


@pytest.mark.parametrize(("name", "palette"), [("landcover.qml", "flair"), ("landcover-colour-blind.qml", "safe")])
def test_the_styles_have_the_names_and_colours_of_the_legend(
    published: Path, name: str, palette: legend.Palette
) -> None:
    root = ET.parse(published / "national" / "current" / name).getroot()  # noqa: S314  (our own file)
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.get("type") == "paletted"
    found = {(e.get("value"), e.get("label"), e.get("color")) for e in root.iter("paletteEntry")}
    assert found == {(str(c.value), c.name, c.colour_in(palette)) for c in legend.FLAIR}
    assert ("5", "water", "#1553ae" if palette == "flair" else "#1a5dd6") in found


def test_a_quick_look_shows_classes_that_are_there_and_never_a_mean_of_them(published: Path, tmp_path: Path) -> None:
    tile = Tile.at(-6_890_000 * 5, 600_000 * 5, 1100)
    stack = np.ones((2, 1100, 1100), np.uint8)
    stack[0, :, ::2] = 7  # building and deciduous; their mean, 4, is bare soil
    seal(
        tmp_path,
        domain=WEST,
        tile=tile,
        stack=stack,
        fingerprint="f",
        live=LIVE,
        provenance=PROVENANCE,
        inputs=[],
    )
    coarse = overview(list_sealed(tmp_path, WEST, 1100), "landcover", within=tile.window, side=137)
    assert coarse.shape == (137, 137)
    assert set(np.unique(coarse)) <= {1, 7}
    picture = Image.open(published / "national" / "current" / "quicklook.png")
    assert picture.size == (3 * TILE, 2 * TILE)
    seen = np.asarray(picture.convert("RGBA"))
    assert tuple(seen[TILE + 5, 3 * TILE - 5]) == (*legend.BY_VALUE[9].rgb, 255)
    assert seen[-1, 0, 3] == 0, "what no domain has is transparent"


def test_collections_pass_core_validation_and_lead_to_items_models_and_domains(published: Path) -> None:
    catalog = published / "national" / "current" / "catalog"
    paths = [catalog / "collection.json", *catalog.glob("*/collection.json")]
    paths += [published / "products" / name / "collection.json" for name in PLACES]
    assert len(paths) == 5
    for path in paths:
        content = json.loads(path.read_bytes())
        JsonSchemaSTACValidator().validate_core(content, pystac.STACObjectType.COLLECTION, "1.1.0")
        assert content["license"] == "etalab-2.0"
        assert {"mlm:name", "proj:code"} <= content["summaries"].keys()
        for asset in content["assets"].values():
            if not asset["href"].endswith(".zarr"):  # this edition has no store
                assert (path.parent / asset["href"]).is_file(), asset["href"]
    nation = pystac.Collection.from_file(catalog / "collection.json")
    assert nation.extra_fields["version"] == "3"
    items = [item for child in nation.get_children() for item in child.get_items()]
    assert len(items) == 6
    assert {item.collection_id for item in items} == set(PLACES)
    west = pystac.Collection.from_file(published / "products" / WEST / "collection.json")
    boxes = np.array([item.bbox for item in items if item.collection_id == WEST])
    assert west.extent.spatial.bboxes[0] == [*boxes.min(0)[:2], *boxes.max(0)[2:]]


def test_the_model_is_an_item_of_its_own_that_every_product_names(published: Path) -> None:
    tile = sealed(published)[0]
    links = [link for link in read_item(tile)["links"] if "mlm:name" in link]
    (path,) = {tile.item_path.parent / link["href"] for link in links}
    content = json.loads(path.read_bytes())
    JsonSchemaSTACValidator().validate_core(content, pystac.STACObjectType.ITEM, "1.1.0")
    said = content["properties"]
    required = {"mlm:name", "mlm:architecture", "mlm:framework", "mlm:tasks", "mlm:input", "mlm:output"}
    assert required <= said.keys()
    (given_,), (made,) = said["mlm:input"], said["mlm:output"]
    assert len(given_["input"]["shape"]) == len(given_["input"]["dim_order"]) == 4
    assert given_["bands"] == [band["name"] for band in content["assets"]["weights"]["bands"]]
    assert len(given_["value_scaling"]) == len(given_["bands"]) == 5
    assert [c["value"] for c in made["classification:classes"]] == list(LIVE)
    assert "mlm:model" in content["assets"]["weights"]["roles"]
    assert links[0]["mlm:name"] == said["mlm:name"]


def test_items_hold_shares_and_confidence_as_counted(published: Path) -> None:
    for tile in sealed(published):
        with rasterio.open(tile.files[0].path) as classes, rasterio.open(tile.files[1].path) as sure:
            landcover, confidence = classes.read(1), sure.read(1)
        said = read_item(tile)["properties"]
        mapped = landcover != 0
        assert said["landcover:mapped"] == mapped.mean()
        assert said["landcover:confidence"] == pytest.approx(confidence[mapped].mean() / 255)
        for value in LIVE:
            assert said[share_name(value)] == pytest.approx((landcover[mapped] == value).mean())


def test_search_follows_products_that_were_moved_with_their_nation(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / "moved", symlinks=True)
    for item in search(tmp_path / "moved" / "national"):
        assert Path(item.assets["confidence"].href).is_relative_to(tmp_path / "moved" / "products")
        assert Path(item.assets["confidence"].href).is_file()


@given(
    domains=st.none() | st.sets(st.sampled_from([*PLACES, "D001_2020"])),
    corner=st.none() | st.tuples(st.floats(1.63, 1.633), st.floats(49.1, 49.103)),
    when=st.sampled_from([None, "2021", "2022-05", "2021-12-31", "../2021-06-01", "2022-01-01/..", "2019"]),
    share=st.none() | st.floats(0, 1),
    sure=st.none() | st.floats(0, 1),
)
def test_search_finds_what_a_loop_over_the_items_finds(
    domains: set[str] | None,
    corner: tuple[float, float] | None,
    when: str | None,
    share: float | None,
    sure: float | None,
    published: Path,
) -> None:
    box = None if corner is None else (corner[0], corner[1], corner[0] + 3e-4, corner[1] + 3e-4)
    years = {"2021": {2021}, "2022-05": {2022}, "2021-12-31": {2021}, "../2021-06-01": {2021}, "2022-01-01/..": {2022}}
    expected = []
    for tile in sealed(published):
        content = read_item(tile)
        said, (west, south, east, north) = content["properties"], content["bbox"]
        if domains is not None and tile.domain not in domains:
            continue
        if box and not (west <= box[2] and box[0] <= east and south <= box[3] and box[1] <= north):
            continue
        if when and int(tile.domain[-4:]) not in years.get(when, set()):
            continue
        if share is not None and said["landcover:share_vineyard"] < share:
            continue
        if sure is None or said["landcover:confidence"] >= sure:
            expected.append(content["id"])
    asked: dict[str, Any] = {"domains": domains, "bbox": box, "datetime": when, "min_confidence": sure}
    found = search(published / "national", min_share=None if share is None else {"vineyard": share}, **asked)
    assert [item.id for item in found] == sorted(expected)


def test_what_search_finds_opens_from_anywhere_and_leads_back(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edition = published / "national" / "editions" / "000003"
    for path in (published / "national", edition, edition / "catalog" / "items.parquet"):
        item = next(iter(search(path, domains=[WEST])))
        with rioxarray.open_rasterio(item.assets["landcover"].href) as opened:
            assert opened.rio.crs.to_epsg() == 2154
        inputs = [link.href for link in item.links if link.rel == "derived_from"]
        assert str(published / "in" / "a.jp2") in inputs
        assert "https://host/b.jp2" in inputs
        assert item.get_self_href() == str(published / "products" / WEST / f"{item.id}.json")
        assert json.loads(Path(str(item.get_self_href())).read_bytes())["id"] == item.id


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"min_share": {"wine": 0.1}}, "unknown class 'wine'; expected one of building, "),
        ({"min_share": {"vineyard": 30}}, "share_vineyard of at least 30: expected a share"),
        ({"min_confidence": -1}, "confidence of at least -1"),
        ({"bbox": (2, 48, 1, 49)}, "from west to east"),
        ({"datetime": "yesterday"}, "datetime 'yesterday': expected a day"),
        ({"datetime": "2021-13"}, "datetime '2021-13': not a valid date"),
    ],
)
def test_a_question_that_cannot_be_is_refused(published: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(published / "national", **asked)


def test_a_place_without_a_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProductError, match=r"expected a national product with a catalog .*landcover publish"):
        search(tmp_path)
    (tmp_path / "items.parquet").write_bytes(b"no parquet")
    with pytest.raises(ProductError, match="cannot be read as stac-geoparquet"):
        search(tmp_path / "items.parquet")


def test_an_item_that_was_sealed_before_items_had_shares_gets_them(published: Path, tmp_path: Path) -> None:
    tile = sealed(published)[0]
    new = read_item(tile)
    old = json.loads(json.dumps(new))
    del old["collection"]
    for key in [k for k in old["properties"] if k.startswith("landcover:share_")]:
        del old["properties"][key]
    del old["properties"]["landcover:mapped"], old["properties"]["landcover:confidence"]
    path = tmp_path / tile.item_path.name
    path.write_text(json.dumps(old))
    before = SealedTile(tile.domain, tile.tile, tile.fingerprint, tile.files, tile.class_pixels, path)
    again = read_item(before)
    del new["properties"]["landcover:confidence"]
    assert again == new


@pytest.mark.parametrize("served", ["memory", "parquet"])
def test_the_items_behind_a_stac_api_are_found_by_pystac_client_and_open(
    published: Path, tmp_path: Path, served: str
) -> None:
    everything = search(published / "national")
    first = next(iter(everything))
    asked: list[tuple[dict[str, Any], pystac.ItemCollection]] = [
        ({"bbox": first.bbox}, search(published / "national", bbox=tuple(first.bbox or ()))),  # type: ignore[arg-type]
        ({"datetime": "2022"}, search(published / "national", datetime="2022")),
        ({"collections": [WEST]}, search(published / "national", domains=[WEST])),
        ({"ids": [first.id]}, pystac.ItemCollection([first])),
    ]
    if served == "memory":
        items, home = tmp_path / "items.json", None
        items.write_text(json.dumps(everything.to_dict()))
    else:
        items, home = published / "national" / "current" / "catalog" / "items.parquet", duckdb_home(tmp_path)
        vines = search(published / "national", min_share={"vineyard": 0.4})
        assert 0 < len(vines) < len(everything)
        at_least = {"op": ">=", "args": [{"property": "landcover:share_vineyard"}, 0.4]}
        asked.append(({"filter": at_least, "filter_lang": "cql2-json"}, vines))
        asked.append(({"filter": '"landcover:share_vineyard" >= 0.4', "filter_lang": "cql2-text"}, vines))
    with stac_api(items, home=home) as url:
        api = Client.open(url)
        api.add_conforms_to("FILTER")  # the server does not say so itself
        for arguments, expected in asked:
            answer = list(api.search(**arguments).items())
            assert {i.id for i in answer} == {i.id for i in expected}, arguments
            for item in answer:
                with rioxarray.open_rasterio(item.assets["landcover"].href) as opened:
                    assert opened.shape == (1, TILE, TILE)
