"""Polygons with their attributes, as Arrow tables."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from pipeline import legend
from pipeline.durable import replacing
from pipeline.errors import product_error
from pipeline.products.national.edition_record import Edition
from pipeline.products.vectors.coverage.blocks import FIRST_DOMAIN, Counts, Finished
from pipeline.products.vectors.coverage.regions import Ints, pixel_of
from pipeline.products.vectors.hilbert import PART_BITS, SORT_BITS, hilbert, square_of
from pipeline.untrusted.documents import read_json

PLACE = "place"
"""Column of unfinished tables by which polygons are sorted."""
BBOX = pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("landcover", pa.uint8(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("area_m2", pa.float64(), nullable=False),
        pa.field("area_ellipsoid_m2", pa.float64(), nullable=False),
        pa.field("confidence_mean", pa.float32(), nullable=False),
        pa.field("confidence_p10", pa.float32(), nullable=False),
        pa.field("domain", pa.string()),
        pa.field("date", pa.string()),
        pa.field("edition", pa.int32(), nullable=False),
        pa.field("bbox", BBOX, nullable=False),
        pa.field("geometry", pa.binary(), nullable=False),
    ]
)


def unfinished(schema: pa.Schema) -> pa.Schema:
    """The schema with the column by which polygons are sorted."""
    return schema.append(pa.field(PLACE, pa.int64(), nullable=False))


class FeatureMaker(Protocol):
    """Makes polygons with attributes of finished regions."""

    @property
    def crs(self) -> str:
        """`EPSG:…`."""

    @property
    def schema(self) -> pa.Schema:
        """Of the polygons; it has a column `bbox`."""

    def to_table(self, finished: Finished) -> pa.Table:
        """The polygons of finished regions, with the schema `unfinished(schema)`."""


@dataclass(frozen=True)
class PolygonOrigin:
    """What all polygons of an edition have in common."""

    edition: int
    crs: str
    domains: Mapping[int, tuple[str, str | None]]
    """Code → name, and the days of its imagery, `2021-06-14` or `2021-06-14/2021-08-02`."""

    @classmethod
    def of(cls, edition: Edition) -> "PolygonOrigin":
        """Reads the edition's table of domains.

        Raises:
            ProductError: it cannot be read.
        """
        path = edition.store / "zarr.json"
        with product_error(f"{path}: its table of domains cannot be read", ValueError, KeyError, TypeError):
            table = read_json(path)["attributes"]["domains"]
            found = {int(d["code"]): (str(d["name"]), _days(d.get("acquired") or [])) for d in table}
        return cls(edition.number, edition.grid.crs, found)

    @property
    def schema(self) -> pa.Schema:
        """Of the polygons."""
        return SCHEMA

    def to_table(self, finished: Finished) -> pa.Table:
        """The polygons of finished regions, with the schema `unfinished(SCHEMA)`."""
        if not len(finished.rings):
            return unfinished(SCHEMA).empty_table()
        number = len(finished.rings)
        first_row, first_col = pixel_of(finished.first)
        domains = [self.domains.get(code, (None, None)) for code in _domains(finished.counts, number).tolist()]
        columns = {
            "id": _ids(first_row, first_col, finished.classes),
            "landcover": finished.classes.astype(np.uint8),
            "class": [legend.BY_VALUE[value].name for value in finished.classes.tolist()],
            "domain": [name for name, _ in domains],
            "date": [days for _, days in domains],
            "edition": np.full(number, self.edition, np.int32),
        }
        return pa.table(columns | common_columns(finished, self.crs), schema=unfinished(SCHEMA))


def common_columns(finished: Finished, crs: str) -> dict[str, Any]:
    """The columns that polygons of all kinds have: areas, confidences, box, geometry and place."""
    polygons = finished.rings.polygons()
    area = shapely.area(polygons)
    mean, tenth = _confidence(finished.counts, len(polygons))
    return {
        "area_m2": np.round(area, 4),
        "area_ellipsoid_m2": np.round(area * _true_area(shapely.centroid(polygons), crs), 4),
        "confidence_mean": mean,
        "confidence_p10": tenth,
        "bbox": pa.StructArray.from_arrays(list(shapely.bounds(polygons).T), fields=list(BBOX)),
        "geometry": shapely.to_wkb(polygons, byte_order=1),
        PLACE: hilbert(*pixel_of(finished.first)),
    }


def _days(acquired: list[str]) -> str | None:
    return "/".join(sorted({min(acquired), max(acquired)})) if acquired else None


def _ids(row: Ints, col: Ints, classes: Ints) -> list[str]:
    """`x-y-class` of the first pixel's north-western corner, in units of 0.20 m."""
    return [f"{x}-{-y}-{c}" for x, y, c in zip(col.tolist(), row.tolist(), classes.tolist(), strict=True)]


def _confidence(counts: Counts, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and 10th percentile of each region, 0..1: a tenth of its pixels have this confidence or a lower one."""
    own = counts.key < FIRST_DOMAIN
    region, key, pixels = counts.region[own], counts.key[own], counts.pixels[own]
    total, weighted = np.zeros(number, np.int64), np.zeros(number, np.int64)
    np.add.at(total, region, pixels)
    np.add.at(weighted, region, pixels * key)
    # Regions lie one after the other here, and their confidences rise.
    so_far = np.cumsum(pixels) - (np.cumsum(total) - total)[region]
    enough = np.flatnonzero(10 * so_far >= total[region])
    tenth = key[enough[np.unique(region[enough], return_index=True)[1]]]
    return (weighted / total / 255).astype(np.float32), (tenth / 255).astype(np.float32)


def _domains(counts: Counts, number: int) -> Ints:
    """The code of the domain that shows most pixels of each region, the lowest of several."""
    own = counts.key >= FIRST_DOMAIN
    region, code, pixels = counts.region[own], counts.key[own] - FIRST_DOMAIN, counts.pixels[own]
    order = np.lexsort((code, -pixels, region))
    found = np.zeros(number, np.int64)
    regions, most = np.unique(region[order], return_index=True)
    found[regions] = code[order][most]
    return found


def _true_area(centroids: NDArray[np.object_], crs: str) -> NDArray[np.float64]:
    """Area on the ellipsoid of a square metre of the map, at the polygons' centroids.

    Over a polygon of 10 km the scale differs from a plane by less than one part in 100 000.
    """
    projection = pyproj.Proj(crs)
    longitude, latitude = projection(shapely.get_x(centroids), shapely.get_y(centroids), inverse=True)
    scale: Any = projection.get_factors(longitude, latitude).areal_scale
    return 1 / np.asarray(scale, np.float64)


class FeatureFiles:
    """Writes the polygons of one task, in a file for each part of the dataset.

    The files appear when the block ends without an error.

    Args:
        folder: each part has a folder in it.
        name: of the files, unique to the task.
        schema: of the finished polygons.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self._folder, self._name, self._schema = folder, name, unfinished(schema)
        self._open: dict[int, pa.ipc.RecordBatchFileWriter] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "FeatureFiles":
        self._stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def write(self, table: pa.Table) -> None:
        """Adds polygons with the unfinished schema."""
        place = table[PLACE].to_numpy()
        square = square_of(place, bits=SORT_BITS)
        for number in np.unique(square).tolist():
            # A batch has polygons of one square, so that a reader takes those of a square alone.
            self._writer(number >> 2 * (PART_BITS - SORT_BITS)).write_table(table.filter(pa.array(square == number)))

    def _writer(self, part: int) -> Any:
        if part not in self._open:
            path = self._stack.enter_context(replacing(self._folder / str(part) / f"{self._name}.arrow"))
            self._open[part] = self._stack.enter_context(pa.ipc.new_file(pa.OSFile(str(path), "wb"), self._schema))
        return self._open[part]


def read_features(folder: Path, part: int) -> Iterator[pa.Table]:
    """The polygons of a part that all tasks have written, a table for each square that is sorted together, in order.

    Raises:
        ProductError: a file cannot be read.
    """
    batches: dict[int, list[tuple[Path, int]]] = {}
    for path in sorted((folder / str(part)).glob("*.arrow")):
        with _opened(path, pa.memory_map) as file:
            for index in range(file.num_record_batches):
                # Only the pages of this one number are read.
                square = file.get_batch(index)[PLACE][0].as_py() >> 2 * SORT_BITS
                batches.setdefault(square, []).append((path, index))
    for _, found in sorted(batches.items()):
        # Nothing here keeps what the reader has dropped.
        yield _read_batches(found)


def _read_batches(found: list[tuple[Path, int]]) -> pa.Table:
    read = []
    for path, indices in groupby(found, key=itemgetter(0)):
        # Pages of a mapped file would count as memory of this process.
        with _opened(path, pa.OSFile) as file:
            read += [file.get_batch(index) for _, index in indices]
    return pa.Table.from_batches(read)


@contextmanager
def _opened(path: Path, source: Any) -> Iterator[Any]:
    with (
        product_error(f"{path}: cannot be read; run again", pa.ArrowException),
        source(str(path)) as file,
        pa.ipc.open_file(file) as reader,
    ):
        yield reader
