"""`run`: a campaign end to end against the loop of IGN's command, and against the sum of its own parts."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench.chart import bars
from pipeline.bench.decode import decode, read_layer, seal_again
from pipeline.bench.engine_choices import REFERENCE, Candidate
from pipeline.bench.imagery import Imagery, Say, mirrored
from pipeline.bench.machine import Usage, cores, measure, usage_json
from pipeline.bench.measurements.feed import blocks_of, parts_of
from pipeline.bench.measurements.quantize import held_out, in_int8
from pipeline.bench.plain_loop import LOADERS, map_as_ign
from pipeline.bench.report import Report
from pipeline.config import Campaign
from pipeline.demo.delivery_writer import write_raster
from pipeline.grid import Layout, Window
from pipeline.inference import Engine, predictor_for
from pipeline.runs.mapping.run import run as run_plan
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.planning.throughput import MeasuredRate
from pipeline.sources.domain_inputs import DomainInputs

NAME = "run"
MIN_AGREEMENT = 0.99
"""Of a candidate with fp32: under it, speed counts nothing."""
_FORWARDS = 4
_ENGINE = Engine("openvino", "fp32")


@dataclass(frozen=True)
class Ran:
    """A campaign's run."""

    products: Path
    mpx: float
    usage: Usage

    @property
    def mpx_per_s(self) -> float:
        """From the start of the cluster to the last sealed tile."""
        return self.mpx / self.usage.wall_s


@dataclass(frozen=True)
class Judged:
    """A run, and the shares of pixels, 0..1, that have the class which fp32 gives them."""

    name: str
    ran: Ran
    agreement: float
    """Over the pixels that come from parts of the patches that int8 was not calibrated on."""
    everywhere: float


def run(imagery: Imagery, *, say: Say) -> Report:
    """Baseline, runs over one tile and over all, the parts alone, the baseline again: one after the other."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=imagery.folder) as scratch:
        return _run(imagery, Path(scratch), say)


def _run(imagery: Imagery, scratch: Path, say: Say) -> Report:
    inputs = imagery.mosaic.inputs
    stack = _stack(imagery, scratch)
    # First of all, because it leaves the converted graph in the cache, where every run finds it.
    forward = imagery.measured(forwards, imagery, imagery.scale.layout)
    baselines = [_baseline(imagery, stack, scratch)]
    say(f"run: baseline {baselines[0].mpx_per_s:.3f} Mpx/s")
    fp32 = _mapped(imagery, scratch, REFERENCE, say=say)
    quantized = imagery.measured(in_int8, imagery, scratch / "int8" / "model.xml")
    candidate = Candidate("int8", quantized.path)
    int8 = _mapped(imagery, scratch, candidate, say=say)
    # Of one area there is one tile in flight, so there is of four: the smaller run must hold what the larger one holds.
    in_turn = replace(candidate, tiles_in_flight=1)
    one, four = (_mapped(imagery, scratch, in_turn, tiles=tiles, say=say) for tiles in (inputs.names[:1], ()))
    parts = _parts(imagery, fp32, forward, scratch=scratch)
    say("run: its parts are measured")
    if imagery.scale.repeats > 1:
        # Before and after: what else the machine does falls on both sides of the ratio.
        baselines.append(_baseline(imagery, stack, scratch))
    runs = (Judged("openvino fp32", fp32, 1.0, 1.0), Judged("openvino int8", int8, *_agreement(imagery, fp32, int8)))
    return _report(imagery, runs, in_turn=(one, four), parts=parts, baselines=baselines)


def _report(
    imagery: Imagery,
    runs: Sequence[Judged],
    *,
    in_turn: tuple[Ran, Ran],
    parts: Mapping[str, float],
    baselines: Sequence[Ran],
) -> Report:
    """Figures of the runs, fp32 first; `in_turn` are those over one tile and over all, tile by tile."""
    fp32 = runs[0].ran
    best = max((j for j in runs if j.agreement >= MIN_AGREEMENT), key=lambda j: j.ran.mpx_per_s)
    slow = sum(b.mpx for b in baselines) / sum(b.usage.wall_s for b in baselines)
    figures = {
        "run.speedup_fp32": fp32.mpx_per_s / slow,
        "run.speedup_best": best.ran.mpx_per_s / slow,
        "run.agreement_best": best.agreement,
        "run.core_seconds_share": sum(parts.values()) / fp32.usage.core_s,
        "run.memory_ratio_4x": in_turn[1].usage.children_peak_bytes / in_turn[0].usage.children_peak_bytes,
    }
    raw: dict[str, Any] = {
        "runs": {
            j.name: _json(j.ran) | {"agreement_held_out": j.agreement, "agreement_everywhere": j.everywhere}
            for j in runs
        },
        "best": best.name,
        "tile_by_tile": [_json(ran) for ran in in_turn],
        "baselines": [_json(b) for b in baselines],
        "parts_core_s": parts,
    }
    rates = [("baseline", slow), *((j.name, j.ran.mpx_per_s) for j in runs)]
    notes = (
        *imagery.told,
        f"the fastest that agrees with fp32 on {MIN_AGREEMENT:.0%} or more is {best.name}",
        "int8 is calibrated on the left halves of the patches and judged on pixels of their right halves",
        "runs count from the start of their cluster; the baseline neither loads its network nor decodes JPEG 2000",
    )
    return Report(NAME, figures, raw, bars("End to end, COGs written", rates, unit="Mpx/s"), notes, _rates(fp32, parts))


def _rates(ran: Ran, parts: Mapping[str, float]) -> tuple[MeasuredRate, ...]:
    """What sealing takes of a core, and its COGs of a disk."""
    written = sum(path.stat().st_size for path in ran.products.rglob("*.tif"))
    return MeasuredRate.here("seal", ran.mpx / parts["seal"]), MeasuredRate.here("written", written / ran.mpx / 1e6)


def _json(ran: Ran) -> dict[str, Any]:
    return {"mpx": ran.mpx, "mpx_per_s": ran.mpx_per_s, **usage_json(ran.usage)}


def _mapped(imagery: Imagery, scratch: Path, candidate: Candidate, *, say: Say, tiles: Sequence[str] = ()) -> Ran:
    """A run in a process of its own, into a folder of its own."""
    products = Path(tempfile.mkdtemp(prefix="products-", dir=scratch))
    ran = imagery.measured(map_campaign, candidate.of(imagery.campaign, products), tuple(tiles))
    say(f"run: {candidate.name}, {ran.mpx:.1f} Mpx at {ran.mpx_per_s:.3f} Mpx/s")
    return ran


def map_campaign(campaign: Campaign, tiles: Sequence[str]) -> Ran:
    """Runs a campaign over some tiles, all when empty; to be called in a fresh process, whose workers are counted."""
    plan = make_plan(campaign, tiles=tiles)
    ended, usage = measure(lambda: run_plan(plan))
    return Ran(campaign.output.domains, sum(e.pixels for e in ended) / 1e6, usage)


def _stack(imagery: Imagery, scratch: Path) -> Path:
    """The baseline's input: a part of the imagery as one raster of five bands."""
    mosaic, side = imagery.mosaic, imagery.scale.baseline
    window = Window(mosaic.window.row, mosaic.window.col, side, side)
    path = scratch / "stack.tif"
    options: dict[str, Any] = {"driver": "GTiff", "TILED": "YES", "BLOCKXSIZE": 512, "BLOCKYSIZE": 512}
    write_raster(path, mosaic.read(window).bands, transform=window.transform, **options)
    return path


def _baseline(imagery: Imagery, stack: Path, scratch: Path) -> Ran:
    # Forks want a process without threads: loaders of their own only where the measurement has one.
    loaders = LOADERS if imagery.scale.apart else 0
    out = scratch / "baseline.tif"
    usage = imagery.measured(map_as_ign, imagery.model, stack, out, threads=cores(), loaders=loaders)
    return Ran(scratch, imagery.scale.baseline**2 / 1e6, usage)


def _parts(imagery: Imagery, ran: Ran, forward: Usage, *, scratch: Path) -> Mapping[str, float]:
    """Core-seconds that decoding, the forwards and sealing of the fp32 run take when nothing else is done."""
    campaign, inputs = REFERENCE.of(imagery.campaign, ran.products), imagery.mosaic.inputs
    layout, cluster = imagery.scale.layout, campaign.cluster
    blocks = blocks_of(inputs, campaign.grid.block)
    bare = imagery.measured(
        decode, parts_of(inputs, blocks, layout), threads=cluster.threads, cache_mb=cluster.gdal_cache_mb
    )
    windows = sum(len(layout.windows_of(block)) for block in blocks)
    cogs = [_cogs(ran, inputs, name) for name in inputs.names]
    live = imagery.model.recipe.live
    sealed = imagery.measured(seal_again, cogs[0], scratch / "again", live=live)
    return {
        "decode": bare.core_s,
        "forward": forward.core_s / _FORWARDS * windows,
        "seal": sealed.core_s * len(cogs),
    }


def forwards(imagery: Imagery, layout: Layout) -> Usage:
    """Some forwards of the fp32 engine on a whole window, compiled before; to be called in a fresh process."""
    predictor = predictor_for(imagery.model, _ENGINE, threads=cores())
    image = mirrored(imagery.patches, Window(0, 0, layout.window, layout.window))[None]
    valid = np.ones((1, *image.shape[2:]), np.bool_)
    predictor(image, valid)

    def work() -> None:
        for _ in range(_FORWARDS):
            predictor(image, valid)

    return measure(work)[1]


def _cogs(ran: Ran, inputs: DomainInputs, tile: str) -> tuple[Path, Path]:
    stem = ran.products / inputs.domain / f"{inputs.domain}-{tile}"
    return Path(f"{stem}-landcover.tif"), Path(f"{stem}-confidence.tif")


def _agreement(imagery: Imagery, a: Ran, b: Ran) -> tuple[float, float]:
    """Shares of pixels that two runs give the same class: of those that int8 was not calibrated on, and of all."""
    inputs = imagery.mosaic.inputs
    marks, window = held_out(imagery.patches), inputs.window
    counts = np.zeros((2, 2), np.int64)  # (not calibrated on, all) × (the same class, pixels)
    for tile in (t.tile for t in inputs.tiles):
        first, second = (read_layer(_cogs(ran, inputs, tile.name)[0]) for ran in (a, b))
        own = tile.window
        place = Window(own.row - window.row, own.col - window.col, *own.shape)
        unseen = mirrored(marks, place)[0].view(np.bool_)
        same = first == second
        counts += [[(same & unseen).sum(), unseen.sum()], [same.sum(), same.size]]
    unseen_share, share = (float(same / pixels) for same, pixels in counts)
    return unseen_share, share
