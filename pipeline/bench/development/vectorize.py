"""`vectorize`: maps of two sizes as polygons: speed, vertices, bytes, and whether memory grows with the tiles.

The maps have the texture of real predictions where they are at hand, mirrored so that nothing repeats within a tile.
GDAL's polygonize and GEOS's `coverage_simplify` do the smaller map as a whole.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage

from pipeline.bench.chart import bar_chart
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import Usage, in_new_process, measure, usage_json
from pipeline.bench.report import BenchReport
from pipeline.domain import Domain
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.products.national.edition_record import MAPPED, STORE_LAYERS, read_edition
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.zarr_store import create_store, write_layer
from pipeline.products.vectors.vector_folder import DATASET, Staging
from pipeline.products.vectors.vectorization import write_vectors
from pipeline.progress import OnMessage

Job = TypeVar("Job")
Result = TypeVar("Result")

_TILES_A_SIDE = (2, 4)
"""Of the two maps."""
_TILE, _QUICK_TILE = 2_000, 100
_TOLERANCE_M = 0.5
_DOMAIN = Domain("D034_2021")
_CORNER = (-31_400_000, 3_850_000)
"""About the row and column of the maps, in the south of France."""
_DEPARTEMENT_KM2, _FRANCE_KM2 = 6_000, 550_000
_REAL = "flair_predictions/pred13_D012_2019_Z3_UU.tif"


@dataclass(frozen=True)
class Vectorized:
    """The vector files of a map, and the resources of the one process that wrote them."""

    tiles: int
    km2: float
    polygons: int
    vertices: int
    parquet_bytes: int
    all_bytes: int
    usage: Usage


def texture(data: Path, side: int) -> tuple[NDArray[np.uint8], str]:
    """A class map, and where its texture is from."""
    path = data / _REAL
    if path.is_file():
        with rasterio.open(path) as file:
            real = file.read(1)
        lead = max(0, side - real.shape[0])
        return np.pad(real, ((0, lead), (0, lead)), mode="symmetric")[:side, :side], "a real prediction"
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(side, side)), 6)
    return (np.digitize(noise, np.quantile(noise, np.linspace(0, 1, 9)[1:-1])) + 1).astype(np.uint8), "smooth noise"


def write_map(folder: Path, classes: NDArray[np.uint8], tile: int) -> None:
    """Writes an edition that shows a map, with noise as confidence."""
    row, col = (corner // tile * tile for corner in _CORNER)
    grid = NationalGrid(Window(row, col, *classes.shape), tile, tile, tile if tile < 1_000 else tile // 5)
    table = [{"code": _DOMAIN.code, "name": _DOMAIN, "year": _DOMAIN.year}]
    indices = [(int(i), int(j)) for i, j in np.ndindex(grid.tiles_shape)]
    folder.mkdir(parents=True)
    coverage = np.full(grid.tiles_shape, MAPPED, np.uint8)
    create_store(folder / "product.zarr", grid, domains=table, coverage=coverage, coordinates_from=None)
    random = np.random.default_rng(1)
    for i, j in indices:
        own = classes[i * tile : (i + 1) * tile, j * tile : (j + 1) * tile]
        confidence = np.where(own, random.integers(120, 256, own.shape), 0)
        for layer, pixels in zip(STORE_LAYERS, (own, confidence, np.where(own, _DOMAIN.code, 0)), strict=True):
            (folder / "product.zarr" / layer / "c" / str(i)).mkdir(exist_ok=True, parents=True)
            write_layer(folder / "product.zarr", layer, (i, j), shard=tile, pixels=pixels)
    record = {"number": 1, "created": "", "grid": grid.to_json(), "domains": [{"name": _DOMAIN}], "metadata": ""}
    record["shards"] = {f"{i}/{j}": "" for i, j in indices}
    (folder / "edition.json").write_text(json.dumps(record), encoding="utf-8")


def vectorize_map(folder: Path, tiles: int) -> Vectorized:
    """Vectorizes an edition in this process; call it in a new one."""

    def one_by_one(jobs: Sequence[Job], function: Callable[[Job], Result]) -> list[Result]:
        return [function(job) for job in jobs]

    edition, staging = read_edition(folder), Staging.beside(folder / "vectors")

    def work() -> dict[str, Any]:
        return write_vectors(staging, edition, domain=None, tolerance_m=_TOLERANCE_M, for_each=one_by_one, tiles=False)

    record, usage = measure(work)
    staging.commit()
    with pq.ParquetFile(staging.final / DATASET) as file:
        vertices = sum(
            int(shapely.get_num_coordinates(shapely.from_wkb(rows["geometry"].to_numpy(zero_copy_only=False))).sum())
            for rows in file.iter_batches(columns=["geometry"])
        )
    files = [path for path in staging.final.iterdir() if path.is_file()]
    return Vectorized(
        tiles,
        record["area_m2"] / 1e6,
        record["polygons"],
        vertices,
        (staging.final / DATASET).stat().st_size,
        sum(path.stat().st_size for path in files),
        usage,
    )


def polygonize_whole(data: Path, side: int) -> tuple[int, Usage]:
    """Vertices, and the resources of GDAL's polygonize and GEOS's simplification; call it in a new process."""
    classes, _ = texture(data, side)

    def work() -> int:
        found = [shapely.geometry.shape(geometry) for geometry, value in shapes(classes, connectivity=4) if value]
        # GDAL leaves out vertices where only neighbours meet; a coverage has them.
        simpler = shapely.coverage_simplify(
            shapely.segmentize(found, 1), _TOLERANCE_M * PIXELS_PER_M, simplify_boundary=False
        )
        return int(shapely.get_num_coordinates(simpler).sum())

    return measure(work)


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Vectorizes two maps, and does the smaller one with GDAL and GEOS."""
    tile = _QUICK_TILE if imagery.scale.quick else _TILE
    done = []
    for across in _TILES_A_SIDE:
        classes, origin = texture(imagery.data, tile * across)
        with tempfile.TemporaryDirectory(prefix="vectorize-", dir=imagery.folder) as scratch:
            write_map(Path(scratch, "edition"), classes, tile)
            on_message(f"vectorize: {across**2} tiles of {tile} px, {origin}")
            done.append(in_new_process(vectorize_map, Path(scratch, "edition"), across**2))
    whole = in_new_process(polygonize_whole, imagery.data, tile * _TILES_A_SIDE[0])
    return _report(done, whole, tile, origin)


def _report(done: list[Vectorized], whole: tuple[int, Usage], tile: int, origin: str) -> BenchReport:
    few, many = done
    pixels = many.tiles * tile**2
    speed = pixels / 1e6 / many.usage.own_core_s
    vertices, usage = whole
    hours = {
        name: km2 * 25 / speed / 3600 for name, km2 in (("departement", _DEPARTEMENT_KM2), ("france", _FRANCE_KM2))
    }
    figures = {
        # Of one core, with all files but PMTiles written.
        "vectorize.mpx_per_core_s": speed,
        "vectorize.polygons_per_km2": many.polygons / many.km2,
        "vectorize.vertices_per_km2": many.vertices / many.km2,
        "vectorize.parquet_bytes_per_km2": many.parquet_bytes / many.km2,
        "vectorize.bytes_per_km2": many.all_bytes / many.km2,
        "vectorize.memory_ratio_4x": many.usage.own_peak_bytes / few.usage.own_peak_bytes,
        "vectorize.whole_mpx_per_core_s": few.tiles * tile**2 / 1e6 / usage.own_core_s,
        "vectorize.whole_vertices": vertices / few.vertices,
        "vectorize.whole_memory": usage.own_peak_bytes / few.usage.own_peak_bytes,
        **{f"vectorize.core_hours_{name}": value for name, value in hours.items()},
    }
    raw: dict[str, Any] = {f"{d.tiles}_tiles": {**usage_json(d.usage), "polygons": d.polygons} for d in done}
    raw["whole"] = dict(usage_json(usage))
    values = [(f"{d.tiles} tiles", d.usage.own_peak_bytes / 1e9) for d in done]
    values.append(("4 tiles, GDAL and GEOS", usage.own_peak_bytes / 1e9))
    notes = (f"tiles have {tile} px a side; the texture is of {origin}; {many.km2:.2f} km² are mapped in 16 tiles",)
    return BenchReport(figures, raw, bar_chart("Peak memory of the process", values, unit="GB"), notes)
