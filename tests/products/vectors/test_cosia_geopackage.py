"""GeoPackages with CoSIA's fields."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import shapely

from pipeline.products.vectors.cosia_geopackage import write_cosia
from pipeline.products.vectors.features import SCHEMA
from pipeline.products.vectors.geoparquet import write_geoparquet


def test_threads_that_write_at_the_same_time_write_the_same_bytes(tmp_path: Path) -> None:
    values = {"id": "0-0-1", "landcover": 1, "class": "building", "area_m2": 1.0, "area_ellipsoid_m2": 1.0}
    values |= {"confidence_mean": 1.0, "confidence_p10": 1.0, "domain": "D034_2021", "date": None, "edition": 1}
    values |= {"bbox": {"xmin": 0.0, "ymin": 0.0, "xmax": 1.0, "ymax": 1.0}, "geometry": shapely.box(0, 0, 1, 1).wkb}
    table = pa.Table.from_pylist([values] * 1000, schema=SCHEMA)
    write_geoparquet(tmp_path / "part.parquet", [table], schema=SCHEMA, crs="EPSG:2154")

    def write(number: int) -> str:
        path = tmp_path / f"{number}.gpkg"
        write_cosia(path, [tmp_path / "part.parquet"], domain="D034_2021", crs="EPSG:2154")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(write, range(12)))) == 1
