"""Writes polygons as GeoParquet 1.1, in the order of Hilbert's curve."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj

from pipeline.products.vectors.features import PLACE, SCHEMA

ROWS = 50_000
"""Polygons in a row group: what a reader takes at once."""


def sorted_polygons(tables: Iterable[pa.Table]) -> pa.Table:
    """Tables as one, in the order of Hilbert's curve."""
    joined = pa.concat_tables(tables)
    return joined.take(pc.sort_indices(joined[PLACE])).select(SCHEMA.names)


def write_geoparquet(path: Path, tables: Iterable[pa.Table], *, crs: str, bounds: tuple[float, ...]) -> None:
    """Writes one file.

    Args:
        path: the file.
        tables: with the schema `SCHEMA`, one after the other in memory.
        crs: `EPSG:…`.
        bounds: (left, bottom, right, top) of all polygons.
    """
    schema = SCHEMA.with_metadata({"geo": json.dumps(_metadata(crs, bounds))})
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=9, write_page_index=True) as writer:
        for table in tables:
            writer.write_table(table.cast(schema), row_group_size=ROWS)


def bounds_of(table: pa.Table) -> tuple[float, float, float, float]:
    """(left, bottom, right, top) of the polygons of a table."""
    bbox = table["bbox"].combine_chunks()
    left, bottom, right, top = (bbox.field(side) for side in ("xmin", "ymin", "xmax", "ymax"))
    return (pc.min(left).as_py(), pc.min(bottom).as_py(), pc.max(right).as_py(), pc.max(top).as_py())


def _metadata(crs: str, bounds: tuple[float, ...]) -> dict[str, Any]:
    """The content of GeoParquet's key `geo`."""
    covering = {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": pyproj.CRS.from_user_input(crs).to_json_dict(),
        "orientation": "counterclockwise",
        "edges": "planar",
        "bbox": list(bounds),
        "covering": {"bbox": covering},
    }
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
