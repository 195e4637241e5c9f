"""Producer, licence, citation and days follow from the delivery to the items and to the domain that is opened."""

import datetime as dt
import json
from pathlib import Path

import pytest

from pipeline.domain import Domain
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.delivery.attribution import Origin
from tests.support.dbase import write_table
from tests.support.deliveries import flat, make_delivery, noise, tile_at, write_pair, write_relief

SIZE = 250
DOMAIN = Domain("D034_2021")


def test_attribution_licence_and_days_reach_inputs_and_items(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0), (0, 1)])
    names = [f"./34-2021-{t.name}-LA93-0M20-E080.jp2" for t in delivery.tiles]
    rows = [(names[0], "2021-06-14", "2023-01-01"), (names[0], "2021-06-17", ""), (names[1], "2020-07-01", "")]
    write_table(delivery.folder / "dalles.dbf", {"NOM": 60, "DATE_VOL": 10, "DATE_MAJ": 10}, rows)
    index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=SIZE)
    inputs = read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE)
    assert (inputs.origin.attribution, inputs.origin.licence) == ("IGN, BD ORTHO 2021, LiDAR HD", "etalab-2.0")
    assert inputs.acquired == (dt.date(2020, 7, 1), dt.date(2021, 6, 17))
    item = json.loads((tmp_path / "cat" / DOMAIN / f"{DOMAIN}-{delivery.tiles[0].name}.json").read_text())
    assert item["properties"]["start_datetime"] == "2021-06-14T00:00:00Z"
    assert item["properties"]["end_datetime"] == "2021-06-17T23:59:59Z"
    assert item["properties"]["providers"] == [{"name": "IGN", "roles": ["producer", "licensor"]}]
    assert item["properties"]["license"] == "etalab-2.0"


def test_provider_licence_and_citation_of_an_external_catalog_are_kept(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=SIZE)
    path = next((tmp_path / "cat" / DOMAIN).glob(f"{DOMAIN}-*.json"))
    item = json.loads(path.read_text())
    del item["properties"]["landcover:attribution"]
    item["properties"] |= {
        "providers": [{"name": "A region", "roles": ["producer"]}, {"name": "A host", "roles": ["host"]}],
        "license": "cc-by-4.0",
        "sci:citation": "Somebody, 2021",
        "sci:doi": "10.1/x",
    }
    path.write_text(json.dumps(item))
    index([str(tmp_path / "cat" / "catalog.json")], domain=DOMAIN, catalog=tmp_path / "new", tile_size=SIZE)
    inputs = read_domain(tmp_path / "new", DOMAIN, tile_size=SIZE)
    assert inputs.origin == Origin("A region", "cc-by-4.0", "Somebody, 2021", "10.1/x")


def test_several_origins_are_joined_with_the_licence_other() -> None:
    one, other = Origin("IGN, BD ORTHO 2021", "etalab-2.0"), Origin("A region", "cc-by-4.0")
    assert Origin.joined([one, one, other]) == Origin("IGN, BD ORTHO 2021; A region", "other")


@pytest.mark.parametrize("where", ["name", "folder"])
def test_elevation_of_another_year_is_noted(tmp_path: Path, where: str) -> None:
    tile = tile_at(0, 0)
    write_pair(tmp_path, tile, noise(tile))
    write_relief(tmp_path / "RGEALTI_2-0_1M_D034_2019-03-12", "dtm", flat(100), corner=tile.name, side_m=50)
    path = write_relief(tmp_path, "dsm", flat(110), corner=tile.name, side_m=50)
    if where == "name":
        path.rename(path.with_name(f"34-2018-{tile.name}-LA93-0M50.tif"))
    report = index([tmp_path], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=SIZE)
    notes = [note for _, note in report.notes]
    assert any(n.startswith("dtm: of 2019, the imagery of 2021") for n in notes)
    assert any(n.startswith("dsm: of 2018, the imagery of 2021") for n in notes) == (where == "name")
