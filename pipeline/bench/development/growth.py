"""`growth`: time and memory of `plan`, `status`, `publish` and `search` by the size of a country, up to a nation's.

The country has squares of 15² tiles as domains: 96 of them have 21 600 tiles, about as many as metropolitan France. A
tile has 500 px a side, because the time that grows with pixels is measured by other benches, and all tiles show the
same map: their COGs are links to one file. Everything else is as in a real campaign, and each command runs as a user
runs it.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from pipeline.bench.chart import line_chart
from pipeline.bench.command_cost import CommandCost, command_cost
from pipeline.bench.development.nation import square_footprints, write_sparse_file
from pipeline.bench.development.publish import CLASSES, PROVENANCE, synthetic_map
from pipeline.bench.development.rehearsal import grid_of
from pipeline.bench.development.synthetic_domains import Footprint, synthetic_campaign, write_domains
from pipeline.bench.imagery import Imagery
from pipeline.bench.report import BenchReport
from pipeline.config import Campaign
from pipeline.durable import write_json
from pipeline.grid import Tile, union
from pipeline.products.analysis.campaign_map import update_layers
from pipeline.products.national.edition_record import read_edition
from pipeline.products.national.edition_writer import begin, commit
from pipeline.products.national.grid import GridIndex, NationalGrid
from pipeline.products.national.publish_plan import ShardPlan, plan_edition
from pipeline.products.national.shard_writer import write_shard
from pipeline.products.tile.seal import seal
from pipeline.products.tile.stac_item import build_item
from pipeline.progress import SILENT, OnMessage
from pipeline.runs.planning.provenance import campaign_crs
from pipeline.runs.publishing.draft_edition import DraftEdition, Job, Result
from pipeline.runs.publishing.publish import EXTRAS, read_products
from pipeline.runs.tracking.status import status

_DOMAINS, _QUICK_DOMAINS = (6, 24, 96), (1, 2)
"""A nation, and a quarter and a sixteenth of it."""
_ACROSS, _QUICK_ACROSS = 15, 1
"""Tiles along a domain's side."""
_TILE = 500
"""Side of a tile in pixels."""
CONFIG = "campaign.yaml"
"""The campaign's file, in the country's folder."""
_FILTERS = ("--domain", "D001_2021", "--min-confidence", "0.5")
STEPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "plan": ("plan", ()),
    "plan_again": ("plan", ()),
    "status": ("status", ()),
    "publish": ("publish", ()),
    "search": ("search", _FILTERS),
}
"""Name → command and its options, in the order in which they are measured. The first plan of a network loads it. The
publish finds that nothing changed: the bench `publish` measures how shards are written."""


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Makes countries of growing size, and runs each command on each of them in a new process."""
    quick = imagery.scale.quick
    costs: dict[int, dict[str, CommandCost]] = {}
    for domains in _QUICK_DOMAINS if quick else _DOMAINS:
        footprints = square_footprints(domains, across=_QUICK_ACROSS if quick else _ACROSS, tile=_TILE)
        tiles = sum(len(f.tiles) for f in footprints)
        with (
            tempfile.TemporaryDirectory(prefix="growth-", dir=imagery.folder) as scratch,
            _own_cache(Path(scratch, "cache")),
        ):
            campaign = country(imagery, Path(scratch), footprints)
            costs[tiles] = {}
            for step, (command, options) in STEPS.items():
                if step == "status":
                    seal_everywhere(campaign, footprints)  # a plan is slowest where nothing is mapped
                    publish_everywhere(campaign)
                cost = imagery.measured(command_cost, command, str(campaign.base / CONFIG), *options)
                costs[tiles][step] = cost
                on_message(
                    f"growth: {step} of {tiles} tiles takes {cost.core_s:.3g} core-s, {cost.wall_s:.3g} s, "
                    f"{cost.peak_bytes / 1e9:.2g} GB"
                )
    return _report(costs)


@contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """Gives new processes a cache of their own until the block ends, so that the first plan loads the network."""
    before = dict(os.environ)
    os.environ["LANDCOVER_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def country(imagery: Imagery, folder: Path, footprints: tuple[Footprint, ...]) -> Campaign:
    """Writes a country's catalog, and a campaign over it as `campaign.yaml` below a folder."""
    catalog = write_domains(folder, footprints, write=write_sparse_file)
    campaign = synthetic_campaign(imagery, catalog, footprints, grid_of(_TILE))
    extent = tuple(edge / 1000 for edge in union([t.window for f in footprints for t in f.tiles]).bounds)
    output = campaign.output.model_copy(update={"national": folder / "national", "extent_km": extent})
    campaign = campaign.model_copy(update={"output": output, "base": folder})
    content = campaign.model_dump(mode="json", exclude_unset=True)
    (folder / CONFIG).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return campaign


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


class _LinkedDraft(DraftEdition):
    """A draft in which only the first job is done, in this process; the files of the others are links to its files."""

    def map_on_workers(
        self,
        jobs: Sequence[Job],
        function: Callable[[Job], Result],
        *,
        pixels: int | None = None,  # noqa: ARG002  (nothing counts them)
    ) -> Iterator[tuple[Job, Result]]:
        """Yields each job with the result of the first one."""
        result = function(jobs[0])
        row, col = _index(jobs[0])
        files = [path for path in self.folder.rglob(str(col)) if path.parent.name == str(row) and path.is_file()]
        for job in jobs:
            for path in files:
                other = _moved(path, _index(job))
                if other.parent.is_dir() and not other.exists():  # other arrays have no folder for each row
                    os.link(path, other)
            yield job, result


def _index(job: object) -> GridIndex:
    index: GridIndex = job.index if isinstance(job, ShardPlan) else job  # type: ignore[assignment]
    return index


def _moved(path: Path, index: GridIndex) -> Path:
    """The file of another shard or tile in the same array."""
    return path.parents[1] / str(index[0]) / str(index[1])


def publish_everywhere(campaign: Campaign) -> None:
    """Publishes all tiles; shards and levels are written for one tile, and are links to its files for the others."""
    crs = campaign_crs(campaign)
    products = read_products(campaign, status(campaign), crs)
    grid = NationalGrid(campaign.extent, campaign.grid.tile, campaign.shard, campaign.output.chunk, crs)
    plan = plan_edition(campaign.output.national, grid, products)
    begin(plan)
    no_client: Any = None  # every job is done here
    draft = _LinkedDraft(campaign, tuple(products), plan, no_client, SILENT)
    written = draft.map_on_workers(plan.write, partial(write_shard, plan.target))
    facts = [
        replace(
            fact,
            index=shard.index,
            sha256={str(_moved(Path(name), shard.index)): digest for name, digest in fact.sha256.items()},
        )
        for shard, fact in written
    ]
    for extra in EXTRAS:
        extra(replace(draft, changed=grid.tiles_of(plan.digests)))
    update_layers(campaign, read_edition(commit(plan, facts)))


def _report(costs: Mapping[int, Mapping[str, CommandCost]]) -> BenchReport:
    figures = {
        f"growth.{step}_{what}_{tiles}_tiles": value
        for tiles, steps in costs.items()
        for step, cost in steps.items()
        for what, value in (("s", cost.wall_s), ("core_s", cost.core_s), ("gb", cost.peak_bytes / 1e9))
    }
    lines = {
        step: [(float(tiles), steps[step].core_s, f"{steps[step].core_s:.3g} s") for tiles, steps in costs.items()]
        for step in STEPS
    }
    raw = {str(tiles): {step: asdict(cost) for step, cost in steps.items()} for tiles, steps in costs.items()}
    notes = (
        f"tiles have {_TILE} px a side; memory is that of the command's own process, not of workers",
        "imports are in the time; plan_again does not load the network; publish finds that nothing changed",
    )
    chart = line_chart("Core-seconds by tiles", lines, x_label="tiles", y_label="core-seconds")
    return BenchReport(figures, raw, chart, notes)
