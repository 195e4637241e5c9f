"""Labelled patches are found in every layout and read unchanged, and bad ones are named."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DeliveryError, SourceError
from pipeline.sources.labels.patches import channel_statistics, find_patches, read_image, read_mask
from tests.support.flair_dataset import LOCAL, random_set, real_layout, write_pair

RGBIE = ("red", "green", "blue", "nir", "elevation")


def write_ones(folder: Path, number: int) -> None:
    write_pair(folder, number, pixels=np.ones((5, 32, 32), np.uint8), mask=np.ones((32, 32), np.uint8))


def test_the_real_layout_a_flat_folder_and_a_list_give_the_same_set(shared_data: Path, tmp_path: Path) -> None:
    folders = find_patches(real_layout(shared_data, tmp_path))
    flat = find_patches([shared_data / "flair_patches"], metadata=shared_data / "flair_patches" / "metadata.json")
    rows = [f"{p.image.relative_to(tmp_path)},{p.mask.relative_to(tmp_path)}" for p in folders]
    (tmp_path / "flair-1-paths-test.csv").write_text("\n".join(rows) + "\n")
    listed = find_patches([tmp_path / "flair-1-paths-test.csv"])
    assert folders == listed
    assert [(p.name, p.domain, p.zone) for p in folders] == [(p.name, p.domain, p.zone) for p in flat]
    assert [(p.domain, p.zone) for p in folders if p.name == "IMG_000687"] == [("D004_2021", "Z8_NF")]
    assert len({p.unit for p in folders}) == 5


def test_real_masks_with_a_local_crs_lie_on_their_images(shared_data: Path) -> None:
    patches = find_patches([shared_data / "flair_patches"])
    assert len(patches) == 5
    for patch in patches:
        mask = read_mask(patch)
        assert mask.shape == (512, 512)
        assert 1 <= mask.min() <= mask.max() <= 19
        whole = read_image(patch, bands=RGBIE)
        np.testing.assert_array_equal(read_image(patch, bands=("nir", "red")), whole[[3, 0]])


def test_folders_of_patches_may_be_links(tmp_path: Path) -> None:
    write_ones(tmp_path / "disk", 3)
    place = tmp_path / "set" / "D012_2019" / "Z3_UU"
    place.mkdir(parents=True)
    for folder in ("img", "msk"):
        (place / folder).symlink_to(tmp_path / "disk" / folder)
    (patch,) = find_patches([tmp_path / "set"])
    assert (patch.name, patch.domain, patch.zone) == ("IMG_000003", "D012_2019", "Z3_UU")


@pytest.mark.parametrize("domain", ["D004_2021", "D2A_2021", "D02B_2021", "D974_2022"])
def test_the_folder_of_every_departement_is_a_domain(tmp_path: Path, domain: str) -> None:
    write_ones(tmp_path / domain / "Z1_NN", 1)
    assert find_patches([tmp_path])[0].domain == domain


def test_a_mask_in_lambert_93_without_its_code_lies_on_its_image(tmp_path: Path) -> None:
    ones = np.ones((32, 32), np.uint8)
    write_pair(tmp_path, 1, pixels=np.ones((5, 32, 32), np.uint8), mask=ones, mask_crs="ESRI:102110")
    (patch,) = find_patches([tmp_path])
    assert read_mask(patch).all()


def test_metadata_gives_domain_and_zone_if_paths_do_not(tmp_path: Path) -> None:
    write_ones(tmp_path, 7)
    about = tmp_path / "about.json"
    about.write_text(json.dumps({"IMG_000007": {"domain": "D012_2019", "zone": "Z3_UU", "time": "10h14"}}))
    (patch,) = find_patches([tmp_path], metadata=about)
    assert (patch.domain, patch.zone, patch.unit) == ("D012_2019", "Z3_UU", "D012_2019 Z3_UU")
    assert find_patches([tmp_path])[0].unit == "IMG_000007"


def test_statistics_equal_those_of_all_pixels_together(tmp_path: Path) -> None:
    patches = find_patches([random_set(tmp_path)])
    found = channel_statistics(patches, bands=RGBIE)
    pixels = np.concatenate([read_image(p, bands=RGBIE).reshape(5, -1) for p in patches], axis=1).astype(np.float64)
    np.testing.assert_allclose(found.mean, pixels.mean(axis=1), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.std, pixels.std(axis=1), rtol=0, atol=1e-9)


def test_statistics_of_the_real_patches(shared_data: Path) -> None:
    patches = find_patches([shared_data / "flair_patches"])
    found = channel_statistics(patches, bands=("nir", "blue"))
    pixels = np.concatenate([read_image(p, bands=("nir", "blue")).reshape(2, -1) for p in patches], axis=1)
    np.testing.assert_allclose(found.mean, pixels.mean(axis=1, dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(found.std, pixels.std(axis=1, dtype=np.float64), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "msk" / "MSK_000001.tif").unlink(), "1 files have no mask with their domain, zone and number"),
        (lambda f: (f / "img" / "IMG_000001.tif").unlink(), "1 files have no image"),
        (
            lambda f: write_pair(f / "again", 1, pixels=np.ones((5, 8, 8), np.uint8), mask=np.ones((8, 8), np.uint8)),
            "same",
        ),
    ],
)
def test_an_incomplete_set_is_refused(tmp_path: Path, change: object, message: str) -> None:
    for number in (1, 2):
        write_ones(tmp_path, number)
    change(tmp_path)  # type: ignore[operator]
    with pytest.raises(DeliveryError, match=message):
        find_patches([tmp_path])


def test_bad_lists_folders_and_metadata_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("a.tif,b.tif\n")
    (tmp_path / "about.json").write_text("[1]")
    with pytest.raises(DeliveryError, match="no labelled patches"):
        find_patches([tmp_path / "empty"])
    with pytest.raises(DeliveryError, match="no such folder"):
        find_patches([tmp_path / "none"])
    with pytest.raises(DeliveryError, match="line 1: expected an existing image and an existing mask"):
        find_patches([tmp_path / "list.csv"])
    with pytest.raises(DeliveryError, match="cannot be read as JSON"):
        find_patches([tmp_path / "empty"], metadata=tmp_path / "none.json")
    with pytest.raises(DeliveryError, match="expected an object by image name"):
        find_patches([tmp_path / "empty"], metadata=tmp_path / "about.json")
    with pytest.raises(DeliveryError, match="no patches"):
        channel_statistics([], bands=RGBIE)


@pytest.mark.parametrize(
    ("pixels", "mask", "crs", "message"),
    [
        ((5, 32, 32), np.full((32, 32), 20, np.uint8), LOCAL, r"has values \[20\]; expected FLAIR values 1..19"),
        ((5, 32, 32), np.ones((16, 32), np.uint8), LOCAL, "is 1 × 16 × 32; expected 1 × 32 × 32"),
        ((5, 32, 32), np.ones((32, 32), np.uint8), "EPSG:2975", "they must agree"),
    ],
)
def test_a_bad_mask_is_refused(
    tmp_path: Path, pixels: tuple[int, ...], mask: np.ndarray, crs: str, message: str
) -> None:
    write_pair(tmp_path, 1, pixels=np.ones(pixels, np.uint8), mask=mask, mask_crs=crs)
    (patch,) = find_patches([tmp_path])
    with pytest.raises(SourceError, match=message):
        read_mask(patch)


def test_an_image_without_a_wanted_band_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, 1, pixels=np.ones((3, 32, 32), np.uint8), mask=np.ones((32, 32), np.uint8))
    (patch,) = find_patches([tmp_path])
    assert read_image(patch, bands=("blue", "red")).shape == (2, 32, 32)
    with pytest.raises(SourceError, match="has 3 bands, read as red, green, blue; expected red, nir among them"):
        read_image(patch, bands=("red", "nir"))
