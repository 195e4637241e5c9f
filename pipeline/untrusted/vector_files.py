"""The one way in which files of polygons or points from outside are opened: known formats, and no requests."""

import ctypes
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pyogrio._io
from pyogrio.util import vsi_path
from shapely.errors import ShapelyError

from pipeline.errors import MALFORMED, LandcoverError
from pipeline.untrusted.documents import DocumentError, parse_json, read_bytes
from pipeline.untrusted.escape import for_terminal
from pipeline.untrusted.own_files import open_regular

_SIGNATURES = (b"SQLite format 3\0", b"\0\0\x27\x0a", b"fgb")
"""First bytes of a GeoPackage, a Shapefile and a FlatGeobuf."""
_GEOJSON = (
    *("FeatureCollection", "Feature", "GeometryCollection"),
    *(many + kind for many in ("", "Multi") for kind in ("Point", "LineString", "Polygon")),
)
_OPTIONS = {
    b"CPL_VSIL_CURL_ALLOWED_FILENAME": b"/vsicurl/none",
    # A table of an SQLite file may otherwise be any data set anywhere.
    b"OGR_SQLITE_STATIC_VIRTUAL_OGR": b"NO",
}


@contextmanager
def reading_features(path: Path | str, error: type[LandcoverError], *, expected: str = "polygons") -> Iterator[str]:
    """Gives the name of a file for pyogrio, which sends no request while the block reads it.

    Args:
        path: a GeoPackage, Shapefile, FlatGeobuf or GeoJSON, by its content. These formats name no other file.
        error: class of the error.
        expected: what is read, for messages.

    Raises:
        LandcoverError: it has another format, cannot be read, or a library in the block finds something wrong with it.
    """
    name = os.path.abspath(path)  # noqa: PTH100  (resolves `..`, and no symbolic links)
    try:
        _check_format(name)
    except (OSError, DocumentError) as cause:
        raise error(
            f"{for_terminal(path)}: {getattr(cause, 'strerror', None) or cause}; expected {expected} in a GeoPackage, "
            "Shapefile, FlatGeobuf or GeoJSON file: ogr2ogr makes a GeoPackage of others"
        ) from cause
    with errors_named(path, error, expected=expected), _no_requests():
        yield name


@contextmanager
def errors_named(path: Path | str, error: type[LandcoverError], *, expected: str) -> Iterator[None]:
    """Raises `error` with the file's name for what libraries find wrong with its content in the block."""
    try:
        yield
    except (OSError, ShapelyError, *MALFORMED) as cause:
        text = " ".join(str(cause).split())[:300]
        raise error(
            f"{for_terminal(path)}: expected {expected}: {type(cause).__name__}: {for_terminal(text)}"
        ) from cause


@contextmanager
def _no_requests() -> Iterator[None]:
    gdal = _pyogrios_gdal()
    for option, value in _OPTIONS.items():
        gdal.CPLSetThreadLocalConfigOption(option, value)
    try:
        yield
    finally:
        for option in _OPTIONS:
            gdal.CPLSetThreadLocalConfigOption(option, None)


def _check_format(name: str) -> None:
    if vsi_path(name) != name or name.lower().startswith("/vsi"):
        raise DocumentError("is a file inside another one, or one of GDAL's virtual files")
    with open_regular(Path(name)) as file:
        head = file.read(16)
    if head.startswith(_SIGNATURES):
        return
    if not head.lstrip(b"\xef\xbb\xbf\t\r\n ").startswith(b"{"):
        raise DocumentError("has another format, or names other files or servers")
    content = read_bytes(Path(name))
    if parse_json(content).get("type") not in _GEOJSON:
        raise DocumentError("is not GeoJSON")
    json.loads(content, object_hook=_check_crs)


def _check_crs(found: dict[str, Any]) -> dict[str, Any]:
    """Refuses a CRS that is the address of its definition, to which GDAL would send a request.

    Args:
        found: any object of the file.
    """
    for name, crs in found.items():
        if name.lower() == "crs" and crs and not (isinstance(crs, dict) and crs.get("type") == "name"):
            raise DocumentError("has a CRS that is a link")
    return found


@cache
def _pyogrios_gdal() -> ctypes.CDLL:
    """The GDAL of pyogrio, which is another library than rasterio's, and has options of its own."""
    gdal = ctypes.CDLL(pyogrio._io.__file__)  # noqa: SLF001  (the extension module itself)
    gdal.CPLSetThreadLocalConfigOption.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    return gdal
