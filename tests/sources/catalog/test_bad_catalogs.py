"""Catalogs that loop, are not STAC, or name files that may not be opened are refused with the cause."""

import json
from typing import Any

import pytest

from pipeline.errors import CatalogError
from tests.support.damaged_delivery import DOMAIN, Case, Damage, DamagedDelivery, check_case, write


def looping(delivery: DamagedDelivery) -> list[str]:
    sources = delivery.item(lambda _: None)
    path = delivery.folder / "cat" / DOMAIN / "collection.json"
    content = json.loads(path.read_text())
    content["links"].append({"rel": "child", "href": "../catalog.json"})
    path.write_text(json.dumps(content))
    return [str(s) for s in sources]


def endless(delivery: DamagedDelivery) -> list[str]:
    """A chain of different catalog files, longer than any real one."""
    for depth in range(30):
        link = {"rel": "child", "href": f"{depth + 1}.json"}
        content = {"type": "Catalog", "id": "c", "stac_version": "1.1.0", "description": "c", "links": [link]}
        write(delivery.folder / f"{depth}.json", json.dumps(content).encode())
    return [str(delivery.folder / "0.json")]


def href(value: str) -> Damage:
    def change(item: dict[str, Any]) -> None:
        item["assets"]["rvb"]["href"] = value

    return lambda delivery: delivery.item(change)


def other_json(content: bytes) -> Damage:
    def damage(delivery: DamagedDelivery) -> list[str]:
        write(delivery.folder / "other.json", content)
        return [str(delivery.folder / "other.json")]

    return damage


TABLE = (
    Case(
        "an href out of its root",
        href("../../../../etc/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "leaves the catalog's root",
        CatalogError,
    ),
    Case(
        "an href of another scheme",
        href("ftp://host/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "has the scheme 'ftp'",
        CatalogError,
    ),
    Case(
        "an href into object storage",
        href("s3://bucket/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "has the scheme 's3'",
        CatalogError,
    ),
    Case(
        "an href from disk to the web",
        href("http://host/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "has the scheme 'http'",
        CatalogError,
    ),
    Case(
        "an href into GDAL's virtual files",
        href("/vsicurl/http://host/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "is one of GDAL's virtual files",
        CatalogError,
    ),
    Case(
        "an item without its file",
        href("../../in/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "cannot be read: No such file",
    ),
    Case("a catalog that loops", looping, "is reached again", CatalogError),
    Case("a catalog without end", endless, "nested over 16 deep", CatalogError),
    Case("a catalog that is not JSON", other_json(b"<html>"), "cannot be read as a STAC catalog", CatalogError),
    Case("a catalog that is not STAC", other_json(b'{"type": "Topology"}'), "is of type 'Topology'", CatalogError),
    Case(
        "an API that does not answer",
        lambda _: ["http://127.0.0.1:9/"],
        "cannot be read as a STAC catalog",
        CatalogError,
    ),
)


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_a_bad_catalog_is_refused_with_its_cause(damaged: DamagedDelivery, case: Case) -> None:
    check_case(damaged, case)
