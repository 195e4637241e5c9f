"""One owner per pixel, as a plain loop with shapely finds it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.domain import Domain
from pipeline.errors import ProductError
from pipeline.grid import Window
from pipeline.products.national.ownership import Claim, owners, possible_owners, read_boundary
from tests.support.paths import SHARED_DATA
from tests.support.products import NORTH, WEST

SIZE = 24
WINDOW = Window(NORTH, WEST, SIZE, SIZE)


def expected_owner(window: Window, claims: list[Claim], row: int, col: int) -> set[int]:
    """Who may own a pixel: one number, or two where its centre lies on an edge."""
    x, y = (window.col + col + 0.5) / 5, -(window.row + row + 0.5) / 5
    order = sorted(range(len(claims)), key=lambda i: (-claims[i].domain.year, claims[i].domain))
    here = [i for i in order if claims[i].window.contains(Window(window.row + row, window.col + col, 1, 1))]
    possible = set()
    for i in here:
        boundary = claims[i].boundary
        if boundary is None:
            continue
        if boundary.boundary.distance(shapely.Point(x, y)) < 1e-6:
            possible.add(i + 1)
        elif shapely.contains_xy(boundary, x, y):
            return possible | {i + 1}
    return possible | {next((i + 1 for i in here if claims[i].boundary is None), 0)}


def metres(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [((WEST + c) / 5, -(NORTH + r) / 5) for r, c in points]


positions = st.integers(-40, 140).map(lambda v: v * 0.25)
polygons = (
    st.lists(st.tuples(positions, positions), min_size=3, max_size=7, unique=True)
    .map(lambda points: shapely.make_valid(shapely.Polygon(metres(points))))
    .filter(lambda p: p.area > 0)
)
tiles = st.sampled_from([WINDOW, Window(NORTH, WEST, SIZE // 2, SIZE), Window(NORTH, WEST + 8, SIZE, 8)])
claim_lists = st.lists(
    st.tuples(st.sampled_from(["D030", "D034", "D064"]), st.integers(2018, 2021), st.none() | polygons, tiles),
    min_size=1,
    max_size=4,
    unique_by=lambda t: t[:2],
).map(lambda found: [Claim(Domain(f"{d}_{year}"), boundary, tile) for d, year, boundary, tile in found])


def assert_as_expected(found: NDArray[np.uint16], claims: list[Claim]) -> None:
    for row, col in np.ndindex(*WINDOW.shape):
        assert found[row, col] in expected_owner(WINDOW, claims, row, col), (row, col)


@given(claim_lists)
@settings(max_examples=25, deadline=None)
def test_every_pixels_owner_is_the_one_that_shapely_finds(claims: list[Claim]) -> None:
    assert_as_expected(owners(WINDOW, claims), claims)


@given(claim_lists)
@settings(max_examples=20, deadline=None)
def test_the_order_of_claims_and_the_cut_of_windows_change_nothing(claims: list[Claim]) -> None:
    whole = owners(WINDOW, claims)
    backwards = owners(WINDOW, claims[::-1])
    np.testing.assert_array_equal(np.where(backwards, len(claims) + 1 - backwards, 0), whole)
    for part in WINDOW.split(13):
        found = owners(part, claims)
        for row, col in np.argwhere(found != whole[part.slices_in(WINDOW)]):
            # Only a centre that lies on an edge may fall to the other side.
            assert len(expected_owner(part, claims, int(row), int(col))) == 2


@given(claim_lists)
@settings(max_examples=25, deadline=None)
def test_possible_owners_are_all_that_own_and_decide_alike(claims: list[Claim]) -> None:
    possible = possible_owners(WINDOW, claims)
    names = np.array(["", *(c.domain for c in claims)])[owners(WINDOW, claims)]
    assert set(np.unique(names)) - {""} <= {c.domain for c in possible}
    np.testing.assert_array_equal(np.array(["", *(c.domain for c in possible)])[owners(WINDOW, possible)], names)


def test_polygon_then_vintage_then_name() -> None:
    left = shapely.box(*Window(NORTH, WEST, SIZE, SIZE // 2).bounds)
    old, new = Claim(Domain("D064_2018"), left, WINDOW), Claim(Domain("D064_2021"), left, WINDOW)
    free, newest = Claim(Domain("D040_2021"), None, WINDOW), Claim(Domain("D065_2024"), None, WINDOW)
    found = owners(WINDOW, [old, new, free, newest])
    assert np.unique(found[:, : SIZE // 2]) == [2]
    assert np.unique(found[:, SIZE // 2 :]) == [4]
    assert [c.domain for c in possible_owners(WINDOW, [old, new, free, newest])] == ["D064_2021", "D065_2024"]
    same_year = [Claim(Domain(name), None, WINDOW) for name in ("D065_2021", "D040_2021")]
    assert np.unique(owners(WINDOW, same_year)) == [2]


def test_an_older_vintage_keeps_what_the_newest_was_not_delivered_with() -> None:
    half = Window(NORTH, WEST, SIZE, SIZE // 2)
    found = owners(WINDOW, [Claim(Domain("D064_2018"), None, WINDOW), Claim(Domain("D064_2021"), None, half)])
    assert np.unique(found[:, : SIZE // 2]) == [2]
    assert np.unique(found[:, SIZE // 2 :]) == [1]


def test_a_polygon_that_only_touches_a_tile_owns_nothing() -> None:
    beside = shapely.box(*Window(NORTH, WEST + SIZE, SIZE, SIZE).bounds)
    claim = Claim(Domain("D064_2021"), beside, WINDOW)
    assert not owners(WINDOW, [claim]).any()
    assert possible_owners(WINDOW, [claim]) == ()


def test_a_real_boundary_is_read_with_its_area_and_place() -> None:
    path = SHARED_DATA / "admin_france" / "34-herault" / "departement-34-herault.geojson"
    if not path.is_file():
        pytest.skip(f"no real boundary at {path}")
    herault = read_boundary(path)
    # INSEE: 6 224 km²; the border here is simplified. Montpellier's place de la Comédie is inside, Nîmes is not.
    assert herault.area / 1e6 == pytest.approx(6224, rel=0.01)
    assert shapely.contains_xy(herault, 770_900, 6_279_300)
    assert not shapely.contains_xy(herault, 811_000, 6_305_000)


def write_geojson(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_crs_member_is_followed_and_long_edges_stay_straight_in_their_own_crs(tmp_path: Path) -> None:
    square = shapely.box(600_000, 6_800_000, 700_000, 6_890_000)
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::2154"}}
    same = read_boundary(write_geojson(tmp_path / "a.geojson", {**shapely.geometry.mapping(square), "crs": crs}))
    assert same.equals(square)
    # The parallel 47° N from 1° to 5° E is no straight line in Lambert-93: 4 km off it in the middle.
    band = shapely.box(1, 46, 5, 47)
    bent = read_boundary(write_geojson(tmp_path / "b.geojson", shapely.geometry.mapping(band)))
    west, east = bent.bounds[0], bent.bounds[2]
    top_at = shapely.LineString([((west + east) / 2, 6_000_000), ((west + east) / 2, 7_200_000)]).intersection(bent)
    assert bent.bounds[3] - top_at.bounds[3] > 1000


def test_a_feature_collection_is_joined_and_points_are_left_out(tmp_path: Path) -> None:
    parts = [shapely.box(2, 46, 2.5, 47), shapely.box(2.5, 46, 3, 47), shapely.Point(0, 0)]
    features = [{"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(p)} for p in parts]
    joined = read_boundary(write_geojson(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": features}))
    assert joined.geom_type == "Polygon"


@pytest.mark.parametrize(
    "content",
    [
        {"type": "Point", "coordinates": [2, 46]},
        {"type": "FeatureCollection", "features": []},
        {"type": "Polygon", "coordinates": "none"},
        {
            "type": "Polygon",
            "coordinates": [[[2, 46], [3, 46], [3, 47], [2, 46]]],
            "crs": {"properties": {"name": "EPSG:0"}},
        },
        {"type": "Nothing"},
        [],
    ],
)
def test_a_file_without_a_polygon_is_an_error_that_names_it(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ProductError, match=r"a\.geojson: expected a boundary as GeoJSON polygons"):
        read_boundary(write_geojson(tmp_path / "a.geojson", content))
    with pytest.raises(ProductError, match="nowhere"):
        read_boundary(tmp_path / "nowhere")
