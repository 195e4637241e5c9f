"""`area_by_class`: hectares of each class by zone, and what a sample says of the truth behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from pipeline import legend
from pipeline.errors import ProductError
from pipeline.evaluation.area_estimation import Estimate, area_of
from pipeline.products.analysis.pixel_fractions import Floats
from pipeline.products.analysis.zonal import Counted, ZoneAreas, count_zones
from pipeline.products.assessment.reference_sample import InterpretedPoints, read_points
from pipeline.progress import SILENT, Progress

_M2_PER_HA = 10_000
_LEAST = 20
"""Sampled points that a zone must have of each class that is mapped on more than `_TRACE` of it: Olofsson et al. 2014
(section 5.1.2) take 20 to 100 for rare classes."""
_TRACE = 0.01

Asked = Sequence[str | int] | None


def area_by_class(
    counted: Counted,
    geometries: gpd.GeoDataFrame | Path | str,
    *,
    by: str | None = None,
    classes: Asked = None,
    sample: Path | str | None = None,
    progress: Progress = SILENT,
) -> gpd.GeoDataFrame:
    """Hectares of each class in each zone.

    Args:
        counted: the product.
        geometries: polygons with a CRS, or a file of them that GDAL reads. Their vertices are transformed; lines
            between them are straight on the map.
        by: an attribute; polygons that share its value are one zone, and what they share counts once.
        classes: names of groups and classes, slugs or FLAIR values; by default all classes that occur, then no group.
        sample: an interpreted sample of `landcover sample`: adds, for zones that it has points enough for, what is
            truly there, with a 95 % interval.
        progress: counts rows of blocks.

    Returns:
        One row a zone, indexed by `by`, in the product's CRS: the zones' attributes (of its first polygon), `area_ha`,
        `mapped_ha`, `no_data_ha`, `outside_ha`, and for each class or group `<slug>_ha` on the map's plane and
        `<slug>_ellipsoid_ha` on the ellipsoid. With a sample also `<slug>_adjusted_ha`, `…_low_ha`, `…_high_ha`, which
        are NaN in zones that the sample does not support, with the reason in `not_adjusted`.

    Raises:
        ProductError: geometries without a CRS or that are no polygons, no attribute `by`, or a product that cannot be
            read.
        ConfigError: a class or group that there is not.
    """
    zones = _zones(geometries, by, str(counted.geobox.crs))
    found = count_zones(counted, zones.geometry.to_numpy(), progress=progress)
    asked = _asked(classes, found)
    table = {
        "area_ha": zones.area.to_numpy() / _M2_PER_HA,
        "mapped_ha": found.plane_m2[:, 1:].sum(axis=1) / _M2_PER_HA,
        "no_data_ha": found.plane_m2[:, legend.NODATA] / _M2_PER_HA,
    }
    # Of zones that lie inside, rounding leaves a few square millimetres of either sign.
    table["outside_ha"] = np.maximum(0, (table["area_ha"] - found.plane_m2.sum(axis=1) / _M2_PER_HA).round(9))
    for slug, values in asked.items():
        table[f"{slug}_ha"] = found.plane_m2[:, values].sum(axis=1) / _M2_PER_HA
        table[f"{slug}_ellipsoid_ha"] = found.ellipsoid_m2[:, values].sum(axis=1) / _M2_PER_HA
    answered = zones.assign(**table)
    if sample is None:
        return answered
    points = read_points(Path(sample))
    rows = [_adjusted(g, found.plane_m2[k], points, asked) for k, g in enumerate(zones.geometry)]
    return answered.join(pd.DataFrame(rows, index=zones.index))


def _zones(geometries: gpd.GeoDataFrame | Path | str, by: str | None, crs: str) -> gpd.GeoDataFrame:
    """Valid polygons in the product's CRS, one row a zone."""
    given = geometries if isinstance(geometries, gpd.GeoDataFrame) else gpd.read_file(geometries)
    if given.crs is None:
        raise ProductError("the geometries have no CRS; set it with .set_crs(…)")
    if by is not None and by not in given.columns:
        raise ProductError(f"the geometries have no attribute {by!r}; there are {', '.join(map(str, given.columns))}")
    kinds = set(given.geom_type) - {"Polygon", "MultiPolygon"}
    if kinds or given.empty:
        raise ProductError(f"expected polygons; got {len(given)} geometries, {kinds or 'none'} among them")
    placed = given.to_crs(crs)
    placed = placed.set_geometry(shapely.make_valid(placed.geometry.to_numpy()), crs=crs)
    return placed if by is None else placed.dissolve(by=by)


def _asked(classes: Asked, found: ZoneAreas) -> dict[str, list[int]]:
    """Column name → FLAIR values."""
    if classes is None:
        classes = [c.value for c in legend.FLAIR if found.plane_m2[:, c.value].any()]
    names = [legend.BY_VALUE[c].slug if isinstance(c, int) and c in legend.BY_VALUE else str(c) for c in classes]
    return {n.lower().replace(" ", "_"): list(legend.members(c)) for n, c in zip(names, classes, strict=True)}


@dataclass(frozen=True)
class _Unsupported:
    """Why a sample says nothing of a zone."""

    reason: str


def _adjusted(
    zone: shapely.Geometry, plane_m2: Floats, points: InterpretedPoints, asked: Mapping[str, list[int]]
) -> dict[str, float | str]:
    """The added columns of one zone.

    A zone's points are a stratified random sample of the zone: given how many fell into each stratum of it, each of its
    pixels was as likely as another of its class.
    """
    row: dict[str, float | str] = {}
    supported = _supported(zone, plane_m2, points)
    for slug, values in asked.items():
        if isinstance(supported, _Unsupported):
            estimate = Estimate(float("nan"), float("nan"))
        else:
            classes, counts, mapped = supported
            estimate = area_of(counts, mapped, [k for k, v in enumerate(classes) if v in values])
        low, high = estimate.interval
        row[f"{slug}_adjusted_ha"] = estimate.value / _M2_PER_HA
        row[f"{slug}_low_ha"], row[f"{slug}_high_ha"] = low / _M2_PER_HA, high / _M2_PER_HA
    row["not_adjusted"] = supported.reason if isinstance(supported, _Unsupported) else ""
    return row


def _supported(
    zone: shapely.Geometry, plane_m2: Floats, points: InterpretedPoints
) -> tuple[tuple[int, ...], np.ndarray[tuple[int, ...], np.dtype[np.int64]], list[float]] | _Unsupported:
    """Classes, counts and mapped areas of a zone, or why there are too few points."""
    classes = tuple(sorted({*points.classes, *np.flatnonzero(plane_m2).tolist()} - {legend.NODATA}))
    counts = points.counts(classes, shapely.contains_xy(zone, points.xy))
    mapped = [float(plane_m2[v]) for v in classes]
    there = counts.sum(axis=1)
    whole = sum(mapped)
    for value, n, area in zip(classes, there, mapped, strict=True):
        least = _LEAST if area > _TRACE * whole else 2
        if area and n < least:
            name = legend.BY_VALUE[value].name
            return _Unsupported(f"{n} sampled points in {name}, mapped on {area / _M2_PER_HA:.4g} ha; needs {least}")
    return (classes, counts, mapped) if whole else _Unsupported("nothing is mapped here")
