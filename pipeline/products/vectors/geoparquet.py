"""Writes polygons as GeoParquet 1.1, in the order of Hilbert's curve."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj

from pipeline.products.vectors.features import PLACE

ROWS = 50_000
"""Polygons in a row group: what a reader takes at once."""
_BATCH, _BUFFER = 1_000, 1 << 18
"""Polygons that `read_polygons` gives at once, and bytes of a column that it reads at once."""


Bounds = tuple[float, float, float, float]
"""(left, bottom, right, top)."""


def release_memory() -> None:
    """Gives memory that Arrow does not use any more back: its allocator keeps it, and nothing else can use it."""
    pa.default_memory_pool().release_unused()


def in_order(table: pa.Table) -> pa.Table:
    """A table in the order of Hilbert's curve, without the column by which it is sorted."""
    return table.take(pc.sort_indices(table[PLACE])).drop_columns([PLACE])


def write_geoparquet(path: Path, tables: Iterable[pa.Table], *, schema: pa.Schema, crs: str) -> None:
    """Writes one file.

    Args:
        path: the file.
        tables: with the schema; one after the other is in memory.
        schema: with a column `bbox`.
        crs: `EPSG:…`.
    """
    bounds: list[Bounds] = []
    options = {"compression": "zstd", "compression_level": 9, "write_page_index": True}
    # Arrow's own schema in the file would hide `geo`, which is known only at the end.
    with pq.ParquetWriter(path, schema, store_schema=False, **options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=ROWS)
            bounds.append(_bounds(table))
            del table  # before the next one is read
            release_memory()
        sides = list(zip(*bounds, strict=True))
        whole = (min(sides[0]), min(sides[1]), max(sides[2]), max(sides[3])) if sides else None
        writer.add_key_value_metadata({"geo": json.dumps(_metadata(crs, whole))})


def read_polygons(path: Path) -> Iterator[pa.RecordBatch]:
    """The polygons of a file in order, in small batches."""
    with pq.ParquetFile(path, buffer_size=_BUFFER) as file:
        # Threads would read several columns of a row group at once.
        for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
            yield batch
            del batch
            release_memory()


def _bounds(table: pa.Table) -> Bounds:
    bbox = table["bbox"].combine_chunks()
    left, bottom, right, top = (bbox.field(side) for side in ("xmin", "ymin", "xmax", "ymax"))
    return (pc.min(left).as_py(), pc.min(bottom).as_py(), pc.max(right).as_py(), pc.max(top).as_py())


def _metadata(crs: str, bounds: Bounds | None) -> dict[str, Any]:
    """The content of GeoParquet's key `geo`."""
    covering = {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": pyproj.CRS.from_user_input(crs).to_json_dict(),
        "orientation": "counterclockwise",
        "edges": "planar",
        **({"bbox": list(bounds)} if bounds else {}),
        "covering": {"bbox": covering},
    }
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
