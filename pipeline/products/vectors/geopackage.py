"""Writes polygons as a GeoPackage, batch by batch."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyogrio

from pipeline.durable import replacing
from pipeline.products.gis.geopackage import same_bytes

GEOMETRY = pa.field("geom", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
"""The column of the polygons, as WKB."""


def write_polygons(path: Path, batches: Iterator[pa.RecordBatch], *, schema: pa.Schema, layer: str, crs: str) -> None:
    """Writes one layer.

    GDAL writes into the folder for temporary files (`TMPDIR`) first, because SQLite locks files, which shared file
    systems may not support.

    Args:
        path: the file; it appears whole or not at all.
        batches: one after the other is in memory.
        schema: of the batches; its last field is `GEOMETRY`.
        layer: its name.
        crs: `EPSG:…`.

    Raises:
        StorageError: it cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "vectors.gpkg")
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        kind = {"driver": "GPKG", "geometry_name": GEOMETRY.name, "geometry_type": "Polygon"}
        with same_bytes():
            pyogrio.write_arrow(reader, written, layer=layer, crs=crs, **kind)
        with replacing(path) as temporary:
            shutil.copyfile(written, temporary)
