"""The page on the product's format names all that a product has."""

import json
import re
from pathlib import Path

import pytest
import rasterio
import zarr

from pipeline.domain import Domain
from pipeline.products.national.edition_record import Edition, current_edition
from tests.support.paths import ROOT
from tests.support.products import product, publish, sealed_at, tile_at

PAGE = (ROOT / "docs" / "reference" / "product-format.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([^`]+)`", PAGE))
SHARE = "landcover:share_"


def test_every_field_of_ours_in_a_tiles_item_is_documented(tmp_path: Path) -> None:
    sealed_at(tmp_path, tile_at(0, 0))
    (item,) = tmp_path.glob("*.json")
    properties = json.loads(item.read_text())["properties"]
    ours = {name for name in properties if name.startswith("landcover:") and not name.startswith(SHARE)}
    assert len(ours) > 10
    assert ours - NAMED == set()
    assert any(name.startswith(SHARE) for name in NAMED)


def test_every_tag_of_a_cog_is_documented(tmp_path: Path) -> None:
    tile = sealed_at(tmp_path, tile_at(0, 0))
    with rasterio.open(tile.file("landcover").path) as cog:
        tags = set(cog.tags()) - {"AREA_OR_POINT", "TIFFTAG_COPYRIGHT"}
    assert tags
    assert tags - NAMED == set()


@pytest.fixture
def edition(tmp_path: Path) -> Edition:
    national = tmp_path / "national"
    publish(national, [product(tmp_path / "products", Domain("D064_2021"), {tile_at(0, 0): 1})])
    edition = current_edition(national)
    assert edition is not None
    return edition


def test_every_array_and_attribute_of_the_national_store_is_documented(edition: Edition) -> None:
    store = zarr.open_group(edition.store, mode="r")
    assert set(store.array_keys()) - NAMED == set()
    assert set(store.attrs) - NAMED == set()


def test_every_file_of_an_edition_is_documented(edition: Edition) -> None:
    files = {path.name for path in edition.path.iterdir()}
    assert files
    assert files - NAMED == set()
