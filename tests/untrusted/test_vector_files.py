"""A file of polygons is read as one of four formats, which name no other file; nothing in it sends a request."""

import json
import socket
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from pipeline.errors import LandcoverError
from pipeline.products.analysis.areas import read_zones
from pipeline.products.assessment.reference_sample import read_sample
from pipeline.products.national.ownership import read_boundary
from pipeline.sources.labels.reference import Reference

VRT = "<OGRVRTDataSource><OGRVRTLayer name='a'><SrcDataSource>/vsicurl/{url}/a.gpkg</SrcDataSource></OGRVRTLayer>"
ZONE = gpd.GeoDataFrame({"class": [1]}, geometry=[shapely.box(1.5, 43.5, 1.6, 43.6)], crs="EPSG:4326")


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A port of loopback that answers nothing."""
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    with socket.create_server(("127.0.0.1", 0)) as opened:
        opened.settimeout(0)
        yield opened


def requested(listener: socket.socket) -> bool:
    with suppress(BlockingIOError):
        listener.accept()[0].close()
        return True
    return False


READERS: list[Callable[[Path], object]] = [
    lambda path: read_zones(path, None, "EPSG:2154"),
    read_boundary,
    read_sample,
    lambda path: Reference.open(path, field="class"),
]


def geojson(path: Path, where: str, kind: str, url: str) -> Path:
    """GeoJSON with a CRS that is a link, in one of its objects."""
    content = json.loads(ZONE.to_json(drop_id=True))
    content.pop("crs", None)
    place = {"collection": content, "geometry": content["features"][0]["geometry"]}[where]
    place["crs"] = {"type": kind, "properties": {"href": f"{url}/crs", "url": f"{url}/crs"}}
    path.write_text(json.dumps(content))
    return path


def written(folder: Path, kind: str, url: str) -> Path:
    """A file that makes GDAL send a request, or would in another version."""
    path = folder / f"zones.{kind.rpartition(' ')[2]}"
    if kind.startswith("link in "):
        return geojson(path.with_suffix(".geojson"), kind.split()[2], kind.split()[3], url)
    text = VRT.format(url=url)
    if kind == "archive of a vrt":
        with zipfile.ZipFile(folder / "zones.zip", "w") as archive:
            archive.writestr("a.vrt", text)
        return folder / "zones.zip!a.vrt"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.vrt", text)
        return path
    if kind == "table of an sqlite":
        with sqlite3.connect(path) as base:
            base.execute("PRAGMA writable_schema = 1")
            table = f"CREATE VIRTUAL TABLE v USING VirtualOGR('/vsicurl/{url}/a.gpkg')"
            base.execute("CREATE TABLE a (x)")
            base.execute("INSERT INTO sqlite_master VALUES ('table', 'v', 'v', 0, ?)", (table,))
        base.close()
        return path
    more = {
        "vrt after a comment.gpkg": f"<!--{'x' * 2000}-->{text}",
        "gml": f"<a xmlns:s='http://www.w3.org/2001/XMLSchema-instance' s:schemaLocation='http://a {url}/s.xsd'/>",
        "gpkg": text,
        "wfs": f"<?xml version='1.0'?>\n<OGRWFSDataSource><URL>{url}</URL></OGRWFSDataSource>",
    }
    path.write_text(more[kind])
    return path


KINDS = (
    *("link in collection link", "link in collection URL", "link in geometry link"),
    *("archive of a vrt", "zip", "table of an sqlite", "vrt after a comment.gpkg", "gml", "gpkg", "wfs"),
)


@pytest.mark.filterwarnings("ignore:More than one layer")
@pytest.mark.parametrize("kind", KINDS)
def test_no_file_of_polygons_sends_a_request(tmp_path: Path, listener: socket.socket, kind: str) -> None:
    path = written(tmp_path, kind, f"http://127.0.0.1:{listener.getsockname()[1]}")
    for read in READERS:
        # The reader of boundaries knows GeoJSON only, and no CRS by a link.
        with suppress(LandcoverError) if read is read_boundary else pytest.raises(LandcoverError):
            read(path)
        assert not requested(listener)


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp", "fgb"])
def test_the_four_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"zones.{suffix}"
    ZONE.to_file(path)
    assert read_zones(path, "class", "EPSG:2154").area.item() == pytest.approx(8.98e7, rel=0.01)
    assert Reference.open(path, field="class").field == "class"


@pytest.mark.parametrize("name", ["/vsicurl/http://127.0.0.1:1/a.gpkg", "/vsizip/a.zip/a.gpkg", "a.gpkg"])
def test_a_file_that_is_none_is_named(name: str) -> None:
    with pytest.raises(LandcoverError, match=f"{name}: .*ogr2ogr makes a GeoPackage of others"):
        read_zones(name, None, "EPSG:2154")
