"""One table between FLAIR, CoSIA and FLAIR-HUB."""

from typing import get_args

from pipeline import legend
from pipeline.legend import Nomenclature, to_flair

COSIA = {
    "Bâtiment": 1,
    "Piscine": 4,
    "Surface eau": 6,
    "Neige": 7,
    "Feuillu": 9,
    "Vigne": 11,
    "Pelouse": 12,
    "Serre": 15,
}


def test_named_classes_keep_their_names() -> None:
    names = {"building": "Bâtiment", "swimming pool": "Piscine", "water": "Surface eau", "snow": "Neige"}
    names |= {"deciduous": "Feuillu", "vineyard": "Vigne", "herbaceous vegetation": "Pelouse", "greenhouse": "Serre"}
    values = {legend.BY_VALUE[v].name: number for number, v in to_flair("cosia").items()}
    assert {flair: values[flair] for flair in names} == {flair: COSIA[french] for flair, french in names.items()}
    hub = [legend.BY_VALUE[to_flair("flair-hub")[i]].name for i in range(19)]
    assert hub[:4] == ["building", "greenhouse", "swimming pool", "impervious surface"]
    assert hub[12:] == ["deciduous", "coniferous", "brushwood", "clear cut", "ligneous", "mixed", "other"]


def test_every_nomenclature_has_its_count_of_classes() -> None:
    assert {n: len(to_flair(n)) for n in get_args(Nomenclature)} == {
        "flair19": 19,
        "flair15": 15,
        "flair12": 12,
        "cosia": 15,
        "flair-hub": 19,
    }
    assert sorted(to_flair("cosia")) == list(range(1, 16))
    assert sorted(to_flair("flair-hub")) == list(range(19))


def test_fifteen_classes_are_those_of_cosia_and_twelve_lack_three() -> None:
    assert set(to_flair("cosia").values()) == set(to_flair("flair15").values())
    kept = set(to_flair("flair12").values())
    assert sorted(n for n, value in to_flair("cosia").items() if value not in kept) == [4, 7, 15]
