"""Fields that STAC items of input tiles and of sealed tiles have in common, as JSON-able values."""

from datetime import UTC, date, datetime, time
from functools import cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from pipeline.grid import Window

_SHA256 = "1220"
"""Multihash prefix: function sha2-256 (0x12), 32 bytes (0x20)."""
_DENSIFY_M = 1000.0
"""A tile's edge is bent in longitude and latitude; a vertex each kilometre keeps it within 2 cm."""


def extension_schemas(*names: str) -> list[str]:
    """The schemas by which an item declares its extensions: `file/v2.1.0` → its URL."""
    return [f"https://stac-extensions.github.io/{name}/schema.json" for name in names]


def footprint(window: Window, crs: str) -> tuple[dict[str, Any], list[float]]:
    """GeoJSON polygon (counter-clockwise) and bbox of a lattice window, in degrees of WGS 84.

    Args:
        window: on the lattice.
        crs: `EPSG:…` of the lattice.
    """

    def to_degrees(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) x, y in metres → (n, 2) longitude, latitude to 1 mm."""
        return np.column_stack(_transformer(crs).transform(xy[:, 0], xy[:, 1])).round(8)

    box = shapely.box(*window.bounds).segmentize(_DENSIFY_M)
    degrees = shapely.orient_polygons(shapely.transform(box, to_degrees))
    return dict(shapely.geometry.mapping(degrees)), [float(v) for v in degrees.bounds]


@cache
def _transformer(crs: str) -> Transformer:
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def projection(window: Window, crs: str) -> dict[str, Any]:
    """The projection extension's fields of a raster over a lattice window."""
    return {
        "proj:code": crs,
        "proj:shape": list(window.shape),
        "proj:transform": list(window.transform),
        "proj:bbox": list(window.bounds),
    }


def time_span(days: tuple[date, date] | None, *, year: int) -> tuple[datetime, datetime | None, datetime]:
    """(start, middle, end) in UTC.

    Args:
        days: first and last day of acquisition; None where only the vintage is known: then there is no middle.
        year: the vintage.
    """
    first, last = days or (date(year, 1, 1), date(year, 12, 31))
    start, end = datetime.combine(first, time(), UTC), datetime.combine(last, time(23, 59, 59), UTC)
    return start, start + (end - start) // 2 if days else None, end


def origin_fields(*, licence: str, attribution: str = "", citation: str = "", doi: str = "") -> dict[str, Any]:
    """Licence, providers, attribution and citation; what is empty is left out."""
    given = {
        "license": licence,
        "providers": providers(attribution),
        "sci:citation": citation,
        "sci:doi": doi,
        "landcover:attribution": attribution,
    }
    return {key: value for key, value in given.items() if value}


def providers(attribution: str) -> list[dict[str, Any]]:
    """STAC providers of `IGN, BD ORTHO 2021; A region`: the name before each product, once."""
    producers = dict.fromkeys(part.partition(",")[0].strip() for part in attribution.split(";"))
    return [{"name": name, "roles": ["producer", "licensor"]} for name in producers if name]


def checksum(sha256: str) -> str:
    """The multihash of a SHA-256 in hexadecimal, as `file:checksum` has it."""
    return _SHA256 + sha256


def sha256_of(given: str) -> str:
    """The SHA-256 in a `file:checksum`.

    Raises:
        ValueError: the checksum is another multihash.
    """
    if not given.startswith(_SHA256) or len(given) != 68:
        raise ValueError(f"file:checksum {given!r} is not a SHA-256 multihash")
    return given.removeprefix(_SHA256)
