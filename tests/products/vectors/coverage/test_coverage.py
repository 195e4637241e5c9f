"""The polygons of any raster are an exact coverage, whatever the tolerance, and however the work is divided."""

import warnings
from random import Random

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize, shapes

from pipeline.products.vectors.coverage.arcs import trace_arcs
from pipeline.products.vectors.coverage.regions import label_regions
from pipeline.products.vectors.coverage.simplify import simplify
from tests.support.coverages import Coverage, Raster, coverage_of, rasters
from tests.support.paths import SHARED_DATA

DOWN = Affine(1, 0, 0, 0, -1, 0)
FEW = settings(max_examples=25)
"""Each example is traced cell by cell."""
TOLERANCES = st.sampled_from([0.3, 0.75, 1, 1.5, 2.5, 6, 200])
REAL = ("PRED_061946.tif", "PRED_062207.tif", "PRED_062393.tif", "pred13_D012_2019_Z3_UU.tif")


def real(name: str) -> Raster:
    """The first 256 pixels a side of a real prediction."""
    path = SHARED_DATA / "flair_predictions" / name
    if not path.exists():
        pytest.skip("no real data here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        file = rasterio.open(path)
    with file:
        found: Raster = file.read(1)[:256, :256]
    return found


def assert_exact(coverage: Coverage, classes: Raster) -> None:
    """The polygons are valid, leave no gap, do not overlap, and cover the mapped area."""
    assert shapely.is_valid(coverage.polygons).all()
    assert shapely.coverage_is_valid(coverage.polygons)
    assert shapely.area(coverage.polygons).sum() == np.count_nonzero(classes)
    pixels = coverage_of((classes > 0).astype(np.uint8), cell=64).polygons
    assert shapely.equals(shapely.union_all(coverage.polygons), shapely.union_all(pixels))


def assert_is_the_map(coverage: Coverage, classes: Raster) -> None:
    """Rasterised, the polygons are the map; GDAL finds the same polygons."""
    if len(coverage.polygons):
        burnt = zip(coverage.polygons, coverage.classes, strict=True)
        assert np.array_equal(rasterize(burnt, classes.shape, transform=DOWN, dtype="uint8"), classes)
    other = [(shapely.geometry.shape(s), v) for s, v in shapes(classes, connectivity=4, transform=DOWN) if v]
    assert len(other) == len(coverage.polygons)
    theirs = np.array([polygon for polygon, _ in other], object)
    order = np.argsort([int(-p.bounds[3]) * 10_000 + first_column(p) for p in theirs])
    assert shapely.equals(coverage.polygons, theirs[order]).all()
    assert [other[k][1] for k in order] == coverage.classes.tolist()


def first_column(polygon: shapely.Polygon) -> int:
    """The first column of the first row of a polygon of pixels."""
    places = shapely.get_coordinates(polygon.exterior)
    return int(places[places[:, 1] == places[:, 1].max(), 0].min())


@FEW
@given(rasters(), st.sampled_from([6, 11, 16, 50]))
def test_at_tolerance_0_the_polygons_are_the_map_and_those_of_gdal(classes: Raster, cell: int) -> None:
    coverage = coverage_of(classes, cell=cell)
    assert_exact(coverage, classes)
    assert_is_the_map(coverage, classes)


@FEW
@given(rasters(), st.sampled_from([6, 11, 16, 50]), TOLERANCES)
def test_at_any_tolerance_the_polygons_are_an_exact_coverage(classes: Raster, cell: int, tolerance: float) -> None:
    assert_exact(coverage_of(classes, cell=cell, tolerance=tolerance), classes)


@FEW
@given(rasters(), st.integers(1, 5), TOLERANCES, st.randoms(use_true_random=False))
def test_neither_blocks_nor_their_order_change_a_byte(
    classes: Raster, across: int, tolerance: float, random: Random
) -> None:
    def shuffled(cells: list[tuple[int, int]]) -> list[tuple[int, int]]:
        random.shuffle(cells)
        return cells

    one = coverage_of(classes, cell=8, tolerance=tolerance, corner=(-20, 13))
    other = coverage_of(classes, cell=8, tolerance=tolerance, corner=(-20, 13), across=across, shuffle=shuffled)
    assert one.same(other)


@FEW
@given(rasters(), TOLERANCES)
def test_an_arc_stays_within_the_tolerance_and_keeps_its_ends(classes: Raster, tolerance: float) -> None:
    side = max(classes.shape)
    window = np.zeros((side + 2, side + 2), np.uint8)
    window[1 : 1 + classes.shape[0], 1 : 1 + classes.shape[1]] = classes
    traced = trace_arcs(window, label_regions(window[:-1, :-1])[0])
    simpler = simplify(traced, tolerance, side=side)
    for k in range(len(traced)):
        before, after = (
            np.column_stack([a.col, a.row])[a.offset[k] : a.offset[k + 1]].astype(float) for a in (traced, simpler)
        )
        assert before[[0, -1]].tolist() == after[[0, -1]].tolist()
        # Of straight lines, the distance is largest at the vertices of the traced one.
        distance = shapely.distance(shapely.points(before), shapely.LineString(after))
        assert distance.max() <= tolerance + 1e-9


@settings(max_examples=15)
@given(rasters(most=20))
def test_polygons_span_cells_without_a_vertex_at_their_borders(classes: Raster) -> None:
    in_cells, whole = coverage_of(classes, cell=6), coverage_of(classes, cell=64)
    assert in_cells.same(whole)


@pytest.mark.parametrize("name", REAL)
def test_real_predictions_become_exact_coverages(name: str) -> None:
    classes = real(name)
    exact = coverage_of(classes, cell=100)
    assert_exact(exact, classes)
    assert_is_the_map(exact, classes)
    for tolerance in (2.5, 10):
        assert_exact(coverage_of(classes, cell=100, tolerance=tolerance), classes)


@pytest.mark.parametrize("name", REAL[:3])
def test_borders_move_less_than_with_coverage_simplify_at_the_same_tolerance(name: str) -> None:
    classes = real(name)
    pixels = coverage_of(classes, cell=1000).polygons
    ours = coverage_of(classes, cell=1000, tolerance=2.5).polygons
    # GEOS bounds the areas of triangles, not a distance.
    theirs = shapely.coverage_simplify(list(pixels), 2.5, simplify_boundary=False)
    vertices = [shapely.get_num_coordinates(polygons).sum() for polygons in (ours, theirs)]
    assert vertices[0] < 1.02 * vertices[1]
    moved = [shapely.hausdorff_distance(shapely.boundary(pixels), shapely.boundary(p)).max() for p in (ours, theirs)]
    assert moved[0] <= 2.5 < moved[1]
