"""Names of files are parsed, and the names that we make are parsed as what they were made for."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DeliveryError
from pipeline.sources.delivery import names as delivery
from pipeline.sources.delivery.names import find_files, parse_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("38-2024-0595-6890-LA93-0M20-E080.jp2", ("rvb", "38", 2024, "0595-6890")),
        ("38-2024-0595-6890-LA93-0M20-IRC-E080.jp2", ("irc", "38", 2024, "0595-6890")),
        ("74-2020-0915-6550-LA93-0M20-RVB-E100.tif", ("rvb", "74", 2020, "0915-6550")),
        ("2A-2022-1160-6150-LA93-0M20-E080.tif", ("rvb", "2A", 2022, "1160-6150")),
        ("974-2022-0310-7670-U40S-0M20-E080.jp2", ("rvb", "974", 2022, "0310-7670")),
        ("34-2021-077050-627760-LA93-0M20-IRC-E080.tif", ("irc", "34", 2021, "077050-627760")),
        ("93-2024-0652-6870-LA93-0M50.tif", ("dsm", "93", 2024, "0652-6870")),
        ("38-2024-0595-6890-LA93-0M20-HAUTEUR.tif", ("height", "38", 2024, "0595-6890")),
        ("LHD_FXX_0932_6453_MNS_0M50_LAMB93_IGN69.tif", ("dsm", None, None, "0932-6453")),
        ("LHD_FXX_0932_6453_MNT_0M50_LAMB93_IGN69.tif", ("dtm", None, None, "0932-6453")),
        ("RGEALTI_FXX_0845_6446_MNT_LAMB93_IGN69.asc", ("dtm", None, None, "0845-6446")),
    ],
)
def test_names_give_kind_departement_vintage_and_corner(name: str, expected: tuple[object, ...]) -> None:
    found = parse_name(Path("any", name))
    assert found is not None
    assert (found.kind, found.departement, found.year, found.corner) == expected


def test_a_raster_with_another_name_has_the_kind_of_its_folder(tmp_path: Path) -> None:
    names = {"DSM": "dsm", "mns": "dsm", "DTM": "dtm", "MNT": "dtm"}
    for folder, kind in names.items():
        found = parse_name(tmp_path / folder / "test_data_77055_627760.tif")
        assert found is not None
        assert (found.kind, found.corner) == (kind, None)
    assert parse_name(tmp_path / "DHM" / "test_data_77055_627760.tif") is None


def test_unknown_rasters_are_reported_and_other_files_are_skipped(tmp_path: Path) -> None:
    for name in ("a.md5", "dalles.shp", "a.xml", "photo.tif", "38-2024-0595-6890-LA93-0M20-E080.jp2"):
        (tmp_path / name).touch()
    found, unknown = find_files([tmp_path, tmp_path])
    assert [f.kind for f in found] == ["rvb"]
    assert unknown == [tmp_path / "photo.tif"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"missing: no such folder"):
        find_files([tmp_path / "missing"])


@given(
    departement=st.sampled_from(["01", "064", "2A", "02B", "974", "38"]),
    year=st.integers(2000, 2099),
    x=st.integers(0, 9999),
    y=st.integers(0, 9999),
    infrared=st.booleans(),
)
def test_names_that_we_make_are_read_back(departement: str, year: int, x: int, y: int, infrared: bool) -> None:
    corner = f"{x:04d}-{y:04d}"
    domain = {"departement": departement, "year": year}
    made = [
        ("irc" if infrared else "rvb", delivery.imagery_name(corner, infrared=infrared, **domain)),
        ("height", delivery.height_name(corner, **domain)),
        ("dsm", delivery.surface_name(corner, **domain)),
        ("dtm", delivery.lidar_name(corner, kind="dtm")),
        ("dtm", delivery.terrain_name(corner)),
    ]
    for kind, name in made:
        found = parse_name(Path(name))
        assert found is not None
        assert (found.kind, found.corner) == (kind, corner)
        assert found.departement in (None, departement.lstrip("0"))
        assert found.year in (None, year)


def test_folders_have_the_names_of_ign() -> None:
    assert delivery.imagery_folder(departement="38", year=2024) == Path(
        "BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D038_2024-01-01/ORTHOHR/1_DONNEES_LIVRAISON_2024-01-01",
        "OHR_RVB_0M20_JP2-E080_LAMB93_D38-2024",
    )
