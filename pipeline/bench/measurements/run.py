"""`run`: a campaign from start to end, compared with a loop like that of IGN's command and with its own stages."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline.bench.chart import bar_chart
from pipeline.bench.imagery import Imagery, mirrored
from pipeline.bench.machine import Usage, cores, measure, usage_json
from pipeline.bench.measurements.feed import all_blocks, decode_imagery
from pipeline.bench.measurements.quantize import least_unseen, quantize_on_left_halves, right_halves
from pipeline.bench.measurements.run_parts import RunAccount, forward_parts, read_parts, seal_parts, start_alone
from pipeline.bench.plain_loop import LOADERS, map_in_plain_loop
from pipeline.bench.report import BenchReport
from pipeline.config import Campaign, Precision
from pipeline.demo.delivery_writer import write_raster
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference import Engine
from pipeline.inference.engine import missing_instructions
from pipeline.products.tile.cog import read_cog
from pipeline.progress import OnMessage
from pipeline.runs.mapping.run import run as run_plan
from pipeline.runs.planning.choosing import largest_windows
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.planning.throughput import MeasuredRate
from pipeline.sources.domain_inputs import DomainInputs

MIN_AGREEMENT = 0.99
"""Least agreement with fp32 of a choice that may count as the fastest."""
_ENGINE, _BF16 = Engine("openvino", "fp32"), Engine("openvino", "bf16")
_SHARE_OF_MEMORY = 0.8
"""Of what is free, the part that a worker may take."""
_CACHE_MB = 192
"""Less than the 225 MB of pixels in a tile of 1 km, so that one tile fills the cache."""


@dataclass(frozen=True)
class RunResult:
    """The products of a run, and the resources that it used."""

    campaign: Campaign
    """As it was run; the baseline takes only its network."""
    mpx: float
    usage: Usage

    @property
    def mpx_per_s(self) -> float:
        """Speed from the start of the cluster to the last sealed tile."""
        return self.mpx / self.usage.wall_s


@dataclass(frozen=True)
class ComparedRun:
    """A run in one precision, compared with that in fp32."""

    result: RunResult
    held_out: float
    """Share of the pixels that were not used for quantization with the class of fp32."""
    everywhere: float
    """The same of all pixels."""
    unseen: float
    """The same in the domain that agrees least, mapped by a network that was not quantized with it."""


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Measures the baseline, runs over one tile and over all, single stages, and the baseline again."""
    imagery = _with_largest_windows(imagery)
    on_message(f"run: windows of {imagery.scale.layout.window} px")
    with tempfile.TemporaryDirectory(prefix="run-", dir=imagery.folder) as scratch:
        return _run(imagery, Path(scratch), on_message)


def _with_largest_windows(imagery: Imagery) -> Imagery:
    """The imagery with the windows that `grid: auto` chooses for fp32 in most of the memory that is free."""
    campaign = imagery.campaign
    free = int(_SHARE_OF_MEMORY * psutil.virtual_memory().available)
    cluster = campaign.cluster.model_copy(update={"memory_bytes": free})
    found = largest_windows(campaign.model_copy(update={"cluster": cluster}), imagery.model.recipe, _ENGINE)
    layout = Layout.for_core(found.core, found.halo, imagery.model.recipe.stride)
    return replace(imagery, scale=replace(imagery.scale, layout=layout))


def _run(imagery: Imagery, scratch: Path, on_message: OnMessage) -> BenchReport:
    inputs = imagery.mosaic.inputs
    stack = _write_stack(imagery, scratch)
    # First, because it leaves the converted graph in the cache for all runs.
    forwards = {"fp32": forward_parts(imagery, _ENGINE)}
    baselines = [_baseline(imagery, stack, scratch)]
    on_message(f"run: baseline {baselines[0].mpx_per_s:.3f} Mpx/s")
    fp32 = _map(imagery, scratch, on_message=on_message)
    quantized = imagery.measured(quantize_on_left_halves, imagery, scratch / "int8" / "model.xml")
    int8 = _map(imagery, scratch, quantized=quantized.path, on_message=on_message)
    forwards["int8"] = forward_parts(imagery, Engine("openvino", "int8", quantized))
    runs = {"fp32": fp32, "int8": int8}
    if not missing_instructions(_BF16):
        runs["bf16"] = _map(imagery, scratch, precision="bf16", on_message=on_message)
    unseen = imagery.measured(least_unseen, imagery)
    # One tile in flight in both: over a single tile there is no second one, and the larger run must not have more.
    in_turn = partial(_map, imagery, scratch, quantized=quantized.path, tiles_in_flight=1, on_message=on_message)
    one, all_tiles = in_turn(tiles=inputs.names[:1]), in_turn()
    accounts = _accounts(imagery, runs, forwards, scratch=scratch / "again", on_message=on_message)
    if imagery.scale.repeats > 1:
        # Before and after the runs, so that other load on the machine slows both sides of the ratio.
        baselines.append(_baseline(imagery, stack, scratch))
    compared = {name: ComparedRun(run, *_agreement(imagery, fp32, run), unseen[name]) for name, run in runs.items()}
    return _report(imagery, compared, in_turn=(one, all_tiles), accounts=accounts, baselines=baselines)


def _accounts(
    imagery: Imagery,
    runs: Mapping[str, RunResult],
    forwards: Mapping[str, Mapping[str, float]],
    *,
    scratch: Path,
    on_message: OnMessage,
) -> dict[str, RunAccount]:
    """Precision → account, of the runs whose forwards were measured. Tiles are sealed again in `scratch`."""
    campaign = runs["fp32"].campaign
    blocks = all_blocks(imagery.mosaic.inputs, campaign.grid.block)
    by_window = decode_imagery(imagery, blocks, campaign.cluster).core_s
    common = read_parts(imagery, campaign, blocks) | seal_parts(imagery, campaign, scratch)
    accounts = {}
    for name, own in forwards.items():
        start = imagery.measured(start_alone, runs[name].campaign)
        accounts[name] = RunAccount.of(
            {**common, **own}, start=start, used=runs[name].usage, decode_by_window=by_window
        )
        on_message(f"run: {name} uses {accounts[name]}")
    return accounts


def _report(
    imagery: Imagery,
    runs: Mapping[str, ComparedRun],
    *,
    in_turn: tuple[RunResult, RunResult],
    accounts: Mapping[str, RunAccount],
    baselines: Sequence[RunResult],
) -> BenchReport:
    """The figures.

    Args:
        imagery: the input.
        runs: precision → run.
        in_turn: the runs over one tile and over all, with one tile in flight.
        accounts: precision → the account of its run.
        baselines: one or two runs of the plain loop.
    """
    fp32 = runs["fp32"].result
    best = _fastest(runs, {name: run.held_out for name, run in runs.items()})
    unseen = _fastest(runs, {name: run.unseen for name, run in runs.items()})
    baseline_rate = sum(b.mpx for b in baselines) / sum(b.usage.wall_s for b in baselines)
    figures = {
        "run.speedup_fp32": fp32.mpx_per_s / baseline_rate,
        "run.speedup_best": runs[best].result.mpx_per_s / baseline_rate,
        "run.agreement_best": runs[best].held_out,
        "run.speedup_unseen": runs[unseen].result.mpx_per_s / baseline_rate,
        "run.agreement_unseen": runs[unseen].unseen,
        "run.core_seconds_share": accounts["fp32"].share,
        "run.core_seconds_share_int8": accounts["int8"].share,
        "run.core_seconds_share_once": accounts["fp32"].share_once,
        "run.core_seconds_share_once_int8": accounts["int8"].share_once,
        "run.memory_ratio_4x": in_turn[1].usage.children_peak_bytes / in_turn[0].usage.children_peak_bytes,
    }
    raw: dict[str, Any] = {
        "runs": {
            f"openvino {name}": _json(run.result)
            | {
                "agreement_held_out": run.held_out,
                "agreement_everywhere": run.everywhere,
                "agreement_unseen": run.unseen,
            }
            for name, run in runs.items()
        },
        "best": best,
        "best_unseen": unseen,
        "tile_by_tile": [_json(result) for result in in_turn],
        "baselines": [_json(b) for b in baselines],
        "parts_core_s": {name: account.parts for name, account in accounts.items()},
        "decode_by_window_core_s": accounts["fp32"].decode_by_window,
    }
    speeds = [("baseline", baseline_rate), *((name, run.result.mpx_per_s) for name, run in runs.items())]
    notes = (
        *imagery.notes,
        f"the fastest that agrees with fp32 on at least {MIN_AGREEMENT:.0%} of the pixels is {best}",
        f"in each domain that int8 was not quantized with it is {unseen}",
        "int8 is quantized on the left halves of the patches and compared with fp32 on pixels of their right halves",
        f"the runs have windows of {imagery.scale.layout.window} px, as `grid: auto` chooses for the memory here",
        "the time of runs includes the start of their cluster; the baseline loads no network and decodes no JPEG 2000",
    )
    chart = bar_chart("Speed from start to end, COGs written", speeds, unit="Mpx/s")
    return BenchReport(figures, raw, chart, notes, _rates(fp32, accounts["fp32"]))


def _fastest(runs: Mapping[str, ComparedRun], agreement: Mapping[str, float]) -> str:
    """The precision of the fastest run that agrees well enough; fp32 agrees with itself."""
    return max((n for n in runs if agreement[n] >= MIN_AGREEMENT), key=lambda n: runs[n].result.mpx_per_s)


def _rates(result: RunResult, account: RunAccount) -> tuple[MeasuredRate, ...]:
    """The rate at which a core seals, and the bytes a pixel that COGs take on disk."""
    written = sum(path.stat().st_size for path in result.campaign.output.domains.rglob("*.tif"))
    sealed = MeasuredRate.here("seal", result.mpx / account.parts["seal"])
    return sealed, MeasuredRate.here("written", written / result.mpx / 1e6)


def _json(result: RunResult) -> dict[str, Any]:
    return {"mpx": result.mpx, "mpx_per_s": result.mpx_per_s, **usage_json(result.usage)}


def _map(
    imagery: Imagery,
    scratch: Path,
    *,
    on_message: OnMessage,
    precision: Precision = "fp32",
    quantized: Path | None = None,
    tiles_in_flight: int | None = None,
    tiles: Sequence[str] = (),
) -> RunResult:
    """Runs the campaign on OpenVINO, in a new process and into a new folder.

    A block has the size of a core, so that a worker holds no more pixels than it must. A single tile fills GDAL's
    cache, so that memory can be compared between areas.

    Args:
        imagery: the input.
        scratch: the folder is made below it.
        on_message: gets a line at the end.
        precision: of the run.
        quantized: the int8 network; the run is then in int8.
        tiles_in_flight: replaces the campaign's number.
        tiles: names of tiles; all by default.
    """
    campaign, precision = imagery.campaign, "int8" if quantized else precision
    layout = imagery.scale.layout
    grid = {"block": layout.core, "core": layout.core, "halo": layout.halo, "window": layout.window}
    products = Path(tempfile.mkdtemp(prefix="products-", dir=scratch))
    in_flight = tiles_in_flight or campaign.cluster.tiles_in_flight
    changed = {
        "engine": "openvino",
        "precision": precision,
        "engine_threads": cores(),
        "model": campaign.model.model_copy(update={"quantized": quantized}),
        "grid": campaign.grid.model_copy(update=grid),
        "cluster": campaign.cluster.model_copy(update={"gdal_cache_mb": _CACHE_MB, "tiles_in_flight": in_flight}),
        "output": campaign.output.model_copy(update={"domains": products}),
    }
    result = imagery.measured(map_campaign, campaign.model_copy(update=changed), tuple(tiles))
    on_message(f"run: openvino {precision}, {result.mpx:.1f} Mpx at {result.mpx_per_s:.3f} Mpx/s")
    return result


def map_campaign(campaign: Campaign, tiles: Sequence[str]) -> RunResult:
    """Runs a campaign over some tiles, or over all if none are named; call it in a new process."""
    plan = make_plan(campaign, tiles=tiles)
    ended, usage = measure(lambda: run_plan(plan))
    return RunResult(campaign, sum(e.pixels for e in ended) / 1e6, usage)


def _write_stack(imagery: Imagery, scratch: Path) -> Path:
    """Writes the baseline's input: a part of the imagery as one raster of five bands."""
    mosaic, side = imagery.mosaic, imagery.scale.baseline
    window = Window(mosaic.window.row, mosaic.window.col, side, side)
    path = scratch / "stack.tif"
    options: dict[str, Any] = {"driver": "GTiff", "TILED": "YES", "BLOCKXSIZE": 512, "BLOCKYSIZE": 512}
    write_raster(path, mosaic.read(window).bands, transform=window.transform, **options)
    return path


def _baseline(imagery: Imagery, stack: Path, scratch: Path) -> RunResult:
    # At the quick scale this process does the work. It has threads, so it must not fork.
    loaders = 0 if imagery.scale.quick else LOADERS
    out = scratch / "baseline.tif"
    usage = imagery.measured(map_in_plain_loop, imagery.model, stack, out, threads=cores(), loaders=loaders)
    return RunResult(imagery.campaign, imagery.scale.baseline**2 / 1e6, usage)


def _cogs(result: RunResult, inputs: DomainInputs, tile: str) -> tuple[Path, Path]:
    stem = result.campaign.output.domains / inputs.domain / f"{inputs.domain}-{tile}"
    return Path(f"{stem}-landcover.tif"), Path(f"{stem}-confidence.tif")


def _agreement(imagery: Imagery, a: RunResult, b: RunResult) -> tuple[float, float]:
    """Shares of pixels with the same class in two runs: of the pixels not used for quantization, and of all."""
    inputs = imagery.mosaic.inputs
    marks, window = right_halves(imagery.patches), inputs.window
    counts = np.zeros((2, 2), np.int64)  # (unused pixels, all pixels) × (with the same class, in total)
    for tile in (t.tile for t in inputs.tiles):
        first, second = (read_cog(_cogs(result, inputs, tile.name)[0]) for result in (a, b))
        place = Window(tile.window.row - window.row, tile.window.col - window.col, *tile.window.shape)
        unseen = mirrored(marks, place)[0].view(np.bool_)
        same = first == second
        counts += [[(same & unseen).sum(), unseen.sum()], [same.sum(), same.size]]
    unseen_share, share = (float(same / pixels) for same, pixels in counts)
    return unseen_share, share
