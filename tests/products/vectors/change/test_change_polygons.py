"""Polygons of change: the pixels of the raster, one polygon for each connected place, whatever the tiles are."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage

from pipeline.grid import Window
from pipeline.products.analysis.edition_change.change_store import PolygonCounts, create_change
from pipeline.products.analysis.edition_change.comparison import LAND, LAYERS_OF_CHANGE, MAP, STABLE
from pipeline.products.analysis.edition_change.zones import Zoning, zoning
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.zarr_store import create_store, write_layer
from pipeline.products.vectors.change.change_pixels import ChangePixels, changed_windows
from pipeline.products.vectors.change.change_polygons import ChangedPlaces, trace_change, write_change_polygons

SIDE = 240
CORNER = (-34_000_000 - 120, 2_000_000 - 120)
"""The corner of four cells lies in the middle."""
UNIT_M2 = 2.0
ZONES = [
    zoning("département", [("D033", shapely.box(*Window(*CORNER, SIDE, 130).bounds))]),
    Zoning(
        "commune",
        ("north", "south"),
        tuple(shapely.box(*Window(CORNER[0] + row, CORNER[1], SIDE // 2, SIDE).bounds) for row in (0, SIDE // 2)),
    ),
]


def rasters() -> dict[str, NDArray[np.uint8]]:
    """Patches that changed between four classes, a third of them of the map only."""
    rng = np.random.default_rng(4)

    def patches(number: int, size: float) -> NDArray[np.intp]:
        noise = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), size)
        return np.digitize(noise, np.quantile(noise, np.linspace(0, 1, number + 1)[1:-1]))

    before, after, kind = patches(4, 3) + 1, patches(4, 3) + 1, patches(3, 6)
    changed = before != after
    values = {
        "change": np.where(changed, np.where(kind == 0, MAP, LAND), STABLE),
        "from": np.where(changed, before, 0),
        "to": np.where(changed, after, 0),
        "confidence": np.where(changed, rng.integers(1, 256, changed.shape), 0),
    }
    return {name: v.astype(np.uint8) for name, v in values.items()}


RASTERS = rasters()


def write_raster(folder: Path, tile: int) -> tuple[ChangePixels, list[Window], NDArray[np.int64]]:
    """The rasters as the Zarr of a change; its files and their pixels of each kind."""
    top, left = (v // tile * tile for v in CORNER)
    size = [-(-(v - begin + SIDE) // tile) * tile for v, begin in zip(CORNER, (top, left), strict=True)]
    grid = NationalGrid(Window(top, left, *size), tile, tile, tile)
    edition = folder / "edition.zarr"
    create_store(edition, grid, domains=[], coverage=np.ones(grid.tiles_shape, np.uint8), coordinates_from=None)
    store = folder / "change.zarr"
    create_change(store, grid, side=tile, coordinates_from=edition)
    parts, kinds = [], []
    own = (slice(CORNER[0] - top, CORNER[0] - top + SIDE), slice(CORNER[1] - left, CORNER[1] - left + SIDE))
    for row, col in np.ndindex(*grid.tiles_shape):
        part = (slice(row * tile, (row + 1) * tile), slice(col * tile, (col + 1) * tile))
        for name in LAYERS_OF_CHANGE:
            whole = np.zeros(size, np.uint8)
            whole[own] = RASTERS[name]
            write_layer(store, name, (int(row), int(col)), shard=tile, pixels=whole[part])
            if name == "change":
                kinds.append(np.bincount(whole[part].ravel(), minlength=5))
        parts.append(Window(top + row * tile, left + col * tile, tile, tile))
    return ChangePixels(store, grid), parts, np.array(kinds, np.int64)


def one_by_one(jobs: Sequence[Any], function: Callable[[Any], Any]) -> list[Any]:
    """Calls a function for each job, the last one first."""
    return [function(job) for job in reversed(jobs)][::-1]


def write(folder: Path, *, tile: int, unit_m2: float = UNIT_M2) -> dict[tuple[str, int], PolygonCounts]:
    """Traces and writes the polygons."""
    folder.mkdir()
    pixels, parts, kinds = write_raster(folder, tile)
    places = ChangedPlaces(1, 2, "EPSG:2154", unit_m2)
    traced = trace_change(folder / "work", pixels, changed_windows(parts, kinds), places, one_by_one)
    return write_change_polygons(folder, *traced, ZONES)


def hashes(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / f"polygons.{kind}").read_bytes()).hexdigest() for kind in ("parquet", "gpkg")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, int], PolygonCounts]]:
    folder = tmp_path_factory.mktemp("change") / "200"
    return folder, write(folder, tile=200)


Written = tuple[Path, dict[tuple[str, int], PolygonCounts]]


def test_polygons_are_the_connected_places_that_have_the_unit(written: Written) -> None:
    found = gpd.read_parquet(written[0] / "polygons.parquet")
    assert found.area_m2.min() >= UNIT_M2
    transform = ChangePixels(Path(), NationalGrid(Window(*CORNER, SIDE, SIDE), 1, 1, 1)).grid.extent.transform
    expected = Counter[tuple[str, int, int, int]]()
    kept = np.zeros((SIDE, SIDE), bool)
    for kind, name in ((LAND, "land_change"), (MAP, "map_change")):
        for before, after in np.argwhere(np.ones((5, 5))).tolist():
            own = (RASTERS["change"] == kind) & (RASTERS["from"] == before) & (RASTERS["to"] == after)
            labels, number = ndimage.label(own)
            for label, pixels in enumerate(np.bincount(labels.ravel(), minlength=number + 1)[1:].tolist(), start=1):
                if pixels >= UNIT_M2 * 25:
                    expected[name, before, after, pixels] += 1
                    kept |= labels == label
    rows = zip(found.change, found["from"], found["to"], (found.area_m2 * 25).round().astype(int), strict=True)
    assert Counter(rows) == expected
    burnt = rasterize(found.geometry, (SIDE, SIDE), transform=transform, dtype="uint8") == 1
    np.testing.assert_array_equal(burnt, kept)
    assert shapely.coverage_is_valid(found.geometry.to_numpy())
    one = found.iloc[0]
    inside = rasterize([one.geometry], (SIDE, SIDE), transform=transform, dtype="uint8") == 1
    assert one.confidence_mean == pytest.approx(RASTERS["confidence"][inside].mean() / 255, abs=1e-6)
    assert (one.edition_from, one.edition_to) == (1, 2)


@pytest.mark.parametrize("tile", [256, 1000])
def test_polygons_have_the_same_bytes_for_any_size_of_tiles(tmp_path: Path, written: Written, tile: int) -> None:
    write(tmp_path / "other", tile=tile)
    assert hashes(tmp_path / "other") == hashes(written[0])


def test_a_polygon_belongs_to_the_zone_that_has_most_of_it(written: Written) -> None:
    folder, counted = written
    found = gpd.read_parquet(folder / "polygons.parquet")
    for zones, column in zip(ZONES, ("departement", "commune"), strict=True):
        areas = np.stack([found.intersection(zone).area for zone in zones.polygons])
        names = [zones.names[k] if most > 0 else None for k, most in zip(areas.argmax(0), areas.max(0), strict=True)]
        assert found[column].replace({np.nan: None}).tolist() == names
        for number, name in enumerate(zones.names, start=1):
            own = counted[zones.kind, number]
            assert sum(own.polygons.values()) == (found[column] == name).sum()
            assert sum(own.pixels.values()) == round(found.area_m2[found[column] == name].sum() * 25)
    assert sum(counted["all", 0].polygons.values()) == len(found)


def test_the_geopackage_has_the_polygons_too(written: Written) -> None:
    found = gpd.read_parquet(written[0] / "polygons.parquet")
    other = pyogrio.read_dataframe(written[0] / "polygons.gpkg", layer="change")
    assert other.id.tolist() == found.id.tolist()
    assert other.geometry.geom_equals_exact(found.geometry, 0).all()
    assert other["to"].tolist() == found["to"].tolist()


def test_a_unit_that_nothing_has_gives_files_without_polygons(tmp_path: Path) -> None:
    assert not write(tmp_path / "none", tile=1000, unit_m2=1e6)["all", 0].polygons
    assert len(gpd.read_parquet(tmp_path / "none" / "polygons.parquet")) == 0
    assert len(pyogrio.read_dataframe(tmp_path / "none" / "polygons.gpkg")) == 0
