"""A COG is real, carries what a reader needs inside, and is there whole or not at all."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rio_cogeo.cogeo import cog_validate

from pipeline import legend
from pipeline.errors import ProductError, StorageError
from pipeline.fingerprint import file_sha256
from pipeline.grid import Window
from pipeline.products.tile.cog import FileFacts, cog_by_windows, open_cog, read_cog, write_cog
from tests.support.disk import files_of_at_most
from tests.support.paths import SHARED_DATA
from tests.support.products import LIVE, stack_of

CORNER = Affine(0.2, 0.0, 600_000.0, 0.0, -0.2, 6_890_000.0)


def facts_of(path: Path) -> FileFacts:
    return FileFacts(path, path.stat().st_size, file_sha256(path))


def write(path: Path, pixels: Any, layer: Any = "landcover", **changes: Any) -> FileFacts:
    geobox = GeoBox(np.shape(pixels)[-2:], CORNER, "EPSG:2154")
    given = {"geobox": geobox, "live": LIVE, "tags": {"licence": "etalab-2.0"}}
    return write_cog(path, pixels, layer=layer, **(given | changes))


@pytest.mark.parametrize(("index", "layer"), [(0, "landcover"), (1, "confidence")])
def test_a_layer_is_a_valid_cog_and_gives_back_its_pixels(tmp_path: Path, index: int, layer: str) -> None:
    pixels = stack_of(3, 1300)[index]
    facts = write(tmp_path / "a.tif", pixels, layer)
    valid, errors, warnings = cog_validate(facts.path, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(facts.path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), pixels)
        assert dataset.crs.to_epsg() == 2154
        assert dataset.transform == CORNER
        assert dataset.profile["compress"] == "zstd"
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.nodata == 0
        assert dataset.overviews(1) == [2, 4]
        assert dataset.tags()["licence"] == "etalab-2.0"
    assert facts == facts_of(facts.path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize(("index", "layer"), [(0, "landcover"), (1, "confidence")])
def test_a_cog_written_by_windows_has_the_bytes_of_one_written_whole(tmp_path: Path, index: int, layer: Any) -> None:
    pixels = stack_of(3, 1300)[index]
    tags = {"licence": "etalab-2.0", "CITATION": ""}
    whole = write(tmp_path / "whole.tif", pixels, layer, tags=tags)
    given = {"geobox": GeoBox(pixels.shape, CORNER, "EPSG:2154"), "live": LIVE, "tags": tags}
    with cog_by_windows(tmp_path / "parts.tif", layer=layer, **given) as draft:
        for window in reversed(list(Window(0, 0, *pixels.shape).split(300))):
            draft[window.slices] = pixels[window.slices]
    assert facts_of(tmp_path / "parts.tif").sha256 == whole.sha256
    with pytest.raises(ZeroDivisionError), cog_by_windows(tmp_path / "none.tif", layer=layer, **given) as draft:
        draft[0:300, 0:300] = pixels[:300, :300] // (1 // 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts.tif", "whole.tif"]


def test_palette_and_class_names_are_inside_the_file(tmp_path: Path) -> None:
    with rasterio.open(write(tmp_path / "a.tif", stack_of(0)[0]).path) as dataset:
        palette, names = dataset.colormap(1), dataset.tags(1)
    assert palette[0][3] == 0
    for value in LIVE:
        assert palette[value][:3] == legend.BY_VALUE[value].rgb
        assert names[f"class_{value}"] == legend.BY_VALUE[value].name
    assert "class_13" not in names


def test_overviews_are_modes_of_classes_and_averages_of_confidence_without_no_data(tmp_path: Path) -> None:
    # Quarters of one value each have no tie; the no data of a 2 × 2 block must not pull the average down.
    classes = np.kron(np.array([[3, 5], [7, 0]], np.uint8), np.ones((512, 512), np.uint8))
    classes[::2, ::2] = 9
    confidence = np.tile(np.array([[0, 90], [100, 110]], np.uint8), (512, 512))
    for layer, pixels in (("landcover", classes), ("confidence", confidence)):
        write(tmp_path / f"{layer}.tif", pixels, layer)
    with rasterio.open(tmp_path / "landcover.tif", overview_level=0) as dataset:
        expected = np.kron(np.array([[3, 5], [7, 9]], np.uint8), np.ones((256, 256), np.uint8))
        np.testing.assert_array_equal(dataset.read(1), expected)
    with rasterio.open(tmp_path / "confidence.tif", overview_level=0) as dataset:
        assert set(np.unique(dataset.read(1))) == {100}


def test_any_number_of_threads_gives_the_same_bytes(tmp_path: Path) -> None:
    pixels = stack_of(1, 1600)[1]
    facts = []
    for threads in (1, 2, 2):
        with rasterio.Env(GDAL_NUM_THREADS=threads):
            facts.append(write(tmp_path / "a.tif", pixels, "confidence"))
    assert len({f.sha256 for f in facts}) == 1


def test_a_real_class_map_comes_back_as_it_went_in(tmp_path: Path) -> None:
    real = SHARED_DATA / "flair_predictions" / "pred13_D012_2019_Z3_UU.tif"
    if not real.is_file():
        pytest.skip(f"no real class map at {real}")
    with rasterio.open(real) as dataset:
        pixels = dataset.read(1, window=((0, 2000), (0, 2000))) + 1
    with rasterio.open(write(tmp_path / "a.tif", pixels, live=tuple(range(1, 14))).path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), pixels)


@pytest.mark.parametrize("missing", [1, 300, 20_000])
def test_a_full_disk_is_an_error_and_leaves_the_former_file(tmp_path: Path, missing: int, capfd: Any) -> None:
    # GDAL itself reports nothing when only the last bytes do not fit.
    pixels = stack_of(2, 1024)[1]
    path = tmp_path / "a.tif"
    size = write(path, pixels, "confidence").size
    former = write(path, stack_of(3, 300)[1], "confidence")
    with (
        files_of_at_most(size - missing),
        pytest.raises(ProductError, match=r"a\.tif: .*(cannot be read back|cannot write)"),
    ):
        write(path, pixels, "confidence")
    assert facts_of(path) == former
    assert list(tmp_path.iterdir()) == [path]
    capfd.readouterr()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/a\.tif"):
        write(tmp_path / "file" / "a.tif", stack_of(0)[0])


def test_a_window_is_read_as_it_was_written(tmp_path: Path) -> None:
    pixels = stack_of(4, 1200)[0]
    path, window = write(tmp_path / "a.tif", pixels).path, Window(500, 700, 300, 450)
    np.testing.assert_array_equal(read_cog(path, window), pixels[500:800, 700:1150])
    np.testing.assert_array_equal(read_cog(path), pixels)
    with open_cog(path) as cog:
        strips = [cog.read(strip) for strip in Window(0, 0, 1200, 1200).strips(500)]
        assert cog.read(shape=(10, 12)).shape == (10, 12)
    assert [s.shape for s in strips] == [(500, 1200), (500, 1200), (200, 1200)]
    np.testing.assert_array_equal(np.concatenate(strips), pixels)


@pytest.mark.parametrize("damage", ["cut", "missing", "text"])
def test_an_unreadable_raster_is_named_with_its_cause(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.tif"
    if damage == "cut":
        size = write(path, stack_of(4, 1200)[1], "confidence").size
        os.truncate(path, size - 100_000)
    elif damage == "text":
        path.write_text("no raster")
    with pytest.raises(ProductError, match=r"a\.tif: cannot be read: .+; if a tile was sealed") as caught:
        read_cog(path, Window(0, 0, 1200, 1200))
    # It reaches the driver of a cluster as what it is.
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.int16), np.zeros((1, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_layer_is_refused(tmp_path: Path, pixels: Any) -> None:
    with pytest.raises(ProductError, match="expected uint8"):
        write(tmp_path / "a.tif", pixels)
    assert list(tmp_path.iterdir()) == []
