"""Polygons from outside, whose work is limited before geometry libraries see them: those cannot be interrupted."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.errors import ShapelyError

from pipeline.errors import MALFORMED, LandcoverError
from pipeline.untrusted.escape import for_terminal
from pipeline.untrusted.limits import INVALID_VERTICES, POLYGON_VERTICES

_MOST_COORDINATE = 1e9
"""Metres or degrees from the origin of any CRS: work on edges that are cut into pieces grows with their length."""


def check_polygons(polygons: Iterable[Any], where: object, error: type[LandcoverError]) -> None:
    """Raises `error` where a polygon has more vertices than the limits, or a coordinate that no place on Earth has.

    Args:
        polygons: shapely geometries; None is skipped.
        where: the file, for the message.
        error: class of the error.
    """
    for polygon in polygons:
        if polygon is None or polygon.is_empty:
            continue
        if not (np.abs(polygon.bounds) < _MOST_COORDINATE).all():
            raise error(f"{where}: a polygon has bounds {polygon.bounds}; expected degrees or metres on Earth")
        vertices = int(shapely.get_num_coordinates(polygon))
        POLYGON_VERTICES.check(vertices, where, error)
        # Testing takes no longer for more crossings, repairing and overlaying do.
        if vertices > INVALID_VERTICES.value and not shapely.is_valid(polygon):
            INVALID_VERTICES.check(vertices, where, error)


@contextmanager
def reading_features(
    path: Path | str, error: type[LandcoverError], *, expected: str = "polygons in a format of GDAL"
) -> Iterator[str]:
    """Gives `vector_file`'s name; what libraries find wrong with the file in the block becomes one `error` with it.

    Raises:
        LandcoverError: the file is virtual, cannot be read, or is damaged, of class `error`.
    """
    name = vector_file(path, error)
    try:
        yield name
    except (OSError, ShapelyError, *MALFORMED) as cause:
        text = " ".join(str(cause).split())[:300]
        raise error(
            f"{for_terminal(path)}: expected {expected}: {type(cause).__name__}: {for_terminal(text)}"
        ) from cause


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
