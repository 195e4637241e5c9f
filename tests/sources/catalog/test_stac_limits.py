"""The walk of a catalog ends at its limits, and the message names the limit."""

import json
from pathlib import Path

import pytest

from pipeline.errors import CatalogError, ConfigError
from pipeline.sources.catalog.external_stac import CatalogFiles, Query, add_catalog
from tests.support.file_server import serving

ITEM = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "geometry": None,
    "properties": {"datetime": "2021-01-01T00:00:00Z"},
    "links": [],
    "assets": {},
}


def catalog(folder: Path, items: int) -> Path:
    for number in range(items):
        (folder / f"{number}.json").write_text(json.dumps(ITEM | {"id": str(number)}))
    links = [{"rel": "item", "href": f"{number}.json"} for number in range(items)]
    path = folder / "catalog.json"
    path.write_text(json.dumps({"type": "Catalog", "id": "c", "links": links}))
    return path


@pytest.mark.parametrize(
    ("name", "most", "found"),
    [("ITEMS", 4, "5 items"), ("PAGES", 5, "6 documents"), ("BYTES", 500, r"\d+ bytes")],
)
@pytest.mark.parametrize("web", [False, True])
def test_a_catalog_beyond_a_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: int, found: str, web: bool
) -> None:
    path = catalog(tmp_path, 8)
    monkeypatch.setenv(f"LANDCOVER_MAX_STAC_{name}", str(most))
    problem = f"{found}, more than the limit stac_{name.lower()} = {most}; .*LANDCOVER_MAX_STAC_{name}"
    with serving(tmp_path) as url, pytest.raises(CatalogError, match=problem):
        add_catalog(CatalogFiles(), f"{url}/catalog.json" if web else str(path), Query())


def test_a_walk_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(0, 100_000, 1_000))
    monkeypatch.setattr("pipeline.untrusted.limits.monotonic", lambda: float(next(moments)))
    with pytest.raises(CatalogError, match="4,000 seconds of reading, more than the limit stac_seconds = 3,600"):
        add_catalog(CatalogFiles(), str(catalog(tmp_path, 8)), Query())


@pytest.mark.parametrize("text", ["many", "0", "-1", "1e9"])
def test_a_limit_that_is_no_number_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LANDCOVER_MAX_STAC_ITEMS", text)
    with pytest.raises(ConfigError, match=r"LANDCOVER_MAX_STAC_ITEMS: .* is not a number of items"):
        add_catalog(CatalogFiles(), str(catalog(tmp_path, 1)), Query())
