"""`growth`: seconds and memory of `plan`, `status`, `publish` and `search` by the size of a country, up to a nation's.

The country has squares of 15² tiles as domains: 96 of them have 21 600 tiles, about as many as metropolitan France. A
tile has 500 px a side, because the time that grows with pixels is measured by other benches, and all tiles show the
same map: their COGs are links to one file. Everything else is as in a real campaign.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.bench.chart import line_chart
from pipeline.bench.development.nation import square_footprints, write_sparse_file
from pipeline.bench.development.publish import CLASSES, PROVENANCE, synthetic_map
from pipeline.bench.development.rehearsal import grid_of
from pipeline.bench.development.synthetic_domains import Footprint, synthetic_campaign, write_domains
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import measure
from pipeline.bench.report import BenchReport
from pipeline.config import Campaign
from pipeline.durable import write_json
from pipeline.grid import Tile, union
from pipeline.products.stac.search import search
from pipeline.products.tile.seal import seal
from pipeline.products.tile.stac_item import build_item
from pipeline.progress import OnMessage
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.tracking.status import status

_DOMAINS, _QUICK_DOMAINS = (6, 24, 96), (1, 2)
"""A nation, and a quarter and a sixteenth of it."""
_ACROSS, _QUICK_ACROSS = 15, 1
"""Tiles along a domain's side."""
_TILE = 500
"""Side of a tile in pixels."""


def _find(campaign: Campaign) -> object:
    return search(campaign.output.national, domains=[campaign.domains[0].name], min_confidence=0.5)


STEPS: Mapping[str, Callable[[Campaign], object]] = {
    "plan": make_plan,
    "status": status,
    "publish": publish,
    "search": _find,
}
"""Name → what it does with a campaign, in the order in which they are measured."""


@dataclass(frozen=True)
class StepCost:
    """The resources of a step."""

    seconds: float
    core_s: float
    """Core-seconds of this process and of its workers."""
    peak_bytes: int
    """Largest resident memory of the process itself."""


def cost_of(step: str, campaign: Campaign) -> StepCost:
    """Runs a step; call it in a new process."""
    usage = measure(lambda: STEPS[step](campaign))[1]
    return StepCost(usage.wall_s, usage.core_s, usage.own_peak_bytes)


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Makes countries of growing size, and runs each step on each of them in a new process."""
    quick = imagery.scale.quick
    costs: dict[int, dict[str, StepCost]] = {}
    for domains in _QUICK_DOMAINS if quick else _DOMAINS:
        footprints = square_footprints(domains, across=_QUICK_ACROSS if quick else _ACROSS, tile=_TILE)
        tiles = sum(len(f.tiles) for f in footprints)
        with tempfile.TemporaryDirectory(prefix="growth-", dir=imagery.folder) as scratch:
            campaign = _campaign(imagery, Path(scratch), footprints)
            costs[tiles] = {}
            for step in STEPS:
                if step == "status":
                    seal_everywhere(campaign, footprints)  # a plan is slowest where nothing is mapped
                costs[tiles][step] = imagery.measured(cost_of, step, campaign)
                on_message(f"growth: {step} of {tiles} tiles takes {costs[tiles][step].seconds:.3g} s")
    return _report(costs)


def _campaign(imagery: Imagery, scratch: Path, footprints: tuple[Footprint, ...]) -> Campaign:
    catalog = write_domains(scratch, footprints, write=write_sparse_file)
    campaign = synthetic_campaign(imagery, catalog, footprints, grid_of(_TILE))
    extent = tuple(edge / 1000 for edge in union([t.window for f in footprints for t in f.tiles]).bounds)
    output = campaign.output.model_copy(update={"national": scratch / "national", "extent_km": extent})
    return campaign.model_copy(update={"output": output})


def seal_everywhere(campaign: Campaign, footprints: tuple[Footprint, ...]) -> None:
    """Seals the first tile of each domain, and the others as links to its COGs with items of their own."""
    pixels = synthetic_map(0, _TILE)
    confidence_sum = int(pixels[1].sum(dtype=int))
    for footprint in footprints:
        folder, (first, *others) = campaign.product_folder(footprint.domain), footprint.tiles
        sealed = seal(
            folder,
            domain=footprint.domain,
            tile=first,
            stack=pixels,
            fingerprint="synthetic",
            live=CLASSES,
            provenance=PROVENANCE,
            inputs=(),
        )
        for tile in others:
            files = tuple(replace(f, path=_linked(f.path, first, tile)) for f in sealed.files)
            path = folder / sealed.item_path.name.replace(first.name, tile.name)
            own = replace(sealed, tile=tile, files=files, item_path=path)
            item = build_item(own, confidence_sum=confidence_sum, live=CLASSES, provenance=PROVENANCE, inputs=())
            write_json(path, item, own_checksum=True)


def _linked(path: Path, first: Tile, tile: Tile) -> Path:
    other = path.with_name(path.name.replace(first.name, tile.name))
    os.link(path, other)
    return other


def _report(costs: Mapping[int, Mapping[str, StepCost]]) -> BenchReport:
    figures = {
        f"growth.{step}_{what}_{tiles}_tiles": value
        for tiles, steps in costs.items()
        for step, cost in steps.items()
        for what, value in (("s", cost.seconds), ("gb", cost.peak_bytes / 1e9))
    }
    lines = {
        step: [(float(tiles), steps[step].seconds, f"{steps[step].seconds:.3g} s") for tiles, steps in costs.items()]
        for step in STEPS
    }
    raw = {str(tiles): {step: asdict(cost) for step, cost in steps.items()} for tiles, steps in costs.items()}
    notes = (f"tiles have {_TILE} px a side; memory is that of the command's own process, not of workers",)
    return BenchReport(figures, raw, line_chart("Seconds by tiles", lines, x_label="tiles", y_label="seconds"), notes)
