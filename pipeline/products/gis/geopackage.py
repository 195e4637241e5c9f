"""Writes GeoPackages."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import geopandas as gpd
import pyogrio

from pipeline.durable import write_bytes


def write_geopackage(
    path: Path,
    features: gpd.GeoDataFrame,
    *,
    layer: str,
    metadata: Mapping[str, str] | None = None,
    finish: Callable[[bytes], bytes] | None = None,
) -> None:
    """Writes one layer.

    Args:
        path: the file; it appears whole or not at all.
        features: at least one, with a CRS and geometries of one type.
        layer: its name.
        metadata: of the layer.
        finish: adds to the content of the file before it is written.

    Raises:
        StorageError: it cannot be written.
    """
    # In memory first: SQLite locks files, which shared file systems may not support, and GDAL writes no GeoPackage
    # under a temporary name.
    content = io.BytesIO()
    pyogrio.write_dataframe(features, content, driver="GPKG", layer=layer, layer_metadata=metadata)
    write_bytes(path, finish(content.getvalue()) if finish else content.getvalue())
