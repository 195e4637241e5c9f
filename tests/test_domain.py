"""A domain's name is checked once; département, year and code follow from it."""

import json
import pickle

import pytest
from pydantic import BaseModel, ValidationError

from pipeline.domain import Domain
from pipeline.errors import ConfigError


class Section(BaseModel):
    name: Domain


@pytest.mark.parametrize(
    ("name", "departement", "year", "code"),
    [
        ("D064_2021", "64", 2021, 6421),
        ("D001_2000", "1", 2000, 100),
        ("D02A_2019", "2A", 2019, 20119),
        ("D2B_2019", "2B", 2019, 20219),
        ("D974_2099", "974", 2099, 30499),
    ],
)
def test_departement_year_and_code_follow_from_the_name(name: str, departement: str, year: int, code: int) -> None:
    domain = Domain(name)
    assert (domain.departement, domain.year, domain.code) == (departement, year, code)
    assert f"{domain}" == name == json.loads(json.dumps(domain))
    assert pickle.loads(pickle.dumps(domain)).code == code


def test_every_departement_and_year_has_a_code_of_its_own() -> None:
    departements = [f"{n:03d}" for n in range(1, 96)] + ["02A", "02B"] + [f"97{d}" for d in range(1, 7)]
    codes = {Domain(f"D{d}_{year}").code for d in departements for year in (2000, 2021, 2099)}
    assert len(codes) == 3 * len(departements)
    assert 0 < min(codes) <= max(codes) < 2**16


@pytest.mark.parametrize(
    "name", ["64-2021", "D064", "D064_1999", "lot_2021", "D000_2021", "D064_2021\n", "d064_2021", ""]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a domain: expected a département and a year"):
        Domain(name)


def test_a_campaign_section_reads_and_writes_it_as_a_string() -> None:
    section = Section.model_validate({"name": "D064_2021"})
    assert section.name.year == 2021
    assert section.model_dump(mode="json") == {"name": "D064_2021"}
    with pytest.raises(ValidationError, match="is not a domain"):
        Section.model_validate({"name": "D064"})
