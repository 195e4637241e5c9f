"""Virtual rasters are XML of our own, whatever the input catalog says."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import CatalogError
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.reading import vrt

DSM = Asset(
    kind="dsm",
    path=Path("/data/heights.tif"),
    signature="0" * 32,
    size=1,
    mtime_ns=0,
    transform=(1.0, 0.0, 700_000.0, 0.0, -1.0, 6_600_000.0),
    shape=(100, 100),
    dtype="float32",
    block=(100, 100),
    nodata="-99999.0",
)
REQUEST = "0</NODATA></ComplexSource><SimpleSource><SourceFilename>/vsicurl/http://127.0.0.1/x</SourceFilename>"


def inner(text: str) -> ET.Element:
    """The mosaic at the files' own resolution, inside the resampled one."""
    name = ET.fromstring(text).findtext(".//SourceFilename")  # noqa: S314  (our own)
    assert name is not None
    return ET.fromstring(name)  # noqa: S314


@pytest.mark.parametrize(
    "changes",
    [
        {"nodata": REQUEST},
        {"nodata": "1 2"},
        {"nodata": ""},
        {"dtype": "float32\"/><SourceFilename>x</SourceFilename><a b='"},
        {"dtype": "complex64"},
        {"block": ("1\"/><SourceFilename>x</SourceFilename><a b='", 1)},
        {"block": (1, 2, 3)},
        {"block": (None, None)},
    ],
)
def test_a_field_of_another_type_is_a_catalog_error(changes: dict[str, Any]) -> None:
    (field,) = changes
    with pytest.raises(CatalogError, match=rf"^/data/heights\.tif: its {field} in the catalog is .*index it again$"):
        vrt.elevation([replace(DSM, **changes)])


@pytest.mark.parametrize(("text", "number"), [("-99999.0", -99_999), ("-9999", -9_999), ("1e3", 1_000)])
def test_nodata_is_written_as_a_number(text: str, number: float) -> None:
    found = inner(vrt.elevation([replace(DSM, nodata=text)])).findtext(".//NODATA")
    assert found is not None
    assert float(found) == number


def test_nan_is_a_nodata_value_and_none_is_no_element() -> None:
    assert inner(vrt.elevation([replace(DSM, nodata="nan")])).findtext(".//NODATA") == "nan"
    assert inner(vrt.elevation([replace(DSM, nodata=None)])).findtext(".//NODATA") is None


@pytest.mark.parametrize("name", ["a & <b>.tif", "</SourceFilename><x/>.tif", "]]>.tif", 'a"b.jp2'])
def test_names_and_signatures_stay_texts(name: str) -> None:
    asset = replace(DSM, path=Path("/data") / name, signature=name)
    root = inner(vrt.elevation([asset]))
    assert [e.text for e in root.iter("SourceFilename")] == [f"/data/{name}"]
    assert name in [e.text for e in root.iter("OOI")]
