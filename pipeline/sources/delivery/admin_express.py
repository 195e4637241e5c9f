"""Finds the polygon of a département in ADMIN EXPRESS, or in another file of all départements."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely

from pipeline.domain import normal_departement
from pipeline.errors import DeliveryError
from pipeline.sources.delivery.names import files_below

_SUFFIXES = (".gpkg", ".shp", ".geojson")
_FILE = re.compile(r"ADMIN[-_ ]?EXPRESS|\bADE[-_]|DEPARTEMENT", re.IGNORECASE)
"""In the name of the file."""
_FOLDER = re.compile(r"ADMIN[-_ ]?EXPRESS", re.IGNORECASE)
"""In the name of a folder above it: the file itself is named `ADE_4-0_GPKG_LAMB93_FXX-ED2025-01-15.gpkg`."""
_LAYER = re.compile(r"departements?([-_].*)?", re.IGNORECASE)
_CODES = ("INSEE_DEP", "CODE_INSEE", "CODE_DEP", "CODE")
"""Fields with the number of the département: ADMIN EXPRESS 1 to 3, ADMIN EXPRESS 4, and files made from them."""


@dataclass(frozen=True)
class BoundaryFeature:
    """The polygon of a département."""

    path: Path
    """The file that has it."""
    geojson: dict[str, Any]
    """A FeatureCollection of one feature, with the member `crs` unless it is in EPSG:4326."""


def find_boundary(folders: Iterable[Path], departement: str) -> BoundaryFeature | None:
    """Looks for a département's polygon below folders; the file whose name sorts last is used, usually the newest.

    Args:
        folders: where ADMIN EXPRESS may lie, as a GeoPackage or Shapefile.
        departement: `34`, `2A`, as `Domain.departement` gives it.

    Returns:
        The polygon; None where no file of départements has it.

    Raises:
        DeliveryError: a folder cannot be listed, or such a file cannot be read.
    """
    candidates = sorted(
        {p for p in files_below(folders, _SUFFIXES) if _FILE.search(p.name) or any(map(_FOLDER.search, p.parts))}
    )
    for path in sorted(candidates, key=lambda p: (p.name, str(p)), reverse=True):
        if polygon := _read(path, departement):
            return BoundaryFeature(path, polygon)
    return None


def _read(path: Path, departement: str) -> dict[str, Any] | None:
    """The polygon as GeoJSON; None where the file has no layer of départements, or not this one."""
    # Importing pyogrio imports geopandas, which no worker and no plan needs.
    import pyogrio

    from pipeline.untrusted.vector_files import reading_features

    with reading_features(path, DeliveryError, expected="polygons of départements") as name:
        for layer, _ in pyogrio.list_layers(name):
            fields = {str(f).upper(): str(f) for f in pyogrio.read_info(name, layer=layer)["fields"]}
            code = next((fields[c] for c in _CODES if c in fields), None)
            if code is None or not _LAYER.fullmatch(str(layer)):
                continue
            # Numbers first: the polygons of all départements are a hundred megabytes.
            _, numbered = pyogrio.read_arrow(name, layer=layer, columns=[code], read_geometry=False, return_fids=True)
            rows = zip(numbered.column(0).to_pylist(), numbered.column(code).to_pylist(), strict=True)
            fids = [fid for fid, value in rows if normal_departement(str(value)) == departement]
            if fids:
                meta, _, geometry, _ = pyogrio.raw.read(name, layer=layer, columns=[], fids=fids)
                joined = shapely.union_all([shapely.make_valid(g) for g in shapely.from_wkb(geometry)])
                return _geojson(shapely.geometry.mapping(shapely.force_2d(joined)), str(meta["crs"] or "EPSG:4326"))
    return None


def _geojson(geometry: Any, crs: str) -> dict[str, Any]:
    """A FeatureCollection; the member `crs` of the older GeoJSON says where it is not in degrees."""
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    own = {} if crs == "EPSG:4326" else {"crs": {"type": "name", "properties": {"name": crs}}}
    return {"type": "FeatureCollection", **own, "features": [feature]}


def boundary_file(folder: Path, departement: str) -> Path:
    """The GeoJSON of a département's boundary in a folder: `boundaries/D034.geojson`."""
    return folder / "boundaries" / f"D{departement.zfill(3)}.geojson"
