"""`feed`: the whole pipeline with a network that costs nothing, against bare decoding of the same windows."""

import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.chart import bars
from pipeline.bench.decode import Part, decode
from pipeline.bench.imagery import Imagery, Say
from pipeline.bench.machine import Usage, measure, set_gdal_cache, usage_json
from pipeline.bench.report import Report
from pipeline.grid import Layout, Window
from pipeline.inference.halo import map_block
from pipeline.runs.planning.throughput import MeasuredRate
from pipeline.sources.domain_inputs import DomainInputs
from pipeline.sources.reading.mosaic import Mosaic

NAME = "feed"


class Free:
    """A predictor that costs nothing: everything is water, for sure, out of one array that is never written."""

    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """See `Predictor`."""
        shape = (len(pixels), 2, *valid.shape[1:])
        return np.broadcast_to(np.array([5, 255], np.uint8)[None, :, None, None], shape)


def parts_of(inputs: DomainInputs, blocks: list[Window], layout: Layout) -> list[list[Part]]:
    """What of RVB and IRC the blocks' reads touch, a list a block; what is reflected is not decoded again."""
    reads = [layout.read_of_block(block).intersect(inputs.window) for block in blocks]
    return [[Part.of(a, read) for a in inputs.behind(read) if a.kind in ("rvb", "irc")] for read in reads]


def blocks_of(inputs: DomainInputs, size: int) -> list[Window]:
    """All blocks of all tiles, in the order in which a run submits them."""
    return [block for tile in sorted(t.tile for t in inputs.tiles) for block in tile.window.split(size)]


def feed(mosaic: Mosaic, blocks: list[Window], *, layout: Layout, threads: int, cache_mb: int) -> Usage:
    """Maps blocks with `Free`, a thread a block; to be called in a fresh process."""
    set_gdal_cache(cache_mb)
    predictor = Free()

    def one(block: Window) -> None:
        map_block(mosaic, block, layout=layout, predictor=predictor)

    def work() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, blocks))

    return measure(work)[1]


def run(imagery: Imagery, *, say: Say) -> Report:
    """Bare decoding and feeding in turns, each in a process of its own."""
    mosaic, scale, cluster = imagery.mosaic, imagery.scale, imagery.campaign.cluster
    blocks = blocks_of(mosaic.inputs, scale.block)
    parts = parts_of(mosaic.inputs, blocks, scale.layout)
    how = {"threads": cluster.threads, "cache_mb": cluster.gdal_cache_mb}
    decoded: list[Usage] = []
    fed: list[Usage] = []
    for turn in range(scale.repeats):
        decoded.append(imagery.measured(decode, parts, **how))
        fed.append(imagery.measured(feed, mosaic, blocks, layout=scale.layout, **how))
        say(f"feed: {turn + 1} of {scale.repeats} turns")
    mpx = sum(block.pixels for block in blocks) / 1e6
    bare, whole = (mpx / statistics.median(u.core_s for u in usages) for usages in (decoded, fed))
    # Halos are read too; what is reflected beyond the domain is not.
    read_mpx = sum(scale.layout.read_of_block(b).intersect(mosaic.window).pixels for b in blocks) / 1e6
    bare_wall, whole_wall = (statistics.median(u.wall_s for u in usages) for usages in (decoded, fed))
    raw: dict[str, Any] = {
        "mpx": mpx,
        "block": scale.block,
        **how,
        "decode": [usage_json(u) for u in decoded],
        "feed": [usage_json(u) for u in fed],
        "mpx_per_core_s": {"decode": bare, "feed": whole},
        "share_of_decode_in_wall_s": bare_wall / whole_wall,
    }
    values = [("bare OpenJPEG, RVB + IRC", bare), ("the whole pipeline", whole)]
    return Report(
        NAME,
        {"feed.share_of_decode": whole / bare},
        raw,
        bars("What reading can feed", values, unit="Mpx/s a core"),
        (*imagery.told, "a core's seconds are its busy ones; the share in wall time is under raw"),
        (MeasuredRate.here("read", whole * read_mpx / mpx),),
    )
