"""Writes the polygons of a domain as a GeoPackage with the fields of CoSIA, IGN's land cover in vectors."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import legend
from pipeline.products.vectors.geopackage import GEOMETRY, write_polygons
from pipeline.products.vectors.geoparquet import read_polygons

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
        GEOMETRY,
    ]
)


def write_cosia(path: Path, parts: Iterable[Path], *, domain: str, crs: str) -> None:
    """Writes one layer, named after the domain, part by part.

    Args:
        path: the file; it appears whole or not at all.
        parts: GeoParquet files, in order.
        domain: whose polygons are written.
        crs: `EPSG:…`.

    Raises:
        StorageError: it cannot be written.
    """
    write_polygons(path, _batches(parts, domain), schema=_SCHEMA, layer=domain, crs=crs)


def _batches(parts: Iterable[Path], domain: str) -> Iterator[pa.RecordBatch]:
    numbers = pa.array([None, *(c.cosia for c in legend.FLAIR)], pa.int16())
    names = pa.array([None, *(_NAMES[c.cosia] if c.cosia else c.french for c in legend.FLAIR)], pa.string())
    for part in parts:
        for rows in read_polygons(part):
            own = rows.filter(pc.equal(rows["domain"], domain))
            columns = {
                "numero": numbers.take(own["landcover"]),
                "classe": names.take(own["landcover"]),
                "edition": own["edition"],
                GEOMETRY.name: own["geometry"],
                **{name: own[name] for name in _COPIED},
            }
            yield pa.record_batch([columns[f.name].cast(f.type) for f in _SCHEMA], schema=_SCHEMA)
