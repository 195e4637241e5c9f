"""Days of acquisition are read from attribute tables, also from odd ones, and notes explain missing days."""

import datetime as dt
import re
from pathlib import Path

import pytest

from pipeline.domain import Domain
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.delivery.acquisition_dates import read_acquisition_dates, season_notes
from tests.support.dbase import write_table
from tests.support.deliveries import make_delivery

SIZE = 250
DOMAIN = Domain("D034_2021")
DAY = dt.date(2021, 8, 1)


def test_a_mosaicking_graph_gives_the_days_of_the_domain(tmp_path: Path) -> None:
    rows = [("20210801",), ("20210703",), ("19000101",), ("",), ("unknown",)]
    write_table(tmp_path / "in" / "GRAPHE.DBF", {"DATE": 10}, rows)
    write_table(tmp_path / "in" / "other.dbf", {"COLOUR": 10}, [("red",)])
    (tmp_path / "in" / "broken.dbf").write_bytes(b"\3\1")
    days = read_acquisition_dates([tmp_path / "in"], year=2021)
    assert days.of("0595-6890") == (dt.date(2021, 7, 3), dt.date(2021, 8, 1))


def test_without_tables_no_days_are_known(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "bare", at=[(0, 0)])
    index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=SIZE)
    assert read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE).acquired is None


@pytest.mark.parametrize(
    ("fields", "row", "note"),
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
def test_the_notes_list_what_tables_without_days_have_instead(
    tmp_path: Path, fields: dict[str, int], row: tuple[str, ...], note: str
) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0), (0, 1)])
    write_table(delivery.folder / "GRAPHE.dbf", fields, [row])
    report = index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=SIZE)
    notes = [text for _, text in report.notes if text.startswith("GRAPHE.dbf: ")]
    assert len(notes) == 2, "one for each tile; the command prints it once"
    assert re.search(note, notes[0])


def test_a_file_that_is_not_a_table_is_noted_unless_another_one_has_days(tmp_path: Path) -> None:
    (tmp_path / "a.dbf").write_bytes(b"\3\1")
    assert read_acquisition_dates([tmp_path], year=2021).notes == (
        "a.dbf: not a dBASE table, so no days of acquisition are known from it",
    )
    write_table(tmp_path / "b.dbf", {"DATE": 10}, [("20210801",)])
    assert read_acquisition_dates([tmp_path], year=2021).notes == ()


def test_tables_behind_links_to_folders_are_read(tmp_path: Path) -> None:
    write_table(tmp_path / "disk" / "graph.dbf", {"DATE": 10}, [("20210801",)])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "disk")
    assert read_acquisition_dates([tmp_path / "in"], year=2021).domain == (dt.date(2021, 8, 1), dt.date(2021, 8, 1))


@pytest.mark.parametrize(
    ("kind", "text"), [("C", "01/08/2021"), ("C", "2021-08-01"), ("D", "20210801"), ("N", "20210801")]
)
def test_days_are_read_from_text_dates_and_numbers(tmp_path: Path, kind: str, text: str) -> None:
    impossible = [("99999999",), ("",)]
    write_table(tmp_path / "a.dbf", {"DATE_VOL": len(text)}, [*impossible, (text,)], kind=kind)
    assert read_acquisition_dates([tmp_path], year=2021).domain == (DAY, DAY)


def test_the_rows_before_a_truncation_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.dbf"
    write_table(path, {"DATE": 10}, [("20210801",), ("20210901",)])
    path.write_bytes(path.read_bytes()[:-5])
    assert read_acquisition_dates([tmp_path], year=2021).domain == (DAY, DAY)


def test_a_table_is_read_without_the_files_beside_it(tmp_path: Path) -> None:
    write_table(tmp_path / "a.dbf", {"DATE": 10, "LIEU": 9}, [("20210801", "Orléans")])
    (tmp_path / "a.shp").write_bytes(b"not a shapefile")
    (tmp_path / "a.cpg").write_text("no encoding")
    assert read_acquisition_dates([tmp_path], year=2021).domain == (DAY, DAY)
    assert {p.name for p in tmp_path.iterdir()} == {"a.dbf", "a.shp", "a.cpg"}


def test_a_virtual_table_named_as_a_table_is_not_followed(tmp_path: Path) -> None:
    write_table(tmp_path / "other" / "a.dbf", {"DATE": 10}, [("20210801",)])
    (tmp_path / "in").mkdir()
    layer = f"<OGRVRTLayer name='a'><SrcDataSource>{tmp_path}/other/a.dbf</SrcDataSource></OGRVRTLayer>"
    (tmp_path / "in" / "a.dbf").write_text(f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>")
    assert read_acquisition_dates([tmp_path / "in"], year=2021).domain is None


@pytest.mark.parametrize(
    ("first", "last", "noted"),
    [
        ("2021-04-01", "2021-11-30", ""),
        ("2021-03-31", "2021-06-02", "flown 2021-03-31 to 2021-06-02:"),
        ("2021-11-02", "2021-12-01", "flown 2021-11-02 to 2021-12-01:"),
        ("2022-01-15", "2022-01-15", "flown 2022-01-15:"),
        ("2021-06-02", "2022-06-02", ""),  # of two summers
    ],
)
def test_imagery_of_a_season_without_training_is_noted(first: str, last: str, noted: str) -> None:
    notes = season_notes((dt.date.fromisoformat(first), dt.date.fromisoformat(last)))
    assert len(notes) == bool(noted)
    assert all(note.startswith(noted) and "April to November" in note for note in notes)
    assert season_notes(None) == []
