"""Writes GeoPackages, with bytes that do not depend on the time."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import geopandas as gpd
import pyogrio

from pipeline.durable import write_bytes

_OPTIONS = {
    # GeoPackages note when they were written. A fixed time gives equal files the same bytes.
    "OGR_CURRENT_DATE": "2000-01-01T00:00:00Z",
    # Some two million places; by default a tenth of the machine's memory. More are indexed in the file.
    "OGR_GPKG_MAX_RAM_USAGE_RTREE": str(100_000_000),
}
_OPTIONS_ARE_SET = Lock()
"""GDAL takes options from the process, so threads write one after the other."""


@contextmanager
def same_bytes() -> Iterator[None]:
    """Sets what makes GDAL write equal GeoPackages with the same bytes, on any machine and at any time."""
    with _OPTIONS_ARE_SET:
        pyogrio.set_gdal_config_options(_OPTIONS)
        try:
            yield
        finally:
            pyogrio.set_gdal_config_options(dict.fromkeys(_OPTIONS))


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
    with same_bytes():
        pyogrio.write_dataframe(features, content, driver="GPKG", layer=layer, layer_metadata=metadata)
    write_bytes(path, finish(content.getvalue()) if finish else content.getvalue())
