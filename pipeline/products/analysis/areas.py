"""The table of `cover.area_by_class`: hectares of each class by zone, and estimates of true areas from a sample."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from pipeline import legend
from pipeline.errors import EvaluationError, ProductError
from pipeline.evaluation.area_estimation import Estimate, area_of
from pipeline.evaluation.model_assisted import composite_areas
from pipeline.products.analysis.cell_and_edge_counts import ZoneAreas
from pipeline.products.analysis.pixel_fractions import Floats
from pipeline.products.assessment.reference_sample import InterpretedSample
from pipeline.untrusted.polygons import check_polygons
from pipeline.untrusted.vector_files import reading_features

_M2_PER_HA = 10_000
_LEAST = 20
"""Least number of sampled points in a zone for each class with more than `_TRACE` of its area: Olofsson et al. 2014
(section 5.1.2) take 20 to 100 for rare classes."""
_TRACE = 0.01

Classes = Sequence[str | int] | None
"""Names of groups and classes, slugs or FLAIR values; None for all classes that occur."""


def in_crs(
    geometries: gpd.GeoDataFrame | gpd.GeoSeries, crs: str, where: str = "the geometries"
) -> gpd.GeoDataFrame | gpd.GeoSeries:
    """Geometries in the product's CRS.

    Raises:
        ProductError: they have no CRS, or one has more vertices than the limits.
    """
    check_polygons(geometries.geometry, where, ProductError)
    if geometries.crs is None:
        raise ProductError(f"{where}: no CRS; set it with .set_crs(…)")
    return geometries.to_crs(crs)


def read_zones(geometries: gpd.GeoDataFrame | Path | str, by: str | None, crs: str) -> gpd.GeoDataFrame:
    """Valid polygons in the product's CRS, one row a zone.

    Raises:
        ProductError: the geometries have no CRS, are not polygons or lack the attribute `by`.
    """
    if isinstance(geometries, gpd.GeoDataFrame):
        return _zones(geometries, by, crs, "the geometries")
    with reading_features(geometries, ProductError) as name:
        return _zones(gpd.read_file(name), by, crs, name)


def _zones(given: gpd.GeoDataFrame, by: str | None, crs: str, where: str) -> gpd.GeoDataFrame:
    if by is not None and by not in given.columns:
        raise ProductError(f"{where}: no attribute {by!r}; there are {', '.join(map(str, given.columns))}")
    kinds = set(map(str, given.geom_type)) - {"Polygon", "MultiPolygon"}
    if kinds or given.empty:
        raise ProductError(
            f"{where}: expected polygons, found {len(given)} geometries, of other types: {', '.join(kinds) or 'none'}"
        )
    placed = in_crs(given, crs, where)
    placed = placed.set_geometry(shapely.make_valid(placed.geometry.to_numpy()), crs=crs)
    return placed if by is None else placed.dissolve(by=by)


def class_columns(classes: Classes, found: ZoneAreas) -> dict[str, list[int]]:
    """Column name → FLAIR values.

    Raises:
        ConfigError: an unknown class or group.
    """
    if classes is None:
        classes = [c.value for c in legend.FLAIR if found.plane_m2[:, c.value].any()]
    names = [legend.BY_VALUE[c].slug if isinstance(c, int) and c in legend.BY_VALUE else str(c) for c in classes]
    return {n.lower().replace(" ", "_"): list(legend.members(c)) for n, c in zip(names, classes, strict=True)}


def measured(zones: gpd.GeoDataFrame, found: ZoneAreas, columns: Mapping[str, list[int]]) -> gpd.GeoDataFrame:
    """The zones with their hectares: whole, mapped, without data, outside the product, and of each column."""
    table = {
        "area_ha": zones.area.to_numpy() / _M2_PER_HA,
        "mapped_ha": found.plane_m2[:, 1:].sum(axis=1) / _M2_PER_HA,
        "no_data_ha": found.plane_m2[:, legend.NODATA] / _M2_PER_HA,
    }
    # Zones inside the product have a few square millimetres of either sign from rounding.
    table["outside_ha"] = np.maximum(0, (table["area_ha"] - found.plane_m2.sum(axis=1) / _M2_PER_HA).round(9))
    for slug, values in columns.items():
        table[f"{slug}_ha"] = found.plane_m2[:, values].sum(axis=1) / _M2_PER_HA
        table[f"{slug}_ellipsoid_ha"] = found.ellipsoid_m2[:, values].sum(axis=1) / _M2_PER_HA
    return zones.assign(**table)


def adjusted(
    zones: gpd.GeoDataFrame,
    found: ZoneAreas,
    points: InterpretedSample,
    columns: Mapping[str, list[int]],
    *,
    composite: bool = False,
) -> pd.DataFrame:
    """Estimates of the zones' true areas from a sample, as further columns.

    Args:
        zones: from `read_zones`.
        found: their areas on the map.
        points: the sample.
        columns: from `class_columns`.
        composite: estimate zones with too few points by the model of `composite_areas`.

    Raises:
        EvaluationError: the model cannot be fitted to the sample.
    """
    rows = [_adjusted(g, found.plane_m2[k], points, columns) for k, g in enumerate(zones.geometry)]
    table = pd.DataFrame(rows, index=zones.index)
    return _with_composite(table, zones, found, points, columns) if composite else table


def _with_composite(
    table: pd.DataFrame,
    zones: gpd.GeoDataFrame,
    found: ZoneAreas,
    points: InterpretedSample,
    columns: Mapping[str, list[int]],
) -> pd.DataFrame:
    """The table with model-based estimates where a zone has too few points; `estimated_by` says which ones."""
    few = (table["not_adjusted"] != "").to_numpy() & (found.plane_m2[:, 1:].sum(axis=1) > 0)
    if points.cluster is not None:
        raise EvaluationError("the composite model is for points drawn one by one, and this sample has clusters")
    mapped = found.plane_m2[:, 1:].any(axis=0)
    classes = tuple(sorted({*points.classes, *(np.flatnonzero(mapped) + 1).tolist()}))
    if few.any():
        there = [shapely.contains_xy(g, points.xy) for g in zones.geometry]
        counts = np.stack([points.counts(classes, inside) for inside in there])
        whole = points.counts(classes)
        for slug, values in columns.items():
            members = [k for k, value in enumerate(classes) if value in values]
            own = composite_areas(counts, found.plane_m2[:, classes], whole, members).estimates
            for k in np.flatnonzero(few).tolist():
                row = (own[k].value, *own[k].interval)
                names = [f"{slug}_adjusted_ha", f"{slug}_low_ha", f"{slug}_high_ha"]
                # By position: labels of zones may occur twice.
                table.iloc[k, table.columns.get_indexer(names)] = [v / _M2_PER_HA for v in row]
    by = np.where(few, "composite model", np.where(table["not_adjusted"] == "", "points in the zone", ""))
    return table.assign(estimated_by=by)


def _adjusted(
    zone: shapely.Geometry, plane_m2: Floats, points: InterpretedSample, columns: Mapping[str, list[int]]
) -> dict[str, float | str]:
    """The added columns of one zone.

    The points in a zone are a stratified random sample of the zone: given their number in each class, all pixels of the
    class in the zone were drawn with the same probability.
    """
    row: dict[str, float | str] = {}
    supported = _supported(zone, plane_m2, points)
    for slug, values in columns.items():
        if isinstance(supported, str):
            estimate = Estimate(*(float("nan"),) * 4)
        else:
            classes, counts, mapped = supported
            estimate = area_of(
                counts, mapped, [k for k, v in enumerate(classes) if v in values], complete=points.complete(classes)
            )
        low, high = estimate.interval
        row[f"{slug}_adjusted_ha"] = estimate.value / _M2_PER_HA
        row[f"{slug}_low_ha"], row[f"{slug}_high_ha"] = low / _M2_PER_HA, high / _M2_PER_HA
    row["not_adjusted"] = supported if isinstance(supported, str) else ""
    return row


def _supported(
    zone: shapely.Geometry, plane_m2: Floats, points: InterpretedSample
) -> tuple[tuple[int, ...], np.ndarray[tuple[int, ...], np.dtype[np.int64]], list[float]] | str:
    """Classes, counts and mapped areas of a zone, or why there are too few points."""
    classes = tuple(sorted({*points.classes, *np.flatnonzero(plane_m2).tolist()} - {legend.NODATA}))
    counts = points.counts(classes, shapely.contains_xy(zone, points.xy))
    mapped = [float(plane_m2[v]) for v in classes]
    by_cluster = counts.sum(axis=-1).reshape(-1, len(classes))
    there, clusters = by_cluster.sum(axis=0), (by_cluster > 0).sum(axis=0)
    whole, complete = sum(mapped), [classes[k] for k in points.complete(classes)]
    for value, n, own, area in zip(classes, there, clusters, mapped, strict=True):
        least, name = _LEAST if area > _TRACE * whole else 2, legend.BY_VALUE[value].name
        if area and n < least and not (n and value in complete):
            return f"{n} sampled points in {name}, mapped on {area / _M2_PER_HA:.4g} ha; needs {least}"
        if area and points.cluster is not None and own < 2:
            return f"all sampled points in {name} lie in one cluster; needs two"
    return (classes, counts, mapped) if whole else "nothing is mapped here"
