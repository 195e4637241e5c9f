"""`nation`: time and memory to plan all tiles of metropolitan France; nothing is mapped.

The footprints are those of the départements, with one staged height for each tile. The files have a delivery's names
and sizes but are sparse, so they take inodes and no space. Nothing that a plan reads differs from a real delivery.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import geopandas
from rasterio.features import rasterize
from rasterio.transform import from_origin

from pipeline.bench.chart import bar_chart
from pipeline.bench.development.synthetic_domains import (
    DELIVERED_TILE,
    FRANCE,
    YEAR,
    Footprint,
    synthetic_campaign,
    write_domains,
)
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import measure, usage_json
from pipeline.bench.report import BenchReport
from pipeline.config import Campaign, GridSection
from pipeline.domain import Domain
from pipeline.grid import CRS, PIXELS_PER_M, Tile
from pipeline.progress import OnMessage
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.planning.totals import plan_totals
from pipeline.sources.delivery.names import Kind

_DEPARTEMENTS = Path("admin_france", "departements-version-simplifiee.geojson")
_SIZES: dict[Kind, int] = {"rvb": 234_000_000, "irc": 234_000_000, "height": 60_000_000}
"""Bytes of a tile's files: E080 keeps one byte in eight, and a height takes about a tenth of its pixels."""


def departement_footprints(data: Path) -> tuple[Footprint, ...]:
    """The 96 départements of metropolitan France, each with the tiles whose centers lie in it.

    If `data` has no borders of départements: as many squares of 15² tiles, side by side.
    """
    path = data / _DEPARTEMENTS
    if not path.is_file():
        return square_footprints(96, across=15)
    borders = geopandas.read_file(path).to_crs(CRS)
    shapes = zip(borders["code"], borders.geometry, strict=True)
    return tuple(Footprint(Domain(f"D{code:0>3}_{YEAR}"), _tiles_inside(shape)) for code, shape in shapes)


def square_footprints(domains: int, *, across: int, tile: int = DELIVERED_TILE) -> tuple[Footprint, ...]:
    """Domains D001, D002, … of `across`² tiles of `tile` px each, ten in a row."""
    side = across * tile
    corners = [(FRANCE.row + i // 10 * side, FRANCE.col + i % 10 * side) for i in range(domains)]
    return tuple(
        Footprint.rectangle(code, rows=across, cols=across, tile=tile, corner=corner)
        for code, corner in enumerate(corners, start=1)
    )


def _tiles_inside(shape: Any) -> tuple[Tile, ...]:
    left, _, _, top = FRANCE.bounds
    side = DELIVERED_TILE / PIXELS_PER_M
    size = (FRANCE.height // DELIVERED_TILE, FRANCE.width // DELIVERED_TILE)
    inside = rasterize([shape], out_shape=size, transform=from_origin(left, top, side, side), dtype="uint8")
    corners = zip(*inside.nonzero(), strict=True)
    return tuple(
        Tile.at(FRANCE.row + int(row) * DELIVERED_TILE, FRANCE.col + int(col) * DELIVERED_TILE, DELIVERED_TILE)
        for row, col in corners
    )


def write_sparse_file(path: Path, kind: Kind, tile: Tile) -> None:  # noqa: ARG001  (see `WriteFile`)
    """Makes a file that has the size of its kind and no content."""
    path.touch()
    os.truncate(path, _SIZES[kind])


def plan_nation(campaign: Campaign) -> BenchReport:
    """Plans all domains of a campaign; call it in a new process."""
    plan, usage = measure(lambda: make_plan(campaign))
    totals, peak_gb = plan_totals(plan), usage.own_peak_bytes / 1e9
    figures = {"nation.tiles": float(totals.tiles), "nation.seconds": usage.wall_s, "nation.peak_memory_gb": peak_gb}
    raw = {"domains": len(plan.domains), "input_files": totals.input_files, **usage_json(usage)}
    chart = bar_chart(
        f"Planning {totals.tiles} tiles", [("seconds", usage.wall_s), ("peak memory, GB", peak_gb)], unit=""
    )
    notes = ("the time includes loading the network; the files are sparse and lie on a disk of this machine",)
    return BenchReport(figures, raw, chart, notes)


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Makes the country and plans it in a new process; at the quick scale two domains of nine tiles."""
    footprints = square_footprints(2, across=3) if imagery.scale.quick else departement_footprints(imagery.data)
    with tempfile.TemporaryDirectory(prefix="nation-", dir=imagery.folder) as scratch:
        on_message(f"nation: {len(footprints)} synthetic domains in {scratch}")
        catalog = write_domains(Path(scratch), footprints, write=write_sparse_file)
        campaign = synthetic_campaign(imagery, catalog, footprints, GridSection())
        return imagery.measured(plan_nation, campaign)
