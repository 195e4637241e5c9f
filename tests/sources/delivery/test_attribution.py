"""Whose data it is, under which licence and of which days follows from delivery to item to whoever maps it."""

import datetime as dt
import json
import re
import struct
from pathlib import Path

import pytest

from pipeline.domain import Domain
from pipeline.sources import index, open_domain
from pipeline.sources.delivery.acquisition_dates import read_acquisition_dates
from pipeline.sources.delivery.attribution import Origin
from tests.support.deliveries import flat, make_delivery, noise, tile_at, write_pair, write_relief

SIZE = 250
DOMAIN = Domain("D034_2021")


def write_table(path: Path, fields: dict[str, int], rows: list[tuple[str, ...]]) -> None:
    """A dBASE III table as it stands beside a shapefile."""
    length = 1 + sum(fields.values())
    head = struct.pack("<BBBBIHH20x", 3, 121, 6, 1, len(rows), 33 + 32 * len(fields), length)
    described = b"".join(n.encode().ljust(11, b"\0") + struct.pack("<c4xB15x", b"C", w) for n, w in fields.items())
    records = b"".join(
        b" " + b"".join(v.encode("latin-1").ljust(w) for v, w in zip(row, fields.values(), strict=True)) for row in rows
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + described + b"\r" + records + b"\x1a")


def test_attribution_licence_and_days_reach_the_inputs_and_their_items(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0), (0, 1)])
    names = [f"./34-2021-{t.name}-LA93-0M20-E080.jp2" for t in delivery.tiles]
    rows = [(names[0], "2021-06-14", "2023-01-01"), (names[0], "2021-06-17", ""), (names[1], "2020-07-01", "")]
    write_table(delivery.folder / "dalles.dbf", {"NOM": 60, "DATE_VOL": 10, "DATE_MAJ": 10}, rows)
    index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=SIZE)
    inputs = open_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE)
    assert (inputs.attribution, inputs.licence) == ("IGN, BD ORTHO 2021, LiDAR HD", "etalab-2.0")
    assert inputs.acquired == (dt.date(2020, 7, 1), dt.date(2021, 6, 17))
    item = json.loads((tmp_path / "cat" / DOMAIN / f"{DOMAIN}-{delivery.tiles[0].name}.json").read_text())
    assert item["properties"]["start_datetime"] == "2021-06-14T00:00:00Z"
    assert item["properties"]["end_datetime"] == "2021-06-17T23:59:59Z"
    assert item["properties"]["providers"] == [{"name": "IGN", "roles": ["producer", "licensor"]}]
    assert item["properties"]["license"] == "etalab-2.0"


def test_a_mosaicking_graph_dates_the_domain_and_the_vintage_does_where_nothing_else(tmp_path: Path) -> None:
    rows = [("20210801",), ("20210703",), ("19000101",), ("",), ("unknown",)]
    write_table(tmp_path / "in" / "GRAPHE.DBF", {"DATE": 10}, rows)
    write_table(tmp_path / "in" / "other.dbf", {"COLOUR": 10}, [("red",)])
    (tmp_path / "in" / "broken.dbf").write_bytes(b"\3\1")
    days = read_acquisition_dates([tmp_path / "in"], year=2021)
    assert days.of("0595-6890") == (dt.date(2021, 7, 3), dt.date(2021, 8, 1))
    delivery = make_delivery(tmp_path / "bare", at=[(0, 0)])
    index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=SIZE)
    assert open_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE).acquired is None


def test_a_ready_catalogues_provider_licence_and_citation_are_kept(tmp_path: Path) -> None:
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
    inputs = open_domain(tmp_path / "new", DOMAIN, tile_size=SIZE)
    assert inputs.origin == Origin("A region", "cc-by-4.0", "Somebody, 2021", "10.1/x")


def test_several_origins_are_named_together_under_no_single_licence() -> None:
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
    said = [sentence for _, sentence in report.notes]
    assert any(s.startswith("dtm: of 2019, the imagery of 2021") for s in said)
    assert any(s.startswith("dsm: of 2018, the imagery of 2021") for s in said) == (where == "name")


@pytest.mark.parametrize(
    ("fields", "row", "said"),
    [
        (
            {"NOM": 60, "COULEUR": 9},
            ("a", "rvb"),
            r"no field DATE… that could hold days .* \(its fields: NOM, COULEUR\)",
        ),
        ({"DATE_MAJ": 10}, ("2021-05-05",), r"no field DATE… .* \(its fields: DATE_MAJ\)"),
        ({"DATE_VOL": 10}, ("1999-05-05",), "no day within 2 years of 2021 in DATE_VOL"),
        ({"DATE_VOL": 10}, ("été",), "no day within 2 years of 2021 in DATE_VOL"),
    ],
)
def test_tables_without_days_say_what_they_have_instead(
    tmp_path: Path, fields: dict[str, int], row: tuple[str, ...], said: str
) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0), (0, 1)])
    write_table(delivery.folder / "GRAPHE.dbf", fields, [row])
    report = index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=SIZE)
    notes = [sentence for _, sentence in report.notes if sentence.startswith("GRAPHE.dbf: ")]
    assert len(notes) == 2, "of each tile: the command shows it once"
    assert re.search(said, notes[0])


def test_a_table_that_is_none_is_said_and_one_with_days_silences_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.dbf").write_bytes(b"\3\1")
    assert read_acquisition_dates([tmp_path], year=2021).notes == (
        "a.dbf: not a dBASE table, so no days of acquisition are known from it",
    )
    write_table(tmp_path / "b.dbf", {"DATE": 10}, [("20210801",)])
    assert read_acquisition_dates([tmp_path], year=2021).notes == ()


def test_tables_behind_links_to_folders_count(tmp_path: Path) -> None:
    write_table(tmp_path / "disk" / "graph.dbf", {"DATE": 10}, [("20210801",)])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "disk")
    assert read_acquisition_dates([tmp_path / "in"], year=2021).domain == (dt.date(2021, 8, 1), dt.date(2021, 8, 1))
