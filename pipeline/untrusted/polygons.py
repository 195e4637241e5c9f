"""Polygons from outside, whose work is limited before geometry libraries see them: those cannot be interrupted."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import shapely

from pipeline.errors import LandcoverError
from pipeline.untrusted.escape import for_terminal
from pipeline.untrusted.limits import INVALID_VERTICES, POLYGON_VERTICES


def check_polygons(polygons: Iterable[Any], where: object, error: type[LandcoverError]) -> None:
    """Raises `error` where a polygon has more vertices than the limits.

    Args:
        polygons: shapely geometries; None is skipped.
        where: the file, for the message.
        error: class of the error.
    """
    for polygon in polygons:
        if polygon is None:
            continue
        vertices = int(shapely.get_num_coordinates(polygon))
        POLYGON_VERTICES.check(vertices, where, error)
        # Testing takes no longer for more crossings, repairing and overlaying do.
        if vertices > INVALID_VERTICES.value and not shapely.is_valid(polygon):
            INVALID_VERTICES.check(vertices, where, error)


def vector_file(path: Path | str, error: type[LandcoverError]) -> str:
    """The absolute path of a file of polygons or points, which is neither virtual nor the description of a service.

    Raises:
        LandcoverError: it is one, of class `error`; a file that cannot be read is left to its reader.
    """
    name = os.path.abspath(path)  # noqa: PTH100  (resolves `..`, and no symbolic links)
    try:
        with Path(name).open("rb") as file:
            head = file.read(1024)
    except OSError:
        head = b""
    if name.lower().startswith("/vsi") or b"<OGR" in head:
        raise error(
            f"{for_terminal(path)}: names other files or servers; expected the geometries themselves: ogr2ogr makes a "
            "GeoPackage of them"
        )
    return name
