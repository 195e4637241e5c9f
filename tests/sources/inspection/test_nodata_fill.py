"""Fill is uniform and connected to the delivery's edge; a uniform area inside is data."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from pipeline.domain import Domain
from pipeline.grid import Tile
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.reading.raster import Pixels
from tests.support.deliveries import flat, make_delivery, noise, tile_at, write_pair, write_relief

BANDS = ("red", "green", "blue", "nir")


def triangle(size: int) -> NDArray[np.bool_]:
    """The south-eastern half of a tile, as if cut by a border."""
    y, x = np.mgrid[:size, :size]
    return np.asarray(x + y > 1.2 * size)


def read(folder: Path, size: int) -> Pixels:
    index([folder], domain=Domain("D034_2021"), catalog=folder / "cat", tile_size=size, bands=BANDS)
    mosaic = Mosaic.of(read_domain(folder / "cat", Domain("D034_2021"), tile_size=size), bands=BANDS)
    return mosaic.read(mosaic.window)


@pytest.mark.parametrize("value", [0, 255])
def test_fill_at_the_edge_is_nodata_and_a_uniform_area_inside_is_data(tmp_path: Path, value: int) -> None:
    tile = tile_at(0, 0, 500)
    pixels, cut = noise(tile), triangle(500)
    pixels[:, cut] = value
    pixels[:, 100:150, 100:150] = value
    write_pair(tmp_path, tile, pixels)
    np.testing.assert_array_equal(read(tmp_path, 500).valid, ~cut)


def test_a_dark_pixel_beside_the_fill_is_data_unless_every_band_is_dark(tmp_path: Path) -> None:
    tile = tile_at(0, 0)
    pixels = noise(tile)
    pixels[:, :, 200:] = 0
    pixels[0, 50, 199], pixels[1:, 50, 199] = 60, 0
    write_pair(tmp_path, tile, pixels)
    valid = read(tmp_path, 250).valid
    assert valid[:, :200].all()
    assert not valid[:, 200:].any()


def test_a_region_that_is_uniform_in_some_bands_only_is_data(tmp_path: Path) -> None:
    tile = tile_at(0, 0)
    pixels = noise(tile)
    # Narrow, so that infrared and colours still correlate.
    pixels[:3, :, 246:] = 255
    write_pair(tmp_path, tile, pixels)
    assert read(tmp_path, 250).valid.all()


def test_a_uniform_area_on_the_edge_between_two_tiles_is_data(tmp_path: Path) -> None:
    def with_roof(tile: Tile) -> NDArray[np.uint8]:
        pixels = noise(tile)
        pixels[:, 100:150, 200:] = 255
        pixels[:, 100:150, :50] = 255
        if tile == tile_at(0, 0):
            pixels[:, 100:150, :50] = 77
        return pixels

    delivery = make_delivery(tmp_path, at=[(0, 0), (0, 1), (0, 2)], pixels=with_roof, surface=None, terrain=None)
    valid = read(tmp_path, 250).valid
    expected = np.ones(delivery.window.shape, np.bool_)
    expected[100:150, 700:] = False
    np.testing.assert_array_equal(valid, expected)


def test_fill_is_connected_to_the_edge_through_a_neighbour(tmp_path: Path) -> None:
    def half(tile: Tile) -> NDArray[np.uint8]:
        pixels = noise(tile)
        pixels[:, :, 120:] = 0
        if tile == tile_at(0, 1):
            pixels[:] = 0
            pixels[:, 5:200, 100:200] = 99
        return pixels

    # The first tile's fill touches only its neighbours; through the second one it reaches the outside.
    places = [(0, 0), (0, 1), (-1, 0), (1, 0)]
    delivery = make_delivery(tmp_path, at=places, pixels=half, surface=None, terrain=None)
    valid = read(tmp_path, 250).valid
    filled = delivery.covered & (delivery.imagery == 0).all(axis=0)
    np.testing.assert_array_equal(valid, delivery.covered & ~filled)


@pytest.mark.parametrize("lossless", [True, False])
def test_fill_of_a_jpeg_2000_pair_is_found_on_its_lowest_level(tmp_path: Path, lossless: bool) -> None:
    size = 1250
    tile = tile_at(0, 0, size)
    coarse = np.random.default_rng(0).integers(30, 220, (6, 25, 25)).astype(np.uint8)
    coarse[4:] = coarse[:2]
    pixels = coarse.repeat(50, axis=1).repeat(50, axis=2)
    cut = triangle(size)
    pixels[:, cut] = 0
    path, _ = write_pair(tmp_path, tile, pixels, suffix="jp2", lossless=lossless)
    with rasterio.open(path) as file:
        assert file.overviews(1), "the file has a lower level"
    valid = read(tmp_path, size).valid
    if lossless:
        np.testing.assert_array_equal(valid, ~cut)
    else:
        # Lossy compression changes some pixels far beyond the border.
        wrong = valid == cut
        assert wrong.mean() < 0.002
        y, x = np.nonzero(wrong)
        assert np.abs(x + y - 1.2 * size).max() < 40


@pytest.mark.parametrize("lossless", [True, False])
def test_a_white_margin_is_nodata_and_a_white_roof_is_data(tmp_path: Path, *, lossless: bool) -> None:
    size = 1250
    fields = np.random.default_rng(1).integers(30, 220, (6, 25, 25)).astype(np.uint8)
    fields[4:] = fields[:2]
    margin = np.zeros((size, size), np.bool_)
    margin[:130], margin[:, :170] = True, True

    pixels = fields.repeat(50, axis=1).repeat(50, axis=2)
    pixels[:, 700:900, 700:900] = 255
    pixels[:, margin] = 255
    write_pair(tmp_path, tile_at(0, 0, size), pixels, suffix="jp2", lossless=lossless)
    report = index([tmp_path], domain=Domain("D034_2021"), catalog=tmp_path / "cat", tile_size=size, bands=BANDS)
    assert [note for _, note in report.notes if "fill" in note] == [
        "imagery: white fill that is connected to the delivery's edge is nodata"
    ]
    valid = read(tmp_path, size).valid
    wrong = valid == margin
    assert valid[700:900, 700:900].all()
    if lossless:
        assert not wrong.any()
    else:
        assert wrong.mean() < 0.002


def test_a_nodata_tag_that_is_a_possible_elevation_is_ignored(tmp_path: Path) -> None:
    tile = tile_at(0, 0)
    write_pair(tmp_path, tile, noise(tile))
    write_relief(tmp_path, "dtm", flat(100), corner=tile.name, side_m=50)
    path = write_relief(tmp_path, "dsm", flat(110), corner=tile.name, side_m=50)
    with rasterio.open(path, "r+") as file:
        file.nodata = 110
    report = index([tmp_path], domain=Domain("D034_2021"), catalog=tmp_path / "cat", tile_size=250)
    assert "dsm: nodata tag 110 of 1 files ignored: it is a possible elevation" in [note for _, note in report.notes]
    bands = (*BANDS, "elevation")
    mosaic = Mosaic.of(read_domain(tmp_path / "cat", Domain("D034_2021"), tile_size=250), bands=bands)
    assert (mosaic.read(mosaic.window).bands[4] == 50).all()
