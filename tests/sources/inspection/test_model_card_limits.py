"""A delivery that exceeds a limit of the model card is refused with the reason, or mapped if the limit is accepted."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.config import DEFAULT_RECIPE, LimitName, load_recipe
from pipeline.domain import Domain
from pipeline.errors import DeliveryError
from pipeline.grid import Tile, Window
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.delivery.names import imagery_folder, imagery_name
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.inspection.band_pairing import CORRELATION
from pipeline.sources.inspection.lowest_level import BandSums, read_lowest_level
from pipeline.sources.inspection.model_card_limits import REASONS, height_differences, radiometry, ready_heights
from pipeline.sources.reading.mosaic import Mosaic
from tests.support.deliveries import MONTPELLIER, make_delivery, noise, tile_at, write_pair, write_raster

SIZE = 500
IMAGERY = ("red", "green", "blue", "nir")
RECIPE = load_recipe(DEFAULT_RECIPE)


def refusal(folder: Path, domain: Domain = Domain("D034_2021"), **options: object) -> str:
    with pytest.raises(DeliveryError) as caught:
        index([folder], domain=domain, catalog=folder / "cat", tile_size=SIZE, **options)  # type: ignore[arg-type]
    return str(caught.value)


def smooth(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Six components of a smooth surface at metres from a tile's corner: (6, y, x), levels 60..190."""
    waves = [np.sin(x[None, :] / 17 + k) * np.cos(y[:, None] / 23 + k / 2) for k in range(4)]
    return 125 + 60 * np.stack([waves[0], waves[1], waves[2], waves[3], waves[0], waves[1]])


def write_at(folder: Path, tile: Tile, step: float) -> None:
    """Writes a tile's pair at another resolution, with the values of `smooth` at pixel centres."""
    left, _, _, top = tile.window.bounds
    centres = (np.arange(round(SIZE * 0.2 / step)) + 0.5) * step  # of 0.15 m, 667 px: 5 cm more than the tile
    west, north, _, _ = (b - a for a, b in zip(ORIGIN, (left, top, 0.0, 0.0), strict=True))
    pixels = np.rint(smooth(centres + west, centres - north)).astype(np.uint8)
    for infrared in (False, True):
        name = imagery_name(tile.name, departement="34", year=2021, infrared=infrared, suffix="tif")
        name = name.replace("0M20", f"0M{round(step * 100):02d}")
        place = folder / imagery_folder(departement="34", year=2021, infrared=infrared) / name
        write_raster(place, pixels[3:] if infrared else pixels[:3], left, top, step=step)


ORIGIN = (tile_at(0, 0, SIZE).window.bounds[0], tile_at(0, 0, SIZE).window.bounds[3], 0.0, 0.0)


@pytest.mark.parametrize("step", [0.5, 0.25, 0.15, 0.1])
def test_an_accepted_resolution_is_resampled_to_the_lattice(tmp_path: Path, step: float) -> None:
    tiles = [tile_at(0, 0, SIZE), tile_at(0, 1, SIZE)]
    for tile in tiles:
        write_at(tmp_path, tile, step)
    message = refusal(tmp_path, bands=IMAGERY)
    assert f"resolution is {step:g} × {step:g} m; expected 0.2 m" in message
    assert REASONS["resolution"] in message
    assert "--accept resolution" in message
    options = {"domain": Domain("D034_2021"), "catalog": tmp_path / "cat", "tile_size": SIZE, "bands": IMAGERY}
    report = index([tmp_path], accept=("resolution",), **options)  # type: ignore[arg-type]
    assert report.limits == ("resolution",)
    inputs = read_domain(tmp_path / "cat", Domain("D034_2021"), tile_size=SIZE)
    assert inputs.limits == ("resolution",)
    mosaic = Mosaic.of(inputs, bands=IMAGERY)
    whole = mosaic.read(mosaic.window)
    assert whole.valid.all()
    centres_x = (np.arange(2 * SIZE) + 0.5) * 0.2
    centres_y = (np.arange(SIZE) + 0.5) * 0.2
    expected = smooth(centres_x, centres_y)[:4]
    assert np.abs(whole.bands - expected)[:, 5:-5, 5:-5].max() < 2.5, "also across the edge between the tiles"
    part = Window(mosaic.window.row + 33, mosaic.window.col + 470, 111, 77)
    np.testing.assert_array_equal(
        mosaic.read(part).bands, whole.bands[:, *part.slices_in(mosaic.window)], "windows are crops"
    )


def deepened(folder: Path, tile: Tile, *, seed: int = 0) -> NDArray[np.uint16]:
    """Writes a tile's pair in 16 bits; returns (6, y, x)."""
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 65536, (6, *tile.window.shape), dtype=np.uint16)
    samples[:, :2, :128] = np.arange(256, dtype=np.uint16).reshape(2, 128) * 257 + 128
    samples[4:] = samples[:2]
    left, _, _, top = tile.window.bounds
    for infrared in (False, True):
        name = imagery_name(tile.name, departement="34", year=2021, infrared=infrared, suffix="tif")
        place = folder / imagery_folder(departement="34", year=2021, infrared=infrared) / name
        write_raster(place, samples[3:] if infrared else samples[:3], left, top)
    return samples


def test_accepted_sixteen_bits_are_read_over_their_whole_range(tmp_path: Path) -> None:
    tiles = [tile_at(0, 0, SIZE), tile_at(0, 1, SIZE)]
    samples = np.concatenate([deepened(tmp_path, tile, seed=i) for i, tile in enumerate(tiles)], axis=2)
    message = refusal(tmp_path, bands=IMAGERY)
    assert "samples are uint16; expected uint8; accepted samples v are read as v · 255 / 65535, rounded" in message
    assert REASONS["bit_depth"] in message
    options = {"domain": Domain("D034_2021"), "catalog": tmp_path / "cat", "tile_size": SIZE, "bands": IMAGERY}
    report = index([tmp_path], accept=("bit_depth",), **options)  # type: ignore[arg-type]
    assert report.limits == ("bit_depth",)
    assert any("limit bit_depth accepted" in note for _, note in report.notes)
    mosaic = Mosaic.of(read_domain(tmp_path / "cat", Domain("D034_2021"), tile_size=SIZE), bands=IMAGERY)
    # In integers: v · 255 / 65535 is v / 257, and 257 is odd, so no value lies exactly between two levels.
    expected = (samples[:4].astype(np.int64) + 128) // 257
    np.testing.assert_array_equal(mosaic.read(mosaic.window).bands, expected)
    part = Window(mosaic.window.row + 33, mosaic.window.col + 470, 111, 77)
    np.testing.assert_array_equal(mosaic.read(part).bands, expected[:, *part.slices_in(mosaic.window)])
    before = mosaic.inputs.inputs_digest(part)
    deepened(tmp_path, tiles[0], seed=7)
    index([tmp_path], accept=("bit_depth",), **options)  # type: ignore[arg-type]
    assert read_domain(tmp_path / "cat", Domain("D034_2021"), tile_size=SIZE).inputs_digest(part) != before


def test_twelve_bits_in_sixteen_become_dark_and_are_refused_as_radiometry(tmp_path: Path) -> None:
    tile = tile_at(0, 0, SIZE)
    left, _, _, top = tile.window.bounds
    for infrared in (False, True):
        part = noise(tile)[3:] if infrared else noise(tile)[:3]
        name = imagery_name(tile.name, departement="34", year=2021, infrared=infrared, suffix="tif")
        write_raster(tmp_path / name, part.astype(np.uint16) * 16, left, top)
    recipe = load_recipe("flair-inc_rgbi_12cl_resnet34-unet")
    assert "red mean 8" in refusal(tmp_path, recipe=recipe, accept=("bit_depth",))


def test_black_in_sixteen_bits_is_not_taken_for_an_unreadable_file(tmp_path: Path) -> None:
    tile = tile_at(0, 0, SIZE)
    left, _, _, top = tile.window.bounds
    samples = noise(tile).astype(np.uint16) * 257
    samples[:, :100, :100] = 128
    for infrared in (False, True):
        name = imagery_name(tile.name, departement="34", year=2021, infrared=infrared, suffix="tif")
        write_raster(tmp_path / name, samples[3:] if infrared else samples[:3], left, top)
    options = {"domain": Domain("D034_2021"), "catalog": tmp_path / "cat", "tile_size": SIZE, "bands": IMAGERY}
    index([tmp_path], accept=("bit_depth",), **options)  # type: ignore[arg-type]
    mosaic = Mosaic.of(read_domain(tmp_path / "cat", Domain("D034_2021"), tile_size=SIZE), bands=IMAGERY)
    corner = Window(tile.window.row, tile.window.col, 100, 100)
    assert not mosaic.read(corner).bands.any()
    assert not mosaic.read(corner).valid.any(), "black that touches the delivery's edge"


def test_overseas_imagery_is_refused_or_read_on_its_own_lattice(tmp_path: Path) -> None:
    tile = Tile.named("03100-76700", SIZE)
    for infrared in (False, True):
        name = imagery_name(tile.name, departement="974", year=2022, infrared=infrared, suffix="tif")
        part = noise(tile)[3:] if infrared else noise(tile)[:3]
        left, _, _, top = tile.window.bounds
        write_raster(tmp_path / name.replace("LA93", "U40S"), part, left, top, crs="EPSG:2975")
    message = refusal(tmp_path, Domain("D974_2022"), bands=IMAGERY)
    assert "département 974 is outside metropolitan France" in message
    assert REASONS["territory"] in message
    options = {"domain": Domain("D974_2022"), "catalog": tmp_path / "cat", "tile_size": SIZE, "bands": IMAGERY}
    index([tmp_path], accept=("territory",), **options)  # type: ignore[arg-type]
    inputs = read_domain(tmp_path / "cat", Domain("D974_2022"), tile_size=SIZE)
    mosaic = Mosaic.of(inputs, bands=IMAGERY)
    assert (str(mosaic.geobox.crs), inputs.limits) == ("EPSG:2975", ("territory",)), "a lattice of its own"
    np.testing.assert_array_equal(mosaic.read(mosaic.window).bands, noise(tile)[:4])
    left, bottom, _, _ = (b for b in tile.window.bounds)
    assert (left, bottom) == (310_000.0, 7_669_900.0)


def test_lambert_93_far_from_france_is_refused(tmp_path: Path) -> None:
    tile = Tile.named("00300-64000", SIZE)
    write_pair(tmp_path, tile, noise(tile))
    assert "lies outside metropolitan France" in refusal(tmp_path, bands=IMAGERY)


@pytest.mark.parametrize(("gain", "offset", "far"), [(1, 0, False), (0.2, 0, True), (0.15, 90, True), (0.5, 150, True)])
def test_levels_far_from_the_training_images_are_refused(
    tmp_path: Path, gain: float, offset: float, *, far: bool
) -> None:
    tile = tile_at(0, 0, SIZE)
    write_pair(tmp_path, tile, np.rint(noise(tile) * gain + offset).astype(np.uint8))
    options = {"domain": Domain("D034_2021"), "catalog": tmp_path / "cat", "tile_size": SIZE}
    recipe = load_recipe("flair-inc_rgbi_12cl_resnet34-unet")
    if not far:
        assert index([tmp_path], recipe=recipe, **options).limits == ()  # type: ignore[arg-type]
        return
    message = refusal(tmp_path, recipe=recipe)
    assert "red mean" in message
    assert REASONS["radiometry"] in message
    report = index([tmp_path], recipe=recipe, accept=("radiometry",), **options)  # type: ignore[arg-type]
    assert any("limit radiometry accepted" in note for _, note in report.notes)


def test_real_patches_are_within_the_limits_of_radiometry(shared_data: Path) -> None:
    import rasterio

    total = None
    for path in sorted((shared_data / "flair_patches").glob("IMG_*.tif")):
        with rasterio.open(path) as file:
            levels = file.read([1, 2, 3, 4]).reshape(4, -1).astype(float)
        sums = BandSums(levels.shape[1], levels.sum(axis=1), levels @ levels.T)
        total = sums if total is None else total + sums
    assert total is not None
    assert radiometry(total, RECIPE) == []


def test_fill_does_not_count_in_the_mean_levels(tmp_path: Path) -> None:
    tile = tile_at(0, 0, SIZE)
    pixels = noise(tile)
    pixels[:, :, 200:] = 255
    write_pair(tmp_path, tile, pixels)
    rvb, irc = (next(p for p in tmp_path.rglob("*.tif") if ("-IRC-" in p.name) == i) for i in (False, True))
    sums = read_lowest_level(rvb, irc).sums
    assert sums.count == 500 * 200
    np.testing.assert_allclose(sums.mean, pixels[:, :, :200].mean(axis=(1, 2)))
    np.testing.assert_allclose(sums.std, pixels[:, :, :200].std(axis=(1, 2)))


def test_the_real_pair_of_montpellier_correlates_and_its_infrared_does_not() -> None:
    if not MONTPELLIER.is_dir():
        pytest.skip("no real data")
    sums = read_lowest_level(MONTPELLIER / "rvb.tif", MONTPELLIER / "irc.tif").sums
    correlation = sums.covariance / np.outer(sums.std, sums.std)
    assert correlation[4, 0] == pytest.approx(0.998, abs=0.001)
    assert correlation[5, 1] == pytest.approx(0.997, abs=0.001)
    assert min(correlation[4, 0], correlation[5, 1]) > CORRELATION > correlation[3, 0]


@given(st.integers(51, 255), st.integers(1, 100))
def test_heights_in_units_are_never_taken_for_metres(tall: int, share: int) -> None:
    counts = np.zeros(256, np.int64)
    counts[0], counts[tall] = 10_000 - share * 50, share * 50
    assert ready_heights(counts) == [] or tall == 255


def test_implausible_height_differences_are_found() -> None:
    assert [e.limit for e in height_differences(np.zeros(100, np.float32))] == ["height_encoding"]
    assert "below the terrain" in height_differences(np.full(100, -20, np.float32))[0].sentence
    assert "is the terrain missing" in height_differences(np.full(100, 300, np.float32))[0].sentence
    assert height_differences(np.zeros(0, np.float32)) == []
    mixed = np.concatenate([np.zeros(900), np.full(100, 12.0)]).astype(np.float32)
    assert height_differences(mixed) == []


def test_several_limits_are_noted_in_items_and_collection(tmp_path: Path) -> None:
    delivery = make_delivery(
        tmp_path / "in", at=[(0, 0)], size=SIZE, surface=lambda x, y: np.full((len(y), x.size), 400.0)
    )
    accept: tuple[LimitName, ...] = ("height_encoding", "radiometry")
    options = {"domain": delivery.domain, "catalog": tmp_path / "cat", "tile_size": SIZE}
    report = index([delivery.folder], accept=accept, **options)  # type: ignore[arg-type]
    assert report.limits == ("height_encoding",), "only the limit that is exceeded"
    inputs = read_domain(tmp_path / "cat", delivery.domain, tile_size=SIZE)
    assert inputs.limits == inputs.around(delivery.window).limits == ("height_encoding",)
    assert (Mosaic.of(inputs, bands=BANDS).read(inputs.window).bands[4] == 255).all()
