"""Editions on a web server and in a bucket: the same pixels as on the disk, and no lost file is no data."""

import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import geopandas as gpd
import numpy as np
import pytest
import shapely
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import MachineError, ProductError
from pipeline.grid import Window
from pipeline.products.analysis.open_product import open_product
from pipeline.products.national.edition_record import edition_of
from pipeline.products.national.grid import NationalGrid
from tests.support.file_server import serving
from tests.support.nations import write_nation
from tests.support.products import NORTH, WEST

REGISTRY = import_module("fsspec.registry")
TILE = 2_500
GRID = NationalGrid(Window(NORTH, WEST, TILE, 2 * TILE), tile=TILE, shard=TILE, chunk=250)


@pytest.fixture(scope="module")
def national(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two editions."""
    national = tmp_path_factory.mktemp("remote") / "national"
    for number in (1, 2):
        patches = np.random.default_rng(number).integers(0, 13, (TILE // 50, 2 * TILE // 50), np.uint8)
        write_nation(national, GRID, patches.repeat(50, 0).repeat(50, 1), number=number)
    return national


@pytest.fixture(scope="module")
def server(national: Path) -> Iterator[str]:
    with serving(national.parent) as url:
        yield url


@pytest.fixture
def bucket(national: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    """A bucket in memory with the second edition: like S3, without folders and links."""

    class Bucket(MemoryFileSystem):  # type: ignore[misc]
        protocol = ("s3",)
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(MemoryFileSystem._strip_protocol(path.removeprefix("s3://")))

    monkeypatch.setitem(REGISTRY._registry, "s3", Bucket)
    bucket, edition = Bucket(), edition_of(national, 2).path
    for path in (p for p in edition.rglob("*") if p.is_file()):
        if "pyramid.zarr/0" not in str(path):
            bucket.pipe_file(f"/france/{path.relative_to(edition)}", path.read_bytes())
    yield bucket
    Bucket.clear_instance_cache()


@pytest.mark.parametrize("level", [None, 1, 4, 5, "shares"])
def test_a_web_server_gives_the_pixels_of_the_disk(national: Path, server: str, level: Any) -> None:
    there, here = open_product(f"{server}/national", level=level), open_product(national, level=level)
    for name in here.data_vars:
        np.testing.assert_array_equal(there[name].values, here[name].values)
    assert there.rio.crs.to_epsg() == 2154
    assert there.attrs["opened"] == here.attrs["opened"]


def test_editions_are_chosen_by_number_and_by_address(national: Path, server: str) -> None:
    for number, address in ((1, f"{server}/national"), (None, f"{server}/national/editions/000001/")):
        there = open_product(address, edition=number)
        np.testing.assert_array_equal(there.landcover.values, open_product(national, 1).landcover.values)
    with pytest.raises(ProductError, match=r"edition\.json: not found; name an edition's folder"):
        open_product(f"{server}/national", edition=3)


def test_an_answer_in_hectares_is_that_of_the_disk(national: Path, server: str) -> None:
    zone = gpd.GeoDataFrame(geometry=[shapely.box(*GRID.extent.bounds).buffer(-20)], crs=GRID.crs)
    there, here = (open_product(place).cover.area_by_class(zone) for place in (f"{server}/national", national))
    assert there.drop(columns="geometry").equals(here.drop(columns="geometry"))


@pytest.mark.usefixtures("bucket")
def test_a_bucket_without_links_is_read(national: Path) -> None:
    there = open_product("s3://france")
    np.testing.assert_array_equal(there.landcover.values, open_product(national).landcover.values)
    with pytest.raises(ProductError, match="has no level 6; expected None"):
        open_product("s3://france", level=6)


@pytest.mark.parametrize(
    ("file", "level"),
    [
        ("product.zarr/confidence/c/0/1", None),
        ("pyramid.zarr/2/landcover/c/0/0", 2),
        ("pyramid.zarr/5/confidence/c/0/0", 5),
        ("pyramid.zarr/shares/count/c/0/0/1", "shares"),
        ("product.zarr/x/c/0", None),
    ],
)
def test_a_lost_file_is_an_error_when_it_is_read(bucket: MemoryFileSystem, file: str, level: Any) -> None:
    bucket.rm(f"/france/{file}")
    with pytest.raises(ProductError, match=f"s3://france/{file}: shard is lost"):
        open_product("s3://france", level=level).load()


def test_what_no_tile_has_is_no_data_also_there(tmp_path: Path, national: Path) -> None:
    shutil.copytree(national, tmp_path / "national", symlinks=True)
    edition = edition_of(tmp_path / "national", 2).path
    record = edition / "edition.json"
    record.write_text(record.read_text().replace(', "0/1": "x"', ""))
    for path in edition.glob("product.zarr/*/c/0/1"):
        path.unlink()
    with serving(tmp_path) as server:
        opened = open_product(f"{server}/national").landcover
        assert not opened[:, TILE:].values.any()
        assert opened[:, :TILE].values.any()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY.known_implementations, "s3", {"class": "absent.S3", "err": "Install s3fs"})
    with pytest.raises(MachineError, match=r"Install s3fs; .* `pip install s3fs` for a bucket"):
        open_product("s3://france")


def test_an_address_without_an_edition_says_where_it_looked(server: str) -> None:
    with pytest.raises(ProductError, match=r"/nothing/edition\.json or .*/nothing/current/edition\.json: not found"):
        open_product(f"{server}/nothing")
