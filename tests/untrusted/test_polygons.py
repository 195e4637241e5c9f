"""Polygons that geometry libraries would work on for hours are refused in a moment."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from odc.geo.geobox import GeoBox

from pipeline.errors import ProductError, SourceError
from pipeline.products.analysis.areas import read_zones
from pipeline.products.national.ownership import read_boundary
from pipeline.sources.labels.reference import Reference

GEOBOX = GeoBox.from_bbox((1.5, 43.5, 1.6, 43.6), "EPSG:4326", shape=(50, 50))


def circle(vertices: int) -> shapely.Polygon:
    angles = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    return shapely.Polygon(np.column_stack([1.5 + 0.1 * np.cos(angles), 43.5 + 0.1 * np.sin(angles)]))


def tangle(vertices: int) -> shapely.Polygon:
    return shapely.Polygon(np.random.default_rng(0).uniform((1.4, 43.4), (1.6, 43.6), (vertices, 2)))


def written(path: Path, polygon: shapely.Polygon) -> Path:
    feature = {"type": "Feature", "properties": {"class": 1}, "geometry": json.loads(shapely.to_geojson(polygon))}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


@pytest.mark.parametrize(
    ("polygon", "limit"),
    [
        (circle(200_000), "polygon_vertices = 150,000"),
        (tangle(200_000), "polygon_vertices = 150,000"),
        (tangle(20_000), "invalid_polygon_vertices = 10,000"),
    ],
    ids=["circle", "tangle", "small tangle"],
)
def test_a_polygon_with_too_many_vertices_is_refused(tmp_path: Path, polygon: shapely.Polygon, limit: str) -> None:
    path = written(tmp_path / "zones.geojson", polygon)
    with pytest.raises(ProductError, match=limit):
        read_boundary(path)
    with pytest.raises(ProductError, match=limit):
        read_zones(path, None, "EPSG:2154")
    with pytest.raises(ProductError, match=limit):
        read_zones(gpd.GeoDataFrame(geometry=[polygon], crs="EPSG:4326"), None, "EPSG:2154")
    with pytest.raises(SourceError, match=limit):
        Reference.open(path, field="class").read(GEOBOX)


def test_a_coast_of_a_hundred_thousand_vertices_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "zones.geojson", circle(100_000))
    assert read_boundary(path).area == pytest.approx(read_zones(path, None, "EPSG:2154").area.item(), rel=1e-6)
    assert (Reference.open(path, field="class").read(GEOBOX) == 1).any()
