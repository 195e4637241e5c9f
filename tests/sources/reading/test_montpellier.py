"""The real BD ORTHO pair and LiDAR models of Montpellier, in a delivery with IGN's names."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from pipeline.domain import Domain
from pipeline.grid import Tile, Window
from pipeline.sources.catalog.index import IndexReport, index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.delivery.headers import match_crs
from pipeline.sources.delivery.names import imagery_folder, imagery_name
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.reading.mosaic import Mosaic
from tests.support.deliveries import write_raster

TILE = Tile.named("0770-6278", 5000)
DOMAIN = Domain("D034_2021")
TAG = (
    "rvb: pixels with the nodata tag 255 in any band are nodata; if this is a level of the imagery, remove the tag "
    "with `rio edit-info --unset-nodata FILE` and index again"
)
PLACE = Window.from_bounds((770549.8, 6277549.8, 770600.2, 6277600.2))
"""Position of the 252 × 252 real pixels."""


def real(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as file:
        pixels: NDArray[np.uint8] = file.read()
    return pixels


def place(folder: Path, data: Path) -> NDArray[np.uint8]:
    """Writes a delivery of one tile of 1 km, black around the real extract; returns the extract (6, y, x).

    The infrared is JPEG 2000, as IGN delivers it; the colours have the real file's odd CRS and nodata tag.
    """
    extract = np.concatenate([real(data / "rvb.tif"), real(data / "irc.tif")])
    pixels = np.zeros((6, *TILE.window.shape), np.uint8)
    pixels[:, *PLACE.slices_in(TILE.window)] = extract
    with rasterio.open(data / "rvb.tif") as file:
        odd = {"crs": file.crs, "nodata": file.nodata, "compress": "zstd", "tiled": True}
    for infrared, suffix, how in ((False, "tif", odd), (True, "jp2", {})):
        name = imagery_name(TILE.name, departement="34", year=2021, infrared=infrared, suffix=suffix)
        below = imagery_folder(departement="34", year=2021, infrared=infrared)
        part = pixels[3:] if infrared else pixels[:3]
        write_raster(folder / below / name, part, TILE.window.bounds[0], TILE.window.bounds[3], **how)
    for kind in ("DSM", "DTM", "DHM"):
        shutil.copytree(data / kind, folder / kind)
    return extract


@pytest.fixture(scope="module")
def placed(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path
) -> tuple[NDArray[np.uint8], IndexReport, Mosaic]:
    folder = tmp_path_factory.mktemp("montpellier")
    extract = place(folder / "in", shared_data / "bdortho_montpellier")
    report = index([folder / "in"], domain=DOMAIN, catalog=folder / "cat", tile_size=5000)
    inputs = read_domain(folder / "cat", DOMAIN, tile_size=5000)
    return extract, report, Mosaic.of(inputs, bands=BANDS)


def test_the_mosaic_has_the_real_pixels_and_nodata_around_them(
    placed: tuple[NDArray[np.uint8], IndexReport, Mosaic],
) -> None:
    extract, _, mosaic = placed
    around = PLACE.grow(200)
    read = mosaic.read(around)
    inside = PLACE.slices_in(around)
    np.testing.assert_array_equal(read.bands[:4, *inside], extract[:4])
    np.testing.assert_array_equal(read.valid[inside], (extract[:3] != 255).all(axis=0), "its nodata tag is 255")
    assert read.valid[inside].mean() > 0.999
    read.valid[inside] = False
    assert not read.valid.any()
    corner = mosaic.read(Window(TILE.window.row, TILE.window.col, 300, 300))
    assert not corner.valid.any()


def test_the_index_notes_the_crs_the_nodata_tag_missing_elevation_and_fill(
    placed: tuple[NDArray[np.uint8], IndexReport, Mosaic],
) -> None:
    _, report, _ = placed
    assert [note for _, note in report.notes] == [
        "rvb: the CRS lacks the code EPSG:2154; it is used because its parameters are Lambert-93's",
        TAG,
        "elevation: files cover 1.50% of the tile; elsewhere the height is 0",
        "imagery: black fill that is connected to the delivery's edge is nodata",
    ]
    assert {p.parent.name for p in report.ignored} == {"DHM"}
    assert len(report.ignored) == 6


def test_heights_are_the_bilinearly_resampled_difference_of_the_models(
    placed: tuple[NDArray[np.uint8], IndexReport, Mosaic], shared_data: Path
) -> None:
    _, _, mosaic = placed
    name = "test_data_77055_627760_LA93_IGN69_50CM_TIN.tif"
    folder = shared_data / "bdortho_montpellier"
    surface, terrain = (real(folder / kind / name)[0].astype(np.float64) for kind in ("DSM", "DTM"))
    # The file covers x 770550..770600, y 6277550..6277600; its inner part does not depend on a neighbour.
    centres = (np.arange(10, 240) + 0.5) * 0.2 / 0.5 - 0.5
    grid = np.meshgrid(centres, centres, indexing="ij")
    expected = np.clip((map_coordinates(surface, grid, order=1) - map_coordinates(terrain, grid, order=1)) * 5, 0, 255)
    found = mosaic.read(Window.from_bounds((770552.0, 6277552.0, 770598.0, 6277598.0))).bands[4]
    assert np.abs(found - expected).max() <= 0.5 + 1e-3
    assert found.max() > 20


def test_the_real_crs_is_lambert_93_by_its_parameters(shared_data: Path) -> None:
    with rasterio.open(shared_data / "bdortho_montpellier" / "rvb.tif") as file:
        assert match_crs(file.crs) == ("parameters", "EPSG:2154")
    assert match_crs(rasterio.CRS.from_epsg(2154)) == ("code", "EPSG:2154")
    assert match_crs(rasterio.CRS.from_epsg(3943)) == ("other", "EPSG:3943")
    assert match_crs(None) == ("absent", "no CRS")


@pytest.mark.parametrize("code", [5698, 5699, 9793, 9794, 10499])
def test_lambert_93_with_heights_or_of_a_later_realisation_is_lambert_93(code: int) -> None:
    assert match_crs(rasterio.CRS.from_epsg(code)) == ("parameters", "EPSG:2154")


@pytest.mark.parametrize("code", [27572, 3949, 32740, 26920])
def test_other_lamberts_and_utm_zones_of_other_continents_are_refused(code: int) -> None:
    assert match_crs(rasterio.CRS.from_epsg(code)) == ("other", f"EPSG:{code}")
