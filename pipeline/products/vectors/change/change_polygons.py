"""Writes the polygons of a change: connected pixels that changed from one class to one other, none below a unit."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from pipeline import legend
from pipeline.durable import replacing
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.products.analysis.edition_change.change_store import PolygonCounts
from pipeline.products.analysis.edition_change.comparison import KINDS
from pipeline.products.analysis.edition_change.zones import Zoning
from pipeline.products.vectors.cells import BlockGrid
from pipeline.products.vectors.change.change_pixels import ChangePixels, kinds_of
from pipeline.products.vectors.coverage.blocks import Finished
from pipeline.products.vectors.coverage.regions import pixel_of
from pipeline.products.vectors.features import BBOX, common_columns, unfinished
from pipeline.products.vectors.geopackage import GEOMETRY, write_polygons
from pipeline.products.vectors.geoparquet import ROWS, read_polygons, write_geoparquet
from pipeline.products.vectors.tasks import VectorWork, sorted_polygons
from pipeline.products.vectors.vectorization import ForEach, trace

POLYGONS, POLYGONS_GPKG = "polygons.parquet", "polygons.gpkg"
_LAYER = "change"
_ZONES = {"département": "departement", "commune": "commune"}
"""Kind of zone → column."""
_ATTRIBUTES = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("change", pa.string(), nullable=False),
    pa.field("from", pa.uint8(), nullable=False),
    pa.field("to", pa.uint8(), nullable=False),
    pa.field("from_class", pa.string(), nullable=False),
    pa.field("to_class", pa.string(), nullable=False),
    pa.field("area_m2", pa.float64(), nullable=False),
    pa.field("area_ellipsoid_m2", pa.float64(), nullable=False),
    pa.field("confidence_mean", pa.float32(), nullable=False),
    pa.field("confidence_p10", pa.float32(), nullable=False),
    pa.field("edition_from", pa.int32(), nullable=False),
    pa.field("edition_to", pa.int32(), nullable=False),
]
_TRACED = pa.schema(
    [*_ATTRIBUTES, pa.field("bbox", BBOX, nullable=False), pa.field("geometry", pa.binary(), nullable=False)]
)
SCHEMA = pa.schema([*_ATTRIBUTES, *(pa.field(name, pa.string()) for name in _ZONES.values()), *list(_TRACED)[-2:]])
_GPKG_SCHEMA = pa.schema(
    [
        # GeoPackages have no unsigned integers.
        *(f.with_type(pa.int16()) if f.type == pa.uint8() else f for f in list(SCHEMA)[:-2]),
        GEOMETRY,
    ]
)


@dataclass(frozen=True)
class ChangedPlaces:
    """Makes the polygons of a change, and leaves out those that are smaller than the unit."""

    first: int
    """Number of the earlier edition."""
    second: int
    crs: str
    unit_m2: float

    @property
    def schema(self) -> pa.Schema:
        """Of the polygons, before they have zones."""
        return _TRACED

    def to_table(self, finished: Finished) -> pa.Table:
        """The polygons of finished regions."""
        number = len(finished.rings)
        if not number:
            return unfinished(_TRACED).empty_table()
        (row, col), (kind, before, after) = pixel_of(finished.first), kinds_of(finished.classes)
        corners = zip(col.tolist(), (-row).tolist(), before.tolist(), after.tolist(), strict=True)
        columns: dict[str, Any] = {
            "id": [f"{x}-{y}-{a}-{b}" for x, y, a, b in corners],
            "change": [KINDS[k] for k in kind.tolist()],
            "from": before.astype(np.uint8),
            "to": after.astype(np.uint8),
            "from_class": [legend.BY_VALUE[value].name for value in before.tolist()],
            "to_class": [legend.BY_VALUE[value].name for value in after.tolist()],
            "edition_from": np.full(number, self.first, np.int32),
            "edition_to": np.full(number, self.second, np.int32),
        }
        table = pa.table(columns | common_columns(finished, self.crs), schema=unfinished(_TRACED))
        # Areas are whole pixels, rounded to a ten-thousandth.
        return table.filter(pc.greater_equal(table["area_m2"], self.unit_m2 - 1e-4))


def trace_change(
    folder: Path, pixels: ChangePixels, windows: Sequence[Window], places: ChangedPlaces, for_each: ForEach
) -> tuple[VectorWork, list[int]]:
    """Traces the changed places, to the pixel; returns the work, and its parts that have polygons.

    Args:
        folder: a new one, for what passes between tasks.
        pixels: the raster of the change.
        windows: from `changed_windows`.
        places: makes the polygons.
        for_each: runs the tasks.

    Raises:
        ProductError: a file cannot be read.
        StorageError: a file cannot be written.
    """
    blocks = BlockGrid.of(windows or [pixels.grid.extent], tile=pixels.grid.tile)
    work = VectorWork(folder, pixels, blocks, places, tolerance=0)
    return work, trace(work, windows, for_each) if windows else []


def write_change_polygons(
    folder: Path, work: VectorWork, parts: Sequence[int], zonings: Sequence[Zoning]
) -> dict[tuple[str, int], PolygonCounts]:
    """Writes the traced polygons as GeoParquet and as a GeoPackage.

    Args:
        folder: of the change.
        work: that traced them.
        parts: that have polygons.
        zonings: kinds of zones; a polygon belongs to the zone that has most of it.

    Returns:
        (kind of zone, number) → its polygons; (`all`, 0) has all.

    Raises:
        ProductError: a file cannot be read.
        StorageError: a file cannot be written.
    """
    found: dict[tuple[str, int], PolygonCounts] = {("all", 0): PolygonCounts.none()}

    def tables() -> Iterator[pa.Table]:
        for table in _in_groups(table for part in parts for table in sorted_polygons(work, part)):
            numbers = _zones_of(table, zonings)
            _add(found, table, numbers)
            yield _named(table, zonings, numbers)

    with replacing(folder / POLYGONS) as temporary:
        write_geoparquet(temporary, tables(), schema=SCHEMA, crs=work.origin.crs)
    write_polygons(
        folder / POLYGONS_GPKG, _rows(folder / POLYGONS), schema=_GPKG_SCHEMA, layer=_LAYER, crs=work.origin.crs
    )
    return found


def _in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Joins small tables: changed places are few."""
    read: list[pa.Table] = []
    for table in tables:
        read.append(table)
        if sum(map(len, read)) >= ROWS:
            yield pa.concat_tables(read)
            read.clear()
    if read:
        yield pa.concat_tables(read)


def _zones_of(table: pa.Table, zonings: Sequence[Zoning]) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Kind of zone → the number of each polygon's zone, 0 for none."""
    if not zonings:
        return {}
    polygons = shapely.from_wkb(table["geometry"].to_numpy())
    return {zoning.kind: zoning.holding(polygons) for zoning in zonings}


def _named(table: pa.Table, zonings: Sequence[Zoning], numbers: dict[str, Any]) -> pa.Table:
    columns = {name: table[name] for name in table.column_names}
    columns |= {column: pa.nulls(len(table), pa.string()) for column in _ZONES.values()}
    for zoning in zonings:
        names = pa.array([None, *zoning.names], pa.string())
        columns[_ZONES[zoning.kind]] = names.take(pa.array(numbers[zoning.kind]))
    return pa.table(columns, schema=SCHEMA)


def _add(found: dict[tuple[str, int], PolygonCounts], table: pa.Table, numbers: dict[str, Any]) -> None:
    """Counts polygons and their pixels by zone and kind of change."""
    kinds = [table[name].to_pylist() for name in ("change", "from", "to")]
    changes = list(zip(*kinds, strict=True))
    pixels = np.round(table["area_m2"].to_numpy() * PIXELS_PER_M**2).astype(np.int64).tolist()
    everywhere = np.zeros(len(table), np.int64)
    for kind, zones in {"all": everywhere, **numbers}.items():
        for zone, change, area in zip(zones.tolist(), changes, pixels, strict=True):
            if zone or kind == "all":
                own = found.setdefault((kind, zone), PolygonCounts.none())
                own.polygons[change] += 1
                own.pixels[change] += area


def _rows(path: Path) -> Iterator[pa.RecordBatch]:
    for rows in read_polygons(path):
        columns = [rows["geometry" if f.name == GEOMETRY.name else f.name].cast(f.type) for f in _GPKG_SCHEMA]
        yield pa.record_batch(columns, schema=_GPKG_SCHEMA)
