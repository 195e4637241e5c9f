"""A mosaic reads any window like a crop of the whole, from any thread, and names unreadable files."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.env import get_gdal_config, set_gdal_config

from pipeline.errors import CatalogError, SourceError
from pipeline.grid import Window
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.lazy_image import to_xarray
from pipeline.sources.reading.dataset_cache import _OPEN, DATASETS_PER_THREAD
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.reading.raster import Pixels, Source
from tests.support.deliveries import (
    Delivery,
    flat,
    hills,
    make_delivery,
    noise,
    roofs,
    tile_at,
    write_pair,
    write_raster,
    write_relief,
)

SIZE = 250
PLACES = [(0, 0), (0, 1), (1, 0)]
"""Three of four positions, so that a corner of the bounding window lies in no tile."""


def mosaic_of(delivery: Delivery, catalog: Path, *, bands: tuple[str, ...] = BANDS) -> Mosaic:
    index([delivery.folder], domain=delivery.domain, catalog=catalog, tile_size=delivery.tile_size)
    return Mosaic.of(read_domain(catalog, delivery.domain, tile_size=delivery.tile_size), bands=bands)


@pytest.fixture(scope="module")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Delivery:
    return make_delivery(tmp_path_factory.mktemp("delivery") / "<D034> & co", at=PLACES, suffix="jp2")


@pytest.fixture(scope="module")
def mosaic(delivery: Delivery) -> Mosaic:
    return mosaic_of(delivery, delivery.folder / "cat")


@pytest.fixture(scope="module")
def whole(mosaic: Mosaic) -> Pixels:
    return mosaic.read(mosaic.window)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Windows of the mosaic's 500 × 500 px, as offsets."""
    top, left = draw(st.integers(0, 499)), draw(st.integers(0, 499))
    return Window(top, left, draw(st.integers(1, 500 - top)), draw(st.integers(1, 500 - left)))


def placed(window: Window, extent: Window) -> Window:
    return Window(extent.row + window.row, extent.col + window.col, window.height, window.width)


def test_the_bands_are_rvb_and_the_first_component_of_irc(delivery: Delivery, whole: Pixels) -> None:
    np.testing.assert_array_equal(whole.bands[:4], delivery.imagery[:4])
    assert not np.array_equal(whole.bands[3], delivery.imagery[4])


@given(windows(), st.tuples(*(st.integers(0, 40) for _ in range(4))))
def test_the_margin_around_a_window_is_empty_and_changes_no_pixel(
    mosaic: Mosaic, whole: Pixels, window: Window, room: tuple[int, int, int, int]
) -> None:
    place = placed(window, mosaic.window)
    above, left, below, right = room
    within = Window.from_edges(place.row - above, place.col - left, place.bottom + below, place.right + right)
    read = mosaic.read(place, within=within)
    expected = whole.part(place, of=mosaic.window)
    pads = ((above, below), (left, right))
    np.testing.assert_array_equal(read.bands[:4], np.pad(expected.bands[:4], ((0, 0), *pads)))
    np.testing.assert_array_equal(read.valid, np.pad(expected.valid, pads))


def test_outside_all_tiles_pixels_are_0_and_not_valid(delivery: Delivery, whole: Pixels) -> None:
    np.testing.assert_array_equal(whole.valid, delivery.covered)
    assert not whole.bands[:, ~delivery.covered].any()
    assert whole.bands[4][delivery.covered].any()


@given(window=windows())
def test_a_window_equals_a_crop_of_the_whole(mosaic: Mosaic, whole: Pixels, window: Window) -> None:
    read = mosaic.read(placed(window, mosaic.window))
    part = placed(window, mosaic.window).slices_in(mosaic.window)
    np.testing.assert_array_equal(read.bands, whole.bands[:, *part])
    np.testing.assert_array_equal(read.valid, whole.valid[part])


@given(window=windows())
def test_a_mosaic_around_a_window_reads_the_same_pixels_there(mosaic: Mosaic, whole: Pixels, window: Window) -> None:
    place = placed(window, mosaic.window)
    near = mosaic.around(place)
    assert near.window == mosaic.window
    np.testing.assert_array_equal(near.read(place).bands, whole.bands[:, *place.slices_in(mosaic.window)])


def test_a_mosaic_around_a_window_pickles_smaller_and_reads_no_further(mosaic: Mosaic) -> None:
    near = mosaic.around(Window(mosaic.window.row, mosaic.window.col, 10, 10))
    assert len(pickle.dumps(near)) < 0.6 * len(pickle.dumps(mosaic))
    with pytest.raises(SourceError, match="exceeds the readable"):
        near.read(mosaic.window)


@pytest.mark.parametrize("bands", [("nir", "blue", "red"), ("elevation", "green"), ("green", "nir", "blue", "red")])
def test_bands_are_read_in_the_requested_order(mosaic: Mosaic, whole: Pixels, bands: tuple[str, ...]) -> None:
    some = Mosaic.of(mosaic.inputs, bands=bands).read(mosaic.window)
    np.testing.assert_array_equal(some.bands, whole.bands[[BANDS.index(b) for b in bands]])


def test_unknown_bands_and_bands_without_imagery_are_refused(mosaic: Mosaic) -> None:
    with pytest.raises(CatalogError, match=r"unknown bands \['swir'\]"):
        Mosaic.of(mosaic.inputs, bands=("red", "swir"))
    with pytest.raises(CatalogError, match="contain no imagery"):
        Mosaic.of(mosaic.inputs, bands=("elevation",))


def test_a_window_that_leaves_the_domain_is_refused(mosaic: Mosaic) -> None:
    with pytest.raises(SourceError, match="domain D034_2021: Window"):
        mosaic.read(mosaic.window.grow(1))


def test_a_pickled_mosaic_reads_the_same_pixels_from_several_threads(mosaic: Mosaic, whole: Pixels) -> None:
    source: Source = pickle.loads(pickle.dumps(mosaic))
    assert source == mosaic
    parts = list(mosaic.window.split(90)) * 2
    with ThreadPoolExecutor(6) as pool:
        for part, pixels in zip(parts, pool.map(source.read, parts), strict=True):
            np.testing.assert_array_equal(pixels.bands, whole.bands[:, *part.slices_in(mosaic.window)])


def test_a_thread_keeps_a_limited_number_of_datasets_open(mosaic: Mosaic) -> None:
    for part in mosaic.window.split(100):
        mosaic.around(part).read(part)
    assert 0 < len(_OPEN.by_name) <= DATASETS_PER_THREAD


def test_the_xarray_is_lazy_and_has_coordinates_and_crs(mosaic: Mosaic, whole: Pixels) -> None:
    array = to_xarray(mosaic, name="D064_2021", block=200)
    assert (array.dims, array.dtype, array.shape) == (("band", "y", "x"), np.uint8, (5, 500, 500))
    assert array.data.chunks == ((5,), (200, 200, 100), (200, 200, 100))
    assert len(dict(array.data.__dask_graph__())) == 2 * 9, "a read, and its bands beside which pixels are valid"
    assert list(array.band.values) == list(BANDS)
    assert array.rio.crs.to_epsg() == 2154
    assert array.odc.geobox == mosaic.geobox
    assert array.rio.transform() == mosaic.geobox.transform
    left, _, _, top = mosaic.window.bounds
    assert (float(array.x[0]), float(array.y[0])) == pytest.approx((left + 0.1, top - 0.1), abs=1e-6)
    with dask.config.set(scheduler="threads", num_workers=2):
        np.testing.assert_array_equal(array.compute().values, whole.bands)


def test_the_xarray_reads_files_only_when_it_is_computed(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    mosaic = mosaic_of(delivery, tmp_path / "cat")
    for path in delivery.folder.rglob("*.tif"):
        path.unlink()
    array = to_xarray(mosaic, name="D064_2021")
    with pytest.raises(SourceError, match="it is missing"):
        array.compute()


@pytest.mark.parametrize("kind", ["rvb", "irc", "dsm"])
def test_an_unreadable_file_is_an_error_with_domain_and_tile_not_zeros(tmp_path: Path, kind: str) -> None:
    delivery = make_delivery(tmp_path / "in", suffix="jp2")
    mosaic = mosaic_of(delivery, tmp_path / "cat")
    name = delivery.tiles[1].name
    victim = next(
        a.path
        for a in mosaic.inputs.tile(name).assets
        if a.kind == kind and name.replace("-", "_") in a.path.name.replace("-", "_")
    )
    victim.write_bytes(victim.read_bytes()[:9000])
    with pytest.raises(SourceError) as caught:
        mosaic.read(delivery.tiles[1].window)
    assert f"domain D034_2021, tiles {name}: {victim} cannot be read: " in str(caught.value)
    imagery = Mosaic.of(mosaic.inputs, bands=("red", "nir"))
    assert imagery.read(delivery.tiles[2].window).valid.all(), "other tiles can be read"


def test_a_read_succeeds_when_the_file_is_back(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    mosaic = mosaic_of(delivery, tmp_path / "cat")
    victim = mosaic.inputs.assets[0].path
    victim.rename(tmp_path / "away")
    with pytest.raises(SourceError, match="cannot be read"):
        mosaic.read(mosaic.window)
    (tmp_path / "away").rename(victim)
    assert mosaic.read(mosaic.window).valid.all()


@pytest.mark.parametrize("kind", ["dsm", "dtm"])
def test_a_missing_elevation_file_is_an_error_and_is_read_when_it_is_back(tmp_path: Path, kind: str) -> None:
    """The other tile keeps GDAL's pool alive, which remembers the unreadable file and then reads 0 without an error."""
    delivery = make_delivery(tmp_path / "in", at=[(0, 0), (0, 4)])
    mosaic = mosaic_of(delivery, tmp_path / "cat")
    near, far = (tile.window for tile in delivery.tiles)
    mosaic.around(far).read(far)
    victim = next(a.path for a in mosaic.inputs.tiles[0].assets if a.kind == kind)
    victim.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(SourceError, match="cannot be read"):
            mosaic.around(near).read(near)
    (tmp_path / "away").rename(victim)
    assert mosaic.around(far).read(far).bands[4].any()
    left, _, _, top = near.bounds
    x, y = left + (np.arange(near.width) + 0.5) / 5, top - (np.arange(near.height) + 0.5) / 5
    expected = (roofs(x[None, :], y[:, None]) - hills(x[None, :], y[:, None])) / 0.2
    for _ in range(2):
        heights = mosaic.around(near).read(near).bands[4]
        assert np.abs(heights - expected)[5:-5, 5:-5].max() < 1.0


def test_a_ready_height_has_priority_over_surface_and_terrain(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0), (0, 1)])
    tile = delivery.tiles[0]
    left, _, _, top = tile.window.bounds
    ready = np.random.default_rng(1).integers(0, 256, (1, SIZE, SIZE), dtype=np.uint8)
    write_raster(delivery.folder / f"34-2021-{tile.name}-LA93-0M20-HAUTEUR.tif", ready, left, top, nodata=255)
    mosaic = mosaic_of(delivery, tmp_path / "cat")
    np.testing.assert_array_equal(mosaic.read(tile.window).bands[4], ready[0])
    metre = Mosaic.of(mosaic.inputs, bands=BANDS, height_step_m=1.0).read(tile.window)
    np.testing.assert_array_equal(metre.bands[4], np.rint(ready[0] / 5))
    across = mosaic.read(mosaic.window).bands[4]
    np.testing.assert_array_equal(across[:, :SIZE], ready[0])
    np.testing.assert_array_equal(across[:, SIZE:], mosaic.read(tile_at(0, 1).window).bands[4])


def test_a_file_that_was_replaced_and_indexed_is_read_again_in_the_process(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    before = mosaic_of(delivery, tmp_path / "cat").read(delivery.window)
    other = noise(delivery.tiles[0], seed=1)
    write_pair(delivery.folder, delivery.tiles[0], other)
    write_relief(delivery.folder, "dsm", flat(145), corner=delivery.tiles[0].name, side_m=50)
    after = mosaic_of(delivery, tmp_path / "cat").read(delivery.window)
    np.testing.assert_array_equal(after.bands[:4], other[:4])
    assert (after.bands[4] > 180).all()
    assert not (before.bands[4] > 180).any()


def test_indexing_does_not_change_gdals_cache_size(tmp_path: Path) -> None:
    before = get_gdal_config("GDAL_CACHEMAX")
    try:
        set_gdal_config("GDAL_CACHEMAX", 300 * 2**20)
        mosaic_of(make_delivery(tmp_path / "in", at=[(0, 0)]), tmp_path / "cat")
        assert get_gdal_config("GDAL_CACHEMAX") == 300 * 2**20
    finally:
        set_gdal_config("GDAL_CACHEMAX", before)


@pytest.mark.parametrize("kind", ["rvb", "irc", "dsm"])
def test_a_missing_file_fails_every_read_not_only_the_first(tmp_path: Path, kind: str) -> None:
    """GDAL's pool remembers files that it could not open, and later reads give 0 without an error."""
    delivery = make_delivery(tmp_path / "in", at=[(0, 0), (0, 4)])
    mosaic = mosaic_of(delivery, tmp_path / "cat")
    near, far = (tile.window for tile in delivery.tiles)
    mosaic.around(far).read(far)  # keeps GDAL's pool alive, with the files of the other tile closed
    next(a.path for a in mosaic.inputs.tiles[0].assets if a.kind == kind).unlink()
    corner = Window(near.row, near.col, 40, 40)
    for _ in range(3):
        for window in (near, corner):
            with pytest.raises(SourceError, match="cannot be read"):
                mosaic.around(window).read(window)
