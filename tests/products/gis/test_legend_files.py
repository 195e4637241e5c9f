"""Legends for other programs: names in two languages and CoSIA's, either palette, as a style and as a table."""

import csv
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

COSIA = {1: "Bâtiment", 5: "Surface eau", 10: "Pelouse", 11: "Culture", 13: "Piscine", 18: "Serre"}
"""FLAIR value → CoSIA's name, of some classes."""


def written(path: Path, *options: str) -> dict[int, tuple[str, str]]:
    """FLAIR value → (name, colour) in a legend that the command writes."""
    result = CliRunner().invoke(app, ["legend", str(path), *options])
    assert result.exit_code == 0, result.output
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return {int(row["value"]): (row["name"], row["colour"]) for row in csv.DictReader(file)}
    root = ET.parse(path).getroot()  # noqa: S314  (our own file)
    return {int(e.attrib["value"]): (e.attrib["label"], e.attrib["color"]) for e in root.iter("paletteEntry")}


@pytest.mark.parametrize("name", ["legend.qml", "legend.csv"])
def test_names_and_colours_are_as_chosen(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert written(path)[6] == ("coniferous", "#194a26")
    assert written(path, "--lang", "fr")[6] == ("conifères", "#194a26")
    assert written(path, "--palette", "safe")[6] == ("coniferous", "#24492a")
    found = written(path, "--names", "cosia")
    assert {value: found[value][0] for value in COSIA} == COSIA
    assert found[15][0] == "clear cut", "CoSIA has no such class"
    assert written(path, "--names", "cosia", "--lang", "fr")[15][0] == "coupe"
    assert len(found) == 19


def test_a_table_has_the_numbers_of_other_nomenclatures(tmp_path: Path) -> None:
    written(tmp_path / "legend.csv", "--lang", "fr")
    with (tmp_path / "legend.csv").open(newline="", encoding="utf-8") as file:
        rows = {int(row["value"]): row for row in csv.DictReader(file)}
    # The order of IGN's list, from 1.
    names = (
        "Bâtiment,Zone perméable,Zone imperméable,Piscine,Sol nu,Surface eau,Neige,Conifère,Feuillu,Broussaille,Vigne,"
    )
    names += "Pelouse,Culture,Terre labourée,Serre"
    found = {int(row["cosia"]): row["cosia_name"] for row in rows.values() if row["cosia"]}
    assert found == dict(enumerate(names.split(","), start=1))
    assert [rows[value]["flair_hub"] for value in (1, 13, 19)] == ["0", "2", "18"]


def test_another_ending_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["legend", str(tmp_path / "legend.sld")])
    assert "give a name that ends in .qml or .csv" in str(result.exception)
    assert not list(tmp_path.iterdir())
