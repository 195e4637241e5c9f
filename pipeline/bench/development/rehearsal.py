"""`rehearsal`: a whole département through scheduler, sealing and catalog, with a network that costs nothing.

Two things cost next to nothing: the network (`feed.ConstantPredictor`) and decoding (the rasters have one level and are
compressed). The rest is the code of every run: catalog, plan, Dask's scheduler and workers, mosaic,
windows and halos, COGs with their checks, items, and the run's record. Each tile has its 25 blocks and 100 windows, but
by default fewer pixels, because sealing hundreds of full-size tiles takes an hour. The driver's work is the same.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio

from pipeline.bench.chart import line_chart
from pipeline.bench.development.synthetic_domains import DELIVERED_TILE, Footprint, synthetic_campaign, write_domains
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import Usage, measure, usage_json
from pipeline.bench.measurements.feed import ConstantPredictor
from pipeline.bench.report import BenchReport
from pipeline.config import Campaign, GridSection
from pipeline.errors import ProductError
from pipeline.grid import CRS, Tile, Window
from pipeline.halo import Layout
from pipeline.progress import OnMessage
from pipeline.runs.mapping.events import RunStarted, TileEnded
from pipeline.runs.mapping.run import run as run_plan
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.planning.totals import plan_totals
from pipeline.sources.delivery.names import Kind

_TILES, _QUICK_TILES = (15, 20), (2, 4)
"""Rows and columns of tiles."""
_TILE, _QUICK_TILE = 1_000, 500
"""Side of a tile in pixels."""
_BLOCKS_A_SIDE = 5
"""Blocks along a tile's side, as in the default grid; a block has two cores a side."""
_VALUE = 100
"""The value of every pixel."""


@dataclass(frozen=True)
class Rehearsal:
    """The size of a département's run, and the resources that it used."""

    tiles: int
    blocks: int
    driver_bytes: tuple[int, ...]
    """Resident memory of the driver and its scheduler as each tile ended."""
    driver_core_s: float
    """Core-seconds of the driver and its scheduler from the start of the cluster to the last tile."""
    usage: Usage


def write_uniform_raster(path: Path, kind: Kind, tile: Tile) -> None:
    """Writes a raster of one level, which takes little space and time to decode."""
    height, width = tile.window.shape
    bands = {"rvb": 3, "irc": 3}.get(kind, 1)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": bands, "height": height, "width": width, "crs": CRS}
    blocks = {"TILED": "YES", "BLOCKXSIZE": 512, "BLOCKYSIZE": 512, "COMPRESS": "ZSTD", "ZSTD_LEVEL": 1}
    transform = rasterio.Affine(*tile.window.transform)
    with rasterio.open(path, "w", transform=transform, **profile, **blocks) as file:
        for strip in Window(0, 0, height, width).strips(512):
            file.write(np.full((bands, *strip.shape), _VALUE, np.uint8), window=strip.slices)


def rehearse(campaign: Campaign) -> Rehearsal:
    """Plans and runs a campaign with a network that costs nothing; call it in a new process.

    Raises:
        ProductError: a tile was not sealed, though none failed.
    """
    memory: list[int] = []
    clock: list[float] = []

    def listen(event: RunStarted | TileEnded) -> None:
        clock.append(time.process_time())
        if isinstance(event, TileEnded):
            memory.append(psutil.Process().memory_info().rss)

    def work() -> int:
        plan = make_plan(campaign)
        plan = replace(plan, resolved=replace(plan.resolved, stand_in=ConstantPredictor()))
        run_plan(plan, on_event=listen)
        return plan_totals(plan).blocks

    blocks, usage = measure(work)
    if left := make_plan(campaign).todo:
        raise ProductError(f"{campaign.output.domains}: {left} tiles are not sealed, though no tile failed in the run")
    return Rehearsal(len(memory), blocks, tuple(memory), clock[-1] - clock[0], usage)


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Makes a département, and runs it in a new process."""
    scale = imagery.scale
    rows, cols = _QUICK_TILES if scale.quick else _TILES
    tile = DELIVERED_TILE if scale.full_size else _QUICK_TILE if scale.quick else _TILE
    footprint = Footprint.rectangle(1, rows=rows, cols=cols, tile=tile)
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=imagery.folder) as scratch:
        on_message(f"rehearsal: {len(footprint.tiles)} synthetic tiles of {tile} px in {scratch}")
        catalog = write_domains(Path(scratch), [footprint], write=write_uniform_raster)
        return report_of(imagery.measured(rehearse, rehearsal_campaign(imagery, catalog, footprint)), tile)


def rehearsal_campaign(imagery: Imagery, catalog: Path, footprint: Footprint) -> Campaign:
    """The bench's campaign over a synthetic domain, with blocks and windows as for full-size tiles."""
    return synthetic_campaign(imagery, catalog, [footprint], grid_of(footprint.tiles[0].window.height))


def grid_of(tile: int) -> GridSection:
    """The default grid, or for a smaller tile one with as many blocks and windows."""
    if tile == DELIVERED_TILE:
        return GridSection()
    stride = Layout().stride
    layout = Layout.for_core(tile // _BLOCKS_A_SIDE // 2, halo=stride, stride=stride)
    return GridSection(tile=tile, block=2 * layout.core, core=layout.core, halo=layout.halo, window=layout.window)


def report_of(done: Rehearsal, tile: int) -> BenchReport:
    """The figures, and a chart of the driver's memory over the tiles of `tile` px."""
    usage = done.usage
    quarter = max(1, len(done.driver_bytes) // 4)
    figures = {
        # One task for each block, and one for each tile that seals it.
        "rehearsal.tasks": float(done.blocks + done.tiles),
        "rehearsal.scheduler_seconds_per_tile": done.driver_core_s / done.tiles,
        "rehearsal.driver_peak_gb": usage.own_peak_bytes / 1e9,
        # Largest memory of the driver in the last quarter of the run over that in the first.
        "rehearsal.driver_growth": max(done.driver_bytes[-quarter:]) / max(done.driver_bytes[:quarter]),
        "rehearsal.wall_s": usage.wall_s,
    }
    raw: dict[str, Any] = {
        "tiles": done.tiles,
        "tile": tile,
        "blocks": done.blocks,
        "driver_bytes": list(done.driver_bytes),
        **usage_json(usage),
    }
    points = [(float(sealed), b / 1e9, "") for sealed, b in enumerate(done.driver_bytes, start=1)]
    chart = line_chart("Memory of the driver", {"driver": points}, x_label="tiles sealed", y_label="GB")
    size = "" if tile == DELIVERED_TILE else f"; tiles have {tile} px a side, not {DELIVERED_TILE} (--full-size)"
    notes = (
        "the network and the decoding cost next to nothing; everything else is the code of every run" + size,
        "scheduler seconds are core-seconds of the driver, whose process holds client and scheduler, while tiles run",
    )
    return BenchReport(figures, raw, chart, notes)
