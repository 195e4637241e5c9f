"""`rehearsal`: a whole département through scheduler, seal and catalogue, with a network that costs nothing.

Free: the network (`feed.Free`) and decoding (rasters without a single block, whose pixels GDAL makes up). Real: all
else, in the code of every run: the catalogue, the plan, Dask's scheduler and workers, the mosaic, windows and halos,
COGs with their checks, items, the run's record. By default each tile has its 25 blocks and its 100 windows, but fewer
pixels, because sealing hundreds of full-size tiles takes an hour; the driver sees no difference.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rasterio

from pipeline.bench.chart import Curve, curves
from pipeline.bench.development.synthetic_domains import FRANCE, Footprint, make_up
from pipeline.bench.imagery import Imagery, Say
from pipeline.bench.machine import Usage, measure, resident_bytes, usage_json
from pipeline.bench.measurements.feed import Free
from pipeline.bench.report import Report
from pipeline.config import Campaign, DomainSection, GridSection
from pipeline.errors import ProductError
from pipeline.grid import CRS, Layout, Tile
from pipeline.runs.mapping.events import RunStarted, TileEnded
from pipeline.runs.mapping.run import run as run_plan
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.planning.totals import plan_totals
from pipeline.sources.delivery.names import Kind

NAME = "rehearsal"
FULL_TILE = 25_000
_BLOCKS = 5
"""Blocks a side of a tile, as in the default grid; a block has two cores a side."""
_VALUE = 100
"""Of every pixel."""


@dataclass(frozen=True)
class Rehearsed:
    """What a département's run took."""

    tiles: int
    blocks: int
    driver_bytes: tuple[int, ...]
    """Resident memory of the driver, and of the scheduler within it, as each tile ended."""
    driver_core_s: float
    """Of the same, from the start of the cluster to the last tile."""
    usage: Usage

    @property
    def tasks(self) -> int:
        """One a block, and one a tile that seals."""
        return self.blocks + self.tiles

    @property
    def growth(self) -> float:
        """Largest memory of the driver in the last quarter over that in the first."""
        quarter = max(1, len(self.driver_bytes) // 4)
        return max(self.driver_bytes[-quarter:]) / max(self.driver_bytes[:quarter])


def blank(path: Path, kind: Kind, tile: Tile) -> None:
    """A raster of one value and no block: sparse, its no-data value is what GDAL gives for what is not there."""
    height, width = tile.window.shape
    bands = {"rvb": 3, "irc": 3}.get(kind, 1)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": bands, "height": height, "width": width, "crs": CRS}
    blocks = {"TILED": "YES", "BLOCKXSIZE": 512, "BLOCKYSIZE": 512, "SPARSE_OK": "TRUE"}
    transform = rasterio.Affine(*tile.window.transform)
    with rasterio.open(path, "w", transform=transform, nodata=_VALUE, **profile, **blocks):
        pass


def rehearse(campaign: Campaign) -> Rehearsed:
    """Plans and runs a campaign with a network that costs nothing; to be called in a fresh process.

    Raises:
        ProductError: a tile was not sealed, though none failed.
    """
    seen: list[int] = []
    clock: list[float] = []

    def listen(event: RunStarted | TileEnded) -> None:
        clock.append(time.process_time())
        if isinstance(event, TileEnded):
            seen.append(resident_bytes())

    def work() -> int:
        plan = make_plan(campaign)
        plan = replace(plan, resolved=replace(plan.resolved, stand_in=Free()))
        run_plan(plan, on_event=listen)
        return plan_totals(plan).blocks

    blocks, usage = measure(work)
    if left := make_plan(campaign).todo:
        raise ProductError(f"{campaign.output.domains}: {left} tiles are not sealed after a run in which none failed")
    return Rehearsed(len(seen), blocks, tuple(seen), clock[-1] - clock[0], usage)


def run(imagery: Imagery, *, say: Say) -> Report:
    """Makes the département up, and runs it in a process of its own."""
    rows, cols = imagery.scale.departement
    tile = imagery.scale.departement_tile
    given = Footprint.oblong(1, (FRANCE.row, FRANCE.col), rows=rows, cols=cols, tile=tile)
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=imagery.folder) as scratch:
        say(f"rehearsal: {len(given.tiles)} tiles of {tile} px are made up in {scratch}")
        catalog = make_up(Path(scratch), [given], write=blank)
        done = imagery.measured(rehearse, campaign_of(imagery, catalog, given))
    return report_of(done, tile)


def campaign_of(imagery: Imagery, catalog: Path, given: Footprint) -> Campaign:
    """The bench's campaign over the made-up domain, whose products go beside its catalogue."""
    campaign = imagery.campaign
    tile = given.tiles[0].window.height
    left, bottom, right, top = (edge / 1000 for edge in FRANCE.bounds)
    output = {"domains": catalog.parent / "products", "extent_km": (left, bottom, right, top), "chunk": tile // 5}
    return campaign.model_copy(
        update={
            "catalog": catalog,
            "domains": (DomainSection(name=given.domain),),
            "grid": grid_of(tile),
            "output": campaign.output.model_copy(update=output),
        }
    )


def grid_of(tile: int) -> GridSection:
    """The default grid, or one of as many blocks and windows for a smaller tile."""
    if tile == FULL_TILE:
        return GridSection()
    core, halo = tile // _BLOCKS // 2, Layout().stride
    # Any window from here on holds core and halo wherever they begin.
    stride = Layout().stride
    window = -(-(core + 2 * halo + stride) // stride) * stride
    return GridSection(tile=tile, block=2 * core, core=core, halo=halo, window=window)


def report_of(done: Rehearsed, tile: int) -> Report:
    """Figures, and the driver's memory over the tiles of `tile` px."""
    usage = done.usage
    figures = {
        "rehearsal.tasks": float(done.tasks),
        "rehearsal.scheduler_seconds_per_tile": done.driver_core_s / done.tiles,
        "rehearsal.driver_peak_gb": usage.own_peak_bytes / 1e9,
        "rehearsal.driver_growth": done.growth,
        "rehearsal.wall_s": usage.wall_s,
    }
    raw: dict[str, Any] = {
        "tiles": done.tiles,
        "tile": tile,
        "blocks": done.blocks,
        "driver_bytes": list(done.driver_bytes),
        **usage_json(usage),
    }
    points = tuple((float(i + 1), b / 1e9) for i, b in enumerate(done.driver_bytes))
    picture = curves("The driver's memory", [Curve("driver", points)], x_name="tiles sealed", y_name="GB")
    size = "" if tile == FULL_TILE else f"; tiles have {tile} px a side, not {FULL_TILE} (--full-size)"
    notes = (
        "free are the network and the decoding of rasters that hold no block; all else is what every run does" + size,
        "scheduler seconds are core-seconds of the driver, in whose process client and scheduler are, while tiles run",
    )
    return Report(NAME, figures, raw, picture, notes)
