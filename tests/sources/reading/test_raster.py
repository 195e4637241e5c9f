"""A single raster is read like a mosaic; one that does not fit the recipe is refused when it is opened."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from pipeline.errors import SourceError
from pipeline.grid import Window
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.reading.raster import GeoSource, Raster
from tests.support.deliveries import write_raster

PIXELS = np.random.default_rng(0).integers(1, 255, (5, 60, 70), dtype=np.uint8)


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    pixels = PIXELS.copy()
    pixels[:, :10, :20] = 0
    pixels[2, 30, 30] = 0
    pixels[4, 31, 31] = 0
    return write_raster(tmp_path / "in.tif", pixels, 500_000, 6_500_000, nodata=0)


def test_a_raster_counts_from_its_corner_and_nodata_is_the_tag_in_any_band(raster: Path) -> None:
    source: GeoSource = pickle.loads(pickle.dumps(Raster.open(raster, bands=BANDS)))
    assert source.window == Window(0, 0, 60, 70)
    assert source.geobox == GeoBox((60, 70), Affine(0.2, 0.0, 500_000.0, 0.0, -0.2, 6_500_000.0), "EPSG:2154")
    read = source.read(Window(5, 10, 40, 30))
    expected = PIXELS[0, 5:45, 10:40].copy()
    expected[:5, :10] = 0
    np.testing.assert_array_equal(read.bands[0], expected)
    assert not read.valid[25, 20], "no blue"
    assert read.valid[26, 21], "a height alone decides nothing"
    assert read.valid.sum() == 40 * 30 - 5 * 10 - 1
    roomy = source.read(Window(5, 10, 40, 30), within=Window(3, 6, 50, 40))
    np.testing.assert_array_equal(roomy.bands, np.pad(read.bands, ((0, 0), (2, 8), (4, 6))))
    np.testing.assert_array_equal(roomy.valid, np.pad(read.valid, ((2, 8), (4, 6))))


@pytest.mark.parametrize(
    ("pixels", "how", "problem"),
    [
        (PIXELS[:3], {}, "has 3 bands; expected 5: red, green, blue, nir, elevation, in this order"),
        (PIXELS.astype(np.uint16), {}, "samples are uint16; expected uint8"),
        (PIXELS, {"crs": None}, "CRS is no CRS; expected EPSG:2154"),
    ],
)
def test_a_raster_that_does_not_fit_is_refused(
    tmp_path: Path, pixels: np.ndarray, how: dict[str, object], problem: str
) -> None:
    path = write_raster(tmp_path / "in.tif", pixels, 500_000, 6_500_000, **how)
    with pytest.raises(SourceError, match=f"{path}: {problem}"):
        Raster.open(path, bands=BANDS)


def test_a_file_that_is_not_a_raster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.tif").write_text("no raster")
    with pytest.raises(SourceError, match="cannot be read as a raster"):
        Raster.open(tmp_path / "in.tif", bands=BANDS)


def test_a_raster_that_is_damaged_later_is_named(raster: Path) -> None:
    source = Raster.open(raster, bands=BANDS)
    raster.write_bytes(raster.read_bytes()[:3000])
    with pytest.raises(SourceError, match=f"{raster}: cannot be read"):
        source.read(source.window)


def test_a_real_image_with_alpha_is_not_taken_for_five_bands(shared_data: Path) -> None:
    with pytest.raises(SourceError, match="its band 4 is declared as transparency, not nir; expected 5"):
        Raster.open(shared_data / "band_order" / "rgba_alpha_is_not_nir.tif", bands=BANDS)


def test_a_real_patch_opens_with_its_five_bands(shared_data: Path) -> None:
    source = Raster.open(shared_data / "flair_patches" / "IMG_000687.tif", bands=BANDS)
    assert source.window.shape == (512, 512)
    assert source.read(source.window).valid.all()


def test_a_replaced_raster_is_read_again_when_it_is_opened_again(raster: Path) -> None:
    Raster.open(raster, bands=BANDS).read(Window(0, 0, 60, 70))
    write_raster(raster, PIXELS[:, ::-1], 500_000, 6_500_000)
    again = Raster.open(raster, bands=BANDS)
    np.testing.assert_array_equal(again.read(again.window).bands, PIXELS[:, ::-1])
