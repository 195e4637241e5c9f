"""Class shares of a campaign's zones, such as communes, from the share cube: what the map page lists.

The cube has cells of 100 m. One on a zone's edge counts by its share inside, as if its classes were mixed evenly. So
large areas are exact, and narrow ones less so; `cover.area_by_class` counts pixels along edges.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.errors import ProductError
from pipeline.fingerprint import digest, file_sha256
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.products.analysis.areas import read_zones
from pipeline.products.analysis.dataset_geobox import in_pixels, window_touched
from pipeline.products.analysis.lazy_zarr import open_group
from pipeline.products.analysis.pixel_fractions import fractions
from pipeline.products.national.edition_record import Edition
from pipeline.products.national.pyramid.downsample import CLASSES
from pipeline.products.national.pyramid.levels import SHARES, groups, pyramid_of
from pipeline.untrusted.documents import DocumentError, read_json

MOST_ZONES = 5_000
"""Rows of a page's table: more than a département has communes."""
_VERSION = 1
"""Raise it when the same inputs give another content."""
_TOLERANCE_M = 10.0
"""An outline's points may move by so much; shares are counted with all points."""


def zone_table(edition: Edition, zones: Path, name: str, *, former: Path) -> dict[str, Any]:
    """The zones with the pixels of each class, as JSON-able content.

    Args:
        edition: finished, with a share cube.
        zones: a file of polygons with a CRS.
        name: attribute with their names.
        former: a file with the former content, which is returned if it was made from the same inputs.

    Returns:
        `source`, a hash of the inputs; `title`, the file's name; `pixel_m2`; and `zones`, sorted by name, each with
        `name`, `pixels` of the classes 0..19 (0 is no data) and the `rings` of its outline, [x, y, x, y, …] in metres.
        Zones that lie outside of all tiles are left out.

    Raises:
        ProductError: the file cannot be read, has no attribute of this name, too many polygons, or the edition has no
            share cube, because 100 m do not divide its tiles.
    """
    if SHARES not in groups(edition.grid):
        raise ProductError(f"{edition.path}: has no class shares for output.zones: its tiles are no multiple of 100 m")
    if not zones.is_file():
        raise ProductError(f"{zones}: no such file; output.zones names a file of polygons")
    source = digest([_VERSION, file_sha256(zones), name, edition.metadata, sorted(edition.digests.items())])
    try:
        kept = read_json(former)
        if isinstance(kept, dict) and kept.get("source") == source:
            return kept
    except (FileNotFoundError, DocumentError):
        pass
    found = _read(zones, name, edition.grid.crs)
    table = [
        {"name": zone, "pixels": counts, "rings": _rings(outline)}
        for (zone, outline), counts in zip(found, _counted(edition, [g for _, g in found]), strict=True)
        if sum(counts)
    ]
    return {"source": source, "title": zones.stem, "pixel_m2": 1 / PIXELS_PER_M**2, "zones": table}


def _read(path: Path, name: str, crs: str) -> list[tuple[str, shapely.Geometry]]:
    zones: gpd.GeoDataFrame = read_zones(path, None, crs)
    if name not in zones.columns:
        raise ProductError(
            f"{path}: no attribute {name!r}; set output.zones_name to one of {', '.join(map(str, zones.columns))}"
        )
    if len(zones) > MOST_ZONES:
        raise ProductError(f"{path}: {len(zones)} polygons; the map page lists at most {MOST_ZONES}")
    return sorted(zip(zones[name].astype(str), zones.geometry, strict=True), key=lambda zone: zone[0])


def _counted(edition: Edition, outlines: list[shapely.Geometry]) -> Iterator[list[int]]:
    """Pixels of each class in each outline, rounded."""
    geobox = groups(edition.grid)[SHARES].geobox
    cube = open_group(pyramid_of(edition.path), SHARES)["count"]
    for outline in outlines:
        window = window_touched(geobox, outline.bounds)
        if not window.pixels:
            yield [0] * CLASSES
            continue
        rows, cols = window.slices
        cells: NDArray[np.uint32] = cube.isel(y=rows, x=cols).to_numpy()
        inside = _inside(in_pixels(geobox, outline), window)
        yield np.rint((cells * inside).sum(axis=(1, 2))).astype(int).tolist()


def _inside(outline: shapely.Geometry, window: Window) -> NDArray[np.float64]:
    """The share of each cell of a window that lies in an outline, in cells of the cube."""
    moved = shapely.transform(outline, lambda xy: xy - np.array([window.col, window.row]))
    return fractions(moved, window.shape).clip(0, 1)


def _rings(outline: shapely.Geometry) -> list[list[int]]:
    rings = shapely.get_rings(shapely.get_parts(shapely.simplify(outline, _TOLERANCE_M)))
    return [[round(v) for v in shapely.get_coordinates(ring).ravel().tolist()] for ring in rings]
