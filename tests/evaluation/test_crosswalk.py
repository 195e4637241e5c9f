"""One table between FLAIR, CoSIA and FLAIR-HUB."""

from itertools import product

import pytest

from pipeline import legend
from pipeline.legend import NOMENCLATURES, Crosswalk, to_flair

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
    assert {n: len(to_flair(n)) for n in NOMENCLATURES} == {
        "flair19": 19,
        "flair15": 15,
        "flair12": 12,
        "cosia": 15,
        "flair-hub": 19,
    }
    assert sorted(to_flair("cosia")) == list(range(1, 16))
    assert sorted(to_flair("flair-hub")) == list(range(19))


@pytest.mark.parametrize(("source", "target"), list(product(NOMENCLATURES, NOMENCLATURES)))
def test_there_and_back_is_the_same_and_what_is_lost_is_said(
    source: legend.Nomenclature, target: legend.Nomenclature
) -> None:
    there, back = Crosswalk(source, target), Crosswalk(target, source)
    assert {back.table[there.table[n]] for n in there.table} == set(there.table)
    assert set(there.lost) | set(there.table) == set(to_flair(source))
    assert there.lossy == (len(to_flair(source)) > len(there.table))


def test_fifteen_classes_are_those_of_cosia_and_twelve_lose_three() -> None:
    assert not Crosswalk("flair15", "cosia").lossy
    assert not Crosswalk("cosia", "flair15").lossy
    assert Crosswalk("cosia", "flair12").lost == (4, 7, 15)
    assert Crosswalk("flair19", "cosia").lost == (15, 16, 17, 19)
    assert not Crosswalk("flair19", "flair-hub").lossy
