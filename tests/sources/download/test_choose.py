"""Editions are understood by their names, and those that belong together are chosen."""

import re

import pytest

from pipeline.errors import ConfigError, DownloadError
from pipeline.sources.download.choose import Content, choose
from pipeline.sources.download.editions import RemoteEdition, border_zones, is_used_product, parse_edition, parse_zone
from tests.support.geoplateforme import BORDERS, GRAPH, IRC, OTHERS, PRODUCTS, RVB, SURFACE, TERRAIN

ALL: tuple[Content, ...] = ("rvb", "irc", "elevation", "graph", "borders")
LIDAR = "LIDARHD_1-0_MNS-0M50_TIFF_LAMB93-IGN69_D034_{}-01-01"


def editions(*hidden: str, **more: str) -> list[RemoteEdition]:
    """Those of the test's service without some, with others by product."""
    names = [(p, n) for shelf in (PRODUCTS, OTHERS) for p, of in shelf.items() for n in of]
    found = [parse_edition(p, n) for p, n in [*names, *more.items()] if n not in hidden and "D030" not in n]
    assert None not in found
    return [edition for edition in found if edition]


def chosen(*hidden: str, year: int | None = None, contents: tuple[Content, ...] = ALL, **more: str) -> list[str]:
    choice = choose(editions(*hidden, **more), zone="D034", year=year, contents=contents)
    return [edition.name for edition in choice.editions]


def test_the_newest_version_of_the_newest_pair_is_chosen_with_what_is_near_to_it() -> None:
    assert chosen() == [RVB, IRC, GRAPH, SURFACE, TERRAIN, BORDERS]
    assert chosen(contents=("irc", "borders")) == [IRC, BORDERS]
    assert chosen(RVB, contents=("rvb",), year=2021) == [RVB.replace("_2-0_", "_1-0_")]


def test_a_vintage_can_be_named_and_elevation_follows_it() -> None:
    assert chosen(year=2018) == [
        "BDORTHO_1-0_RVB-0M20_JP2-E080_LAMB93_D034_2018-01-01",
        "BDORTHO_1-0_IRC-0M20_JP2-E080_LAMB93_D034_2018-01-01",
        "MNS-Correl_1-0__TIFF_LAMB93_D034_2018-01-01",
        TERRAIN,
        BORDERS,
    ]
    assert chosen(year=2012, contents=("elevation",))[1] == "RGEALTI_2-0_1M_ASC_LAMB93-IGN69_D034_2011-02-01"


def test_lidar_is_chosen_only_where_it_is_nearer_in_time() -> None:
    contents: tuple[Content, ...] = ("elevation",)
    assert chosen(contents=contents, year=2024, LIDARHD=LIDAR.format(2023))[0] == LIDAR.format(2023)
    assert chosen(contents=contents, year=2022, LIDARHD=LIDAR.format(2023))[0] == SURFACE


def test_a_vintage_without_a_pair_is_refused_with_the_list() -> None:
    with pytest.raises(DownloadError, match=re.escape("no RVB and IRC at 0.20 m of 2024; try --year 2021.")) as caught:
        chosen(year=2024)
    assert str(caught.value).count("\n  BDORTHO_") == 8
    assert chosen(year=2024, contents=("rvb",)) == ["BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D034_2024-01-01"]
    with pytest.raises(DownloadError, match=r"of one year. The service has for this département: none"):
        choose([], zone="D034", year=None, contents=ALL)


def test_what_is_missing_beside_the_imagery_is_a_note() -> None:
    pair = [e for e in editions() if e.name in (RVB, IRC)]
    notes = choose(pair, zone="D034", year=None, contents=ALL).notes
    assert [note.split(":")[0] for note in notes] == [
        "no mosaicking graph of 2021",
        "no surface model (MNS) for D034",
        "no terrain model (RGE ALTI or MNT) for D034",
        "no ADMIN EXPRESS as a GeoPackage",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "../BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D034_2021-01-01",
        "BDORTHO_2-0_RVB-0M20_JP2-E080/../x_D034_2021-01-01",
        "BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D034_2021-13-01",
        "BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D034_2021-01-01\n",
        "BDORTHO_2-0_" + "A" * 200 + "_D034_2021-01-01",
        "",
    ],
)
def test_names_of_another_form_are_no_editions(name: str) -> None:
    assert parse_edition("BDORTHO", name) is None


def test_departements_are_written_in_several_ways() -> None:
    assert [parse_zone(t) for t in ("34", "034", "D034", "d2a", "02B", "974", "1")] == [
        "D034", "D034", "D034", "D02A", "D02B", "D974", "D001"
    ]  # fmt: skip
    assert [parse_zone(t) for t in ("Hérault", "herault", "COTE D’OR", "Côte-d'Or", "reunion", "Corse du sud")] == [
        "D034", "D034", "D021", "D021", "D974", "D02A"
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="did you mean Finistère"):
        parse_zone("Finister")
    for wrong in ("0", "Occitanie", "345", "D034/..", "", "٣٤"):
        with pytest.raises(ConfigError, match="is not a département"):
            parse_zone(wrong)
    assert (border_zones("D034"), border_zones("D974")) == (("FXX", "FRA"), ("REU", "FRA"))


def test_products_that_are_not_used_are_not_asked() -> None:
    names = ["BDORTHO", "MNS-CORREL", "RGEALTI", "ADMIN-EXPRESS-COG", "LIDARHD-MNT", "BDTOPO", "LiDARHD-NUALID", "../x"]
    assert [name for name in names if is_used_product(name)] == names[:5]
