"""Writes GeoPackages."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from shapely.geometry.base import BaseGeometry

from pipeline.durable import write_bytes


def write_geopackage(
    path: Path,
    geometries: Sequence[BaseGeometry],
    columns: Mapping[str, Any],
    *,
    layer: str,
    crs: str,
    metadata: Mapping[str, object] | None = None,
) -> None:
    """Writes one layer.

    Args:
        path: the file; it appears whole or not at all.
        geometries: at least one, all of one type.
        columns: name → values, one for each geometry: a list of text or an array of numbers.
        layer: its name.
        crs: `EPSG:…` or WKT.
        metadata: of the layer.

    Raises:
        StorageError: it cannot be written.
    """
    # In memory first: SQLite locks files, which shared file systems may not support, and GDAL writes no GeoPackage
    # under a temporary name.
    content = io.BytesIO()
    pyogrio.raw.write(
        content,
        geometry=np.array(shapely.to_wkb(geometries), object),
        field_data=[np.array(v, object) if isinstance(v, list) else v for v in columns.values()],
        fields=list(columns),
        crs=crs,
        geometry_type=geometries[0].geom_type,
        driver="GPKG",
        layer=layer,
        layer_metadata={key: str(value) for key, value in (metadata or {}).items()} or None,
    )
    write_bytes(path, content.getvalue())
