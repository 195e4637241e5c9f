"""A single image is checked as a delivery is: place, resolution, depth, levels, order of bands, heights."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray

import pipeline
from pipeline.config import DEFAULT_RECIPE, load_recipe
from pipeline.config.recipe import Recipe
from pipeline.errors import CardLimitWarning, EngineError, SourceError
from pipeline.model import Model
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.inspection.band_order import better_order
from pipeline.sources.inspection.lowest_level import BandSums
from pipeline.sources.inspection.model_card_limits import radiometry
from pipeline.sources.inspection.single_image import check_raster, check_raster_pixels
from pipeline.sources.reading.raster import Raster
from tests.support.deliveries import write_raster
from tests.support.networks import Strided

RECIPE = load_recipe(DEFAULT_RECIPE)
RGB, RGBI = (load_recipe(f"flair-inc_{bands}_12cl_resnet34-unet") for bands in ("rgb", "rgbi"))


def real(shared_data: Path, name: str) -> NDArray[np.uint8]:
    with rasterio.open(shared_data / f"{name}.tif") as file:
        pixels: NDArray[np.uint8] = file.read()
    return pixels


def patches(shared_data: Path) -> list[NDArray[np.uint8]]:
    names = sorted(p.stem for p in (shared_data / "flair_patches").glob("IMG_*.tif"))
    return [real(shared_data, f"flair_patches/{name}") for name in names]


def montpellier(shared_data: Path) -> NDArray[np.uint8]:
    """Red, green, blue, near infrared of BD ORTHO."""
    files = [real(shared_data, f"bdortho_montpellier/{name}") for name in ("rvb", "irc")]
    return np.concatenate(files)[:4]


def order(pixels: NDArray[np.uint8], bands: tuple[str, ...]) -> tuple[str, ...]:
    return better_order(BandSums.of(pixels.reshape(len(pixels), -1)), bands)


def test_real_bands_in_their_own_order_are_never_taken_for_others(shared_data: Path) -> None:
    for count in (3, 4, 5):
        for pixels in patches(shared_data):
            assert order(pixels[:count], BANDS[:count]) == ()
    for count in (3, 4):
        assert order(montpellier(shared_data)[:count], BANDS[:count]) == ()
    for name in ("1354", "1674"):
        chip = real(shared_data, f"band_order/nir_g_b_r_{name}")
        assert order(chip[[3, 1, 2, 0]], BANDS[:4]) == (), "German orthophotos in the right order"


def test_infrared_or_height_at_a_wrong_place_is_found_with_its_place(shared_data: Path) -> None:
    for pixels in [*patches(shared_data), montpellier(shared_data)]:
        bands = BANDS[: len(pixels)]
        for wrong in permutations(range(len(pixels))):
            found = order(pixels[list(wrong)], bands)
            displaced = {bands[i] for i in (3, 4) if i < len(bands) and wrong[i] != i}
            if displaced:
                assert all(found.index(bands[i]) == wrong.index(i) for i in (3, 4) if i < len(bands)), wrong
    for name in ("1354", "1674"):
        assert order(real(shared_data, f"band_order/nir_g_b_r_{name}"), BANDS[:4])[0] == "nir"
    assert order(real(shared_data, "bdortho_montpellier/irc"), BANDS[:3])[0] == "nir"


def test_noise_and_a_single_level_have_no_order() -> None:
    rng = np.random.default_rng(0)
    assert order(rng.integers(0, 256, (5, 100, 100)), BANDS) == ()
    assert order(np.full((4, 100, 100), 90), BANDS[:4]) == ()


def opened(path: Path, pixels: NDArray[Any], recipe: Recipe, **how: Any) -> Raster:
    where = {"left": 700_000, "top": 6_600_000} | how
    return Raster.open(write_raster(path, pixels, where.pop("left"), where.pop("top"), **where), bands=recipe.bands)


@pytest.mark.parametrize(
    ("how", "limit", "sentence"),
    [
        ({"step": 0.193}, "resolution", "resolution is 0.193 × 0.193 m; expected 0.2 m"),
        ({"crs": "EPSG:28992", "left": 90_000, "top": 430_000}, "territory", "lies outside metropolitan France"),
        ({"left": 700_000, "top": 5_000_000}, "territory", "lies outside metropolitan France"),
        ({"crs": "EPSG:3857", "left": 260_000, "top": 6_250_000}, "resolution", "stretches lengths 1.52 times here"),
        ({"crs": "EPSG:2975", "left": 340_000, "top": 7_640_000}, "territory", "lies outside metropolitan France"),
    ],
    ids=["resolution", "the Netherlands", "Lambert-93 in Algeria", "Web Mercator", "Réunion"],
)
def test_place_and_resolution_are_limits_as_for_deliveries(
    tmp_path: Path, shared_data: Path, how: dict[str, Any], limit: str, sentence: str
) -> None:
    raster = opened(tmp_path / "in.tif", patches(shared_data)[1], RECIPE, **how)
    exceeded = next(e for e in check_raster(raster, RECIPE) if e.limit == limit)
    assert sentence in exceeded.sentence
    assert f"add --accept {limit})" in exceeded.single_refusal


@pytest.mark.parametrize("crs", ["EPSG:2154", "EPSG:5698", "EPSG:32631", "EPSG:3946"])
def test_other_projections_in_metres_of_france_are_no_limit(tmp_path: Path, shared_data: Path, crs: str) -> None:
    place = {"EPSG:32631": (450_000, 5_400_000), "EPSG:3946": (1_840_000, 5_170_000)}.get(crs, (700_000, 6_600_000))
    pixels = patches(shared_data)[1]
    raster = opened(tmp_path / "in.tif", pixels, RECIPE, crs=crs, left=place[0], top=place[1])
    assert check_raster(raster, RECIPE) == []


def test_sixteen_bits_are_a_limit_and_are_converted_as_in_deliveries(tmp_path: Path, shared_data: Path) -> None:
    pixels = patches(shared_data)[1][:4]
    raster = opened(tmp_path / "in.tif", pixels.astype(np.uint16) * 257, RGBI, photometric="minisblack")
    assert [e.limit for e in check_raster(raster, RGBI)] == ["bit_depth"]
    np.testing.assert_array_equal(raster.read(raster.window).bands, pixels)
    dark = opened(tmp_path / "dark.tif", pixels.astype(np.uint16) * 16, RGBI, photometric="minisblack")
    assert [e.limit for e in check_raster(dark, RGBI)] == ["bit_depth", "radiometry"]
    with pytest.raises(SourceError, match="samples are uint16; expected uint8"):
        opened(tmp_path / "five.tif", pixels[[0, 1, 2, 3, 3]].astype(np.uint16), RECIPE)


def test_permuted_bands_are_refused_with_the_command_that_reorders_them(tmp_path: Path, shared_data: Path) -> None:
    pixels = patches(shared_data)[2]
    raster = opened(tmp_path / "in.tif", pixels[[3, 0, 1, 2, 4]], RECIPE)
    (exceeded,) = check_raster(raster, RECIPE)
    assert "the bands look like nir, red, green, blue, elevation" in exceeded.sentence
    assert "`rio stack IN --bidx 2,3,4,1,5 -o OUT.tif`" in exceeded.sentence
    infrared = opened(tmp_path / "irc.tif", real(shared_data, "bdortho_montpellier/irc"), RGB)
    assert "the bands look like nir, red" in check_raster(infrared, RGB)[0].sentence
    colours = opened(tmp_path / "rvb.tif", real(shared_data, "bdortho_montpellier/rvb"), RGB)
    assert check_raster(colours, RGB) == []


@pytest.mark.parametrize(
    ("colours", "problem"),
    [
        (["blue", "green", "red", "undefined", "undefined"], "its band 1 is blue by its colour interpretation"),
        (["red", "green", "blue", "alpha", "undefined"], "its band 4 is declared as transparency, not nir"),
        (["nir", "red", "green", "blue", "undefined"], "its band 1 is nir by its colour interpretation"),
    ],
)
def test_declared_colours_decide_before_statistics(tmp_path: Path, colours: list[str], problem: str) -> None:
    path = write_raster(tmp_path / "in.tif", np.full((5, 40, 40), 100, np.uint8), 700_000, 6_600_000)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [rasterio.enums.ColorInterp[c] for c in colours]
    with pytest.raises(SourceError, match=problem):
        Raster.open(path, bands=BANDS)


def test_infrared_that_is_declared_as_transparency_is_refused(tmp_path: Path, shared_data: Path) -> None:
    path = write_raster(
        tmp_path / "in.tif", montpellier(shared_data), 700_000, 6_600_000, photometric="rgb", alpha="yes"
    )
    with pytest.raises(SourceError, match="of it are levels between; if it is infrared"):
        check_raster(Raster.open(path, bands=RGB.bands), RGB)


def test_heights_in_metres_are_refused_on_large_images_and_doubted_on_small(tmp_path: Path, shared_data: Path) -> None:
    pixels = patches(shared_data)[1]
    pixels[4] //= 5
    small = opened(tmp_path / "small.tif", pixels, RECIPE)
    exceeded, doubts = check_raster_pixels(small, RECIPE)
    assert exceeded == []
    assert "look like metres" in doubts[0]
    large = opened(tmp_path / "large.tif", np.tile(pixels, (1, 10, 10)), RECIPE, compress="zstd")
    assert [e.limit for e in check_raster(large, RECIPE)] == ["height_encoding"]


def test_small_images_may_lie_farther_from_the_training_levels_than_tiles() -> None:
    levels = np.random.default_rng(0).normal((105 + 1.4 * 52, 111, 102, 106), 30, (10_000, 4)).T
    assert radiometry(BandSums.of(levels), RGBI, area_km2=0.01) == []
    assert [e.limit for e in radiometry(BandSums.of(levels), RGBI)] == ["radiometry"]


def test_saturated_levels_that_are_the_nodata_value_raise_a_doubt(tmp_path: Path, shared_data: Path) -> None:
    pixels = patches(shared_data)[1]
    pixels[0, ::20, ::20] = 255
    _, doubts = check_raster_pixels(opened(tmp_path / "in.tif", pixels, RECIPE, nodata=255), RECIPE)
    assert "have the nodata value in some bands only" in doubts[0]
    assert "rio edit-info --unset-nodata" in doubts[0]
    with pytest.raises(SourceError, match="no pixel is valid"):
        check_raster(opened(tmp_path / "all.tif", pixels * 0 + 9, RECIPE, nodata=9), RECIPE)


def model(recipe: Recipe) -> Model:
    return Model.in_memory(Strided(len(recipe.bands), recipe.logits, 0), recipe)


def test_the_python_call_warns_or_raises(tmp_path: Path, shared_data: Path) -> None:
    pixels = patches(shared_data)[2][[3, 0, 1, 2, 4]]
    path = write_raster(tmp_path / "in.tif", pixels, 700_000, 6_600_000)
    lazy, network = pipeline.open_raster(path), model(RECIPE)
    for image in (lazy, lazy.compute()):
        with pytest.warns(CardLimitWarning, match="the bands look like nir"):
            pipeline.predict(image, network, engine="torch")
        with pytest.raises(SourceError, match="the bands look like nir"):
            pipeline.predict(image, network, engine="torch", checks="raise")
        pipeline.predict(image, network, engine="torch", accept=["radiometry"], checks="raise")
        pipeline.predict(image, network, engine="torch", checks="ignore")
    far = lazy.isel(x=slice(0, 100)).assign_coords(y=lazy.y + 2_000_000)
    with pytest.raises(SourceError, match="lies outside metropolitan France"):
        pipeline.predict(far, network, engine="torch", checks="raise")


def test_an_array_that_is_not_north_up_is_refused() -> None:
    x, y = 700_000 + 0.2 * np.arange(40), 6_600_000 + 0.2 * np.arange(40)
    array = xr.DataArray(np.zeros((5, 40, 40), np.uint8), dims=("band", "y", "x"), coords={"y": y, "x": x})
    with pytest.raises(EngineError, match="is rotated or not north-up"):
        pipeline.predict(array.rio.write_crs("EPSG:2154"), model(RECIPE), engine="torch")
    turned = rasterio.Affine(0.2, 0.05, 700_000, 0.05, -0.2, 6_600_000)
    rotated = array.drop_vars(["x", "y"]).rio.write_crs("EPSG:2154").rio.write_transform(turned)
    with pytest.raises(EngineError, match="is rotated or not north-up"):
        pipeline.predict(rotated, model(RECIPE), engine="torch")
