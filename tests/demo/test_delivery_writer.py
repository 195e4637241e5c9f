"""The written files are a delivery: the reader accepts them and returns the rendered images."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_geom
from shapely.geometry import box, shape

from pipeline.demo.country import ORIGIN, VINTAGES, Country, make_country
from pipeline.demo.landscape import Landscape
from pipeline.demo.orthoimage import photograph
from pipeline.errors import ConfigError, DeliveryError
from pipeline.grid import Tile, Window
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.delivery.names import find_files
from pipeline.sources.reading.mosaic import Mosaic

SIZE = 500


@pytest.fixture(scope="module")
def country(tmp_path_factory: pytest.TempPathFactory) -> Country:
    return make_country(tmp_path_factory.mktemp("country"), rows=1, columns=3, tile_size=SIZE)


def test_every_file_is_recognised_and_every_tile_has_four_kinds(country: Country) -> None:
    for domain in country.domains:
        found, unknown = find_files([domain.delivery])
        assert not unknown
        kinds = {(f.corner, f.kind) for f in found}
        assert kinds == {(t, k) for t in domain.tiles for k in ("rvb", "irc", "dsm", "dtm")}


def test_the_reader_returns_the_rendered_images(country: Country, tmp_path: Path) -> None:
    for domain, vintage in zip(country.domains, VINTAGES, strict=True):
        index([domain.delivery], domain=domain.name, catalog=tmp_path, tile_size=SIZE)
        inputs = read_domain(tmp_path, domain.name, tile_size=SIZE)
        mosaic = Mosaic.of(inputs, bands=("red", "green", "blue", "nir", "elevation"))
        window = Tile.named(domain.tiles[0], SIZE).window
        scene, image = photograph(Landscape(2022, vintage.year), window, radiometry=vintage.radiometry)
        bands = mosaic.read(window).bands
        np.testing.assert_array_equal(domain.read_truth(window), scene.truth)
        # Compression is lossy, but each band is much closer to its own image than to another band.
        errors = np.abs(bands[:4].astype(int) - image).mean(axis=(1, 2))
        assert errors.max() < 6
        height = bands[4] * 0.2
        assert np.median(np.abs(height - scene.height)) < 0.2
        assert np.corrcoef(height.ravel(), scene.height.ravel())[0, 1] > 0.95


def test_infrared_files_hold_near_infrared_red_and_green(country: Country) -> None:
    files = {(f.kind, f.corner): f.path for f in find_files([country.domains[0].delivery])[0]}
    tile = country.domains[0].tiles[0]
    with rasterio.open(files["rvb", tile]) as rvb, rasterio.open(files["irc", tile]) as irc:
        assert irc.driver == "JP2OpenJPEG"
        assert irc.tags(ns="IMAGE_STRUCTURE")["COMPRESSION_REVERSIBILITY"] == "LOSSY"
        assert irc.crs.to_epsg() == 2154
        colours, infrared = rvb.read().astype(int), irc.read().astype(int)
    for of_irc, of_rvb in ((1, 0), (2, 1)):
        assert np.abs(infrared[of_irc] - colours[of_rvb]).mean() < 6
    assert files["irc", tile].stat().st_size < 1.2 * infrared.size / 8


def test_elevation_files_are_like_those_of_ign(country: Country) -> None:
    west, east = ({(f.kind, f.corner): f.path for f in find_files([d.delivery])[0]} for d in country.domains)
    tile = country.domains[0].tiles[0]
    left, _, _, top = Tile.named(tile, SIZE).window.bounds
    with rasterio.open(west["dsm", tile]) as dsm, rasterio.open(west["dtm", tile]) as dtm:
        assert (dsm.res, dtm.res) == ((0.5, 0.5), (1.0, 1.0))
        assert (dtm.bounds.left, dtm.bounds.top) == (left - 0.5, top + 0.5)
        assert dtm.nodata == -99999
        assert 0 < (dsm.read(1) == dsm.nodata).mean() < 0.02
        centre = Landscape(2022, 2021).ground(np.array([7.0 - top]), np.array([left + 4.0]))
        assert dtm.read(1)[7, 4] == pytest.approx(float(centre[0, 0]), abs=0.006)
    with rasterio.open(east["dsm", country.domains[1].tiles[0]]) as lidar:
        assert lidar.nodata == -9999
        assert lidar.read(1).min() > 0


def test_the_border_crosses_the_tiles_that_both_domains_deliver(country: Country) -> None:
    west, east = (_polygon(d.boundary) for d in country.domains)
    shared = set(country.domains[0].tiles) & set(country.domains[1].tiles)
    assert len(shared) == 1
    tile = box(*Tile.named(shared.pop(), SIZE).window.bounds)
    parts = [tile.intersection(p).area / tile.area for p in (west, east)]
    assert min(parts) > 0.2
    assert sum(parts) == pytest.approx(1, abs=1e-6)
    assert west.intersection(east).area < 1e-3
    own = [box(*Tile.named(t, SIZE).window.bounds) for t in country.domains[0].tiles[:1]]
    assert all(west.contains(t) for t in own)


def test_training_tiles_do_not_overlap_held_out_tiles(country: Country) -> None:
    fitted = {t for d in country.domains for t in d.training}
    tested = {t for d in country.domains for t in d.held_out}
    assert fitted
    assert tested
    assert not fitted & tested
    assert all(d.training and set(d.training) <= set(d.tiles) for d in country.domains)


def test_checksums_match_the_files(country: Country) -> None:
    lists = list(country.root.rglob("*.md5"))
    assert len(lists) == 8
    assert {p.suffix for p in country.root.rglob("*.*") if p.is_file()} == {".asc", ".geojson", ".jp2", ".md5", ".tif"}
    for path in lists:
        for line in path.read_text().splitlines():
            digest, name = line.split("  ")
            assert hashlib.md5((path.parent / name).read_bytes(), usedforsecurity=False).hexdigest() == digest


def test_the_number_of_threads_changes_no_byte(tmp_path: Path) -> None:
    for threads in (1, 3):
        make_country(tmp_path / str(threads), rows=1, columns=3, tile_size=100, threads=threads)
    one, three = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in sorted((tmp_path / n).rglob("*.*")) if p.is_file()}
        for n in "13"
    )
    assert one == three


def test_truth_beyond_the_tiles_is_nodata(country: Country) -> None:
    truth = country.domains[0].read_truth(Window(ORIGIN[0] - 3, ORIGIN[1] - 2, 10, 10))
    assert not truth[:3].any()
    assert not truth[:, :2].any()
    assert truth[3:, 2:].all()


def test_an_existing_delivery_is_not_changed(country: Country) -> None:
    before = {p: p.stat().st_mtime_ns for p in country.root.rglob("*")}
    with pytest.raises(DeliveryError, match=r"exists already.*remove the folder"):
        make_country(country.root, rows=1, columns=3, tile_size=SIZE)
    assert {p: p.stat().st_mtime_ns for p in country.root.rglob("*")} == before


@pytest.mark.parametrize("columns", [1, 4])
def test_a_country_without_a_middle_column_is_refused(tmp_path: Path, columns: int) -> None:
    with pytest.raises(ConfigError, match=f"odd number of columns from 3; got 2 × {columns}"):
        make_country(tmp_path, rows=2, columns=columns)
    assert not any(tmp_path.iterdir())


def _polygon(path: Path) -> Any:
    geometry = json.loads(path.read_text())["features"][0]["geometry"]
    return shape(transform_geom("EPSG:4326", "EPSG:2154", geometry))
