"""Writes the polygons of a domain as a GeoPackage with the fields of CoSIA, IGN's land cover in vectors."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyogrio

from pipeline import legend
from pipeline.durable import replacing

_NAMES = {
    1: "Bâtiment",
    2: "Zone perméable",
    3: "Zone imperméable",
    4: "Piscine",
    5: "Sol nu",
    6: "Surface eau",
    7: "Neige",
    8: "Conifère",
    9: "Feuillu",
    10: "Broussaille",
    11: "Vigne",
    12: "Pelouse",
    13: "Culture",
    14: "Terre labourée",
    15: "Serre",
}
"""CoSIA's names by `numero`."""
_COPIED = ("id", "landcover", "area_m2", "area_ellipsoid_m2", "confidence_mean", "confidence_p10", "domain", "date")
_SCHEMA = pa.schema(
    [
        pa.field("numero", pa.int16()),
        pa.field("classe", pa.string()),
        pa.field("id", pa.string()),
        pa.field("landcover", pa.int16()),
        pa.field("area_m2", pa.float64()),
        pa.field("area_ellipsoid_m2", pa.float64()),
        pa.field("confidence_mean", pa.float32()),
        pa.field("confidence_p10", pa.float32()),
        pa.field("domain", pa.string()),
        pa.field("date", pa.string()),
        pa.field("edition", pa.int32()),
        pa.field("geom", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"}),
    ]
)
_WRITTEN = "2000-01-01T00:00:00Z"
"""GeoPackages note when they were written. A fixed time gives equal files the same bytes."""
_TIME_IS_FIXED = Lock()
"""GDAL takes the time from an option of the process, so threads write one after the other."""


def write_cosia(path: Path, parts: Iterable[Path], *, domain: str, crs: str) -> None:
    """Writes one layer, named after the domain, part by part.

    GDAL writes into the folder for temporary files (`TMPDIR`) first, because SQLite locks files, which shared file
    systems may not support.

    Args:
        path: the file; it appears whole or not at all.
        parts: GeoParquet files, in order.
        domain: whose polygons are written.
        crs: `EPSG:…`.

    Raises:
        StorageError: it cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "vectors.gpkg")
        batches = pa.RecordBatchReader.from_batches(_SCHEMA, _batches(parts, domain))
        kind = {"driver": "GPKG", "geometry_name": "geom", "geometry_type": "Polygon"}
        with _TIME_IS_FIXED:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _WRITTEN})
            try:
                pyogrio.write_arrow(batches, written, layer=domain, crs=crs, **kind)
            finally:
                pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
        with replacing(path) as temporary:
            shutil.copyfile(written, temporary)


def _batches(parts: Iterable[Path], domain: str) -> Iterator[pa.RecordBatch]:
    numbers = pa.array([None, *(c.cosia for c in legend.FLAIR)], pa.int16())
    names = pa.array([None, *(_NAMES[c.cosia] if c.cosia else c.french for c in legend.FLAIR)], pa.string())
    for part in parts:
        with pq.ParquetFile(part) as file:
            for rows in file.iter_batches(batch_size=10_000):
                own = rows.filter(pc.equal(rows["domain"], domain))
                columns = {
                    "numero": numbers.take(own["landcover"]),
                    "classe": names.take(own["landcover"]),
                    "edition": own["edition"],
                    "geom": own["geometry"],
                    **{name: own[name] for name in _COPIED},
                }
                yield pa.record_batch([columns[f.name].cast(f.type) for f in _SCHEMA], schema=_SCHEMA)
