"""`nation`: planning every tile of metropolitan France: seconds and memory, and nothing of it mapped.

Footprints are the départements' own, with one staged height a tile; the files behind them are made up: of a
delivery's names and sizes, but sparse, so that they take inodes and no room. All that a plan reads is real to it.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

from pipeline.bench.chart import bars
from pipeline.bench.development.synthetic_domains import FRANCE, YEAR, Footprint, make_up
from pipeline.bench.imagery import Imagery, Say
from pipeline.bench.machine import Usage, measure, usage_json
from pipeline.bench.report import Report
from pipeline.config import Campaign, DomainSection, GridSection
from pipeline.domain import Domain
from pipeline.grid import CRS, PIXELS_PER_M, Tile
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.planning.totals import Totals, plan_totals
from pipeline.sources.delivery.names import Kind

NAME = "nation"
_TILE = 25_000
"""Pixels a side of a BD ORTHO tile: 5 km."""
_FOOTPRINTS = Path("admin_france", "departements-version-simplifiee.geojson")
_SIZES: dict[Kind, int] = {"rvb": 234_000_000, "irc": 234_000_000, "height": 60_000_000}
"""Bytes of a tile's files: E080 keeps one byte of eight; a height takes about a tenth of its pixels."""


@dataclass(frozen=True)
class Planned:
    """What planning gave, and took."""

    domains: int
    totals: Totals
    usage: Usage


def footprints(data: Path) -> tuple[Footprint, ...]:
    """The 96 départements of metropolitan France, each with the tiles whose centres lie in it.

    Where `data` lacks their borders, as many squares of 15² tiles, side by side.
    """
    path = data / _FOOTPRINTS
    if not path.is_file():
        return squares(96, across=15)
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    return tuple(
        Footprint(
            Domain(f"D{feature['properties']['code']:0>3}_{YEAR}"),
            _tiles_inside(transform_geom("EPSG:4326", CRS, feature["geometry"])),
        )
        for feature in features
    )


def squares(domains: int, *, across: int) -> tuple[Footprint, ...]:
    """Domains D001, D002, … of `across`² tiles each, ten in a row."""
    side = across * _TILE
    return tuple(
        Footprint.oblong(
            i + 1, (FRANCE.row + i // 10 * side, FRANCE.col + i % 10 * side), rows=across, cols=across, tile=_TILE
        )
        for i in range(domains)
    )


def _tiles_inside(shape: Any) -> tuple[Tile, ...]:
    left, _, _, top = FRANCE.bounds
    side = _TILE / PIXELS_PER_M
    size = (FRANCE.height // _TILE, FRANCE.width // _TILE)
    inside = rasterize([shape], out_shape=size, transform=from_origin(left, top, side, side), dtype="uint8")
    return tuple(
        Tile.at(FRANCE.row + int(row) * _TILE, FRANCE.col + int(col) * _TILE, _TILE)
        for row, col in zip(*inside.nonzero(), strict=True)
    )


def sparse(path: Path, kind: Kind, tile: Tile) -> None:  # noqa: ARG001  (see `madeup.Write`)
    """A file of a kind's size that holds nothing."""
    path.touch()
    os.truncate(path, _SIZES[kind])


def plan_nation(campaign: Campaign) -> Planned:
    """Plans all domains of a campaign; to be called in a fresh process."""
    plan, usage = measure(lambda: make_plan(campaign))
    return Planned(len(plan.domains), plan_totals(plan), usage)


def run(imagery: Imagery, *, say: Say) -> Report:
    """Makes the country up, and plans it in a process of its own; at the small scale two domains of nine tiles."""
    given = footprints(imagery.data) if imagery.scale.apart else squares(2, across=3)
    with tempfile.TemporaryDirectory(prefix="nation-", dir=imagery.folder) as scratch:
        say(f"nation: {len(given)} domains are made up in {scratch}")
        catalog = make_up(Path(scratch), given, write=sparse)
        planned = imagery.measured(plan_nation, _campaign(imagery, catalog, given))
    return _report(planned)


def _campaign(imagery: Imagery, catalog: Path, given: tuple[Footprint, ...]) -> Campaign:
    """The bench's campaign over other domains, on the default grid."""
    campaign = imagery.campaign
    left, bottom, right, top = (edge / 1000 for edge in FRANCE.bounds)
    output = {"domains": catalog.parent / "products", "extent_km": (left, bottom, right, top)}
    return campaign.model_copy(
        update={
            "catalog": catalog,
            "domains": tuple(DomainSection(name=f.domain) for f in given),
            "grid": GridSection(),
            "output": campaign.output.model_copy(update=output),
        }
    )


def _report(planned: Planned) -> Report:
    totals, usage = planned.totals, planned.usage
    figures = {
        "nation.tiles": float(totals.tiles),
        "nation.seconds": usage.wall_s,
        "nation.peak_memory_gb": usage.own_peak_bytes / 1e9,
    }
    raw: dict[str, Any] = {"domains": planned.domains, "input_files": totals.input_files, **usage_json(usage)}
    values = [("seconds", usage.wall_s), ("peak memory, GB", usage.own_peak_bytes / 1e9)]
    notes = ("from loading the network to the last tile; the files are sparse and lie on this machine's own disk",)
    return Report(NAME, figures, raw, bars(f"Planning {totals.tiles} tiles", values, unit=""), notes)
