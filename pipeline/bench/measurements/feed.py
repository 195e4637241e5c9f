"""`feed`: a run with a network that costs nothing, compared with decoding and nothing else.

On tiles as large as a block, with decoding the same windows; in a tile as wide as IGN's, with decoding each internal
tile of the files once.
"""

import statistics
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from pipeline.bench.chart import bar_chart
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import Usage, measure, set_gdal_cache, usage_json, worker_environment
from pipeline.bench.report import BenchReport
from pipeline.bench.wide_imagery import wide_mosaic
from pipeline.config import ClusterSection
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference.block_mapping import map_block, reads_of
from pipeline.progress import OnMessage
from pipeline.runs.planning.throughput import MeasuredRate
from pipeline.sources.domain_inputs import Asset, DomainInputs
from pipeline.sources.reading.mosaic import Mosaic

_BANDS = {"rvb": [1, 2, 3], "irc": [1]}
"""The bands that a map needs from each kind of file."""
_LITTLE_CACHE_MB = 64
_MOST_ROWS = 4
"""Rows of blocks of the wide tile that are read."""
_FilePart = tuple[Path, list[int], RasterWindow]
"""A JPEG 2000 file, the bands to decode, and a window in the file's own pixels."""


def _file_part(asset: Asset, read: Window) -> _FilePart:
    """The part of a file that a read window on the lattice covers."""
    own = Window.from_bounds(asset.bounds)
    part = read.intersect(own).within(own)
    return asset.path, _BANDS[asset.kind], RasterWindow(part.col, part.row, part.width, part.height)


def decode_alone(reads: list[list[_FilePart]], *, threads: int, cache_mb: int) -> Usage:
    """Decodes parts of JPEG 2000 files and does nothing with them; call it in a new process.

    Args:
        reads: a list for each block, which one thread decodes.
        threads: number of readers, each with one GDAL thread.
        cache_mb: GDAL's block cache, in MiB.
    """
    set_gdal_cache(cache_mb)

    @cache
    def opened(path: Path, _thread: int) -> Any:
        """One handle for each thread and file, as in the pipeline."""
        return rasterio.open(path)

    def read_parts(parts: list[_FilePart]) -> None:
        # GDAL's options apply to the thread that sets them.
        with rasterio.Env(GDAL_NUM_THREADS=1, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            for path, bands, window in parts:
                opened(path, threading.get_ident()).read(bands, window=window)

    def work() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read_parts, reads))

    return measure(work)[1]


class ConstantPredictor:
    """A predictor that costs nothing: everywhere water with full confidence, from an array that is never written."""

    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """See `Predictor`."""
        shape = (len(pixels), 2, *valid.shape[1:])
        return np.broadcast_to(np.array([5, 255], np.uint8)[None, :, None, None], shape)


def all_blocks(inputs: DomainInputs, size: int) -> list[Window]:
    """All blocks of all tiles, in the order in which a run submits them."""
    return [block for tile in sorted(t.tile for t in inputs.tiles) for block in tile.window.split(size)]


def decode_imagery(imagery: Imagery, blocks: list[Window], cluster: ClusterSection) -> Usage:
    """Decodes what the blocks read of RVB and IRC files, with the threads and the cache of a cluster.

    Measured in a new process. Pixels that are only reflected are not read twice.
    """
    inputs, layout = imagery.mosaic.inputs, imagery.scale.layout
    reads = [layout.read_of_block(block).intersect(inputs.window) for block in blocks]
    parts = [[_file_part(a, read) for a in inputs.behind(read) if a.kind in ("rvb", "irc")] for read in reads]
    return imagery.measured(decode_alone, parts, threads=cluster.threads, cache_mb=cluster.gdal_cache_mb)


def feed(mosaic: Mosaic, blocks: list[Window], *, layout: Layout, threads: int, cache_mb: int) -> Usage:
    """Maps blocks in threads with `ConstantPredictor`; call it in a new process."""
    set_gdal_cache(cache_mb)
    predictor = ConstantPredictor()

    def map_one(block: Window) -> None:
        map_block(mosaic, block, layout=layout, predictor=predictor)

    def work() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(map_one, blocks))

    return measure(work)[1]


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Decodes alone and feeds the pipeline in turns, each in a new process; then the same in a tile of real width."""
    mosaic, scale, cluster = imagery.mosaic, imagery.scale, imagery.campaign.cluster
    blocks = all_blocks(mosaic.inputs, scale.block)
    resources = {"threads": cluster.threads, "cache_mb": cluster.gdal_cache_mb}
    planned = plan_blocks(mosaic, blocks, layout=scale.layout, cluster=cluster)
    decoded: list[Usage] = []
    fed: list[Usage] = []
    for turn in range(scale.repeats):
        decoded.append(decode_imagery(imagery, blocks, cluster))
        fed.append(imagery.measured(feed, planned, blocks, layout=scale.layout, **resources))
        on_message(f"feed: turn {turn + 1} of {scale.repeats}")
    mpx = sum(block.pixels for block in blocks) / 1e6
    alone, whole = (mpx / statistics.median(u.core_s for u in usages) for usages in (decoded, fed))
    # Halos are read too, but only inside the domain: the rest is reflected.
    read_mpx = sum(scale.layout.read_of_block(b).intersect(mosaic.window).pixels for b in blocks) / 1e6
    alone_wall, whole_wall = (statistics.median(u.wall_s for u in usages) for usages in (decoded, fed))
    wide_figures, wide = _feed_wide(imagery, on_message)
    raw: dict[str, Any] = {
        "mpx": mpx,
        "block": scale.block,
        **resources,
        "decode": [usage_json(u) for u in decoded],
        "feed": [usage_json(u) for u in fed],
        "mpx_per_core_s": {"decode": alone, "feed": whole},
        "share_of_decode_in_wall_s": alone_wall / whole_wall,
        "wide": wide,
    }
    return BenchReport(
        {"feed.share_of_decode": whole / alone, **wide_figures},
        raw,
        bar_chart(
            "Speed of reading",
            [("OpenJPEG alone, RVB + IRC", alone), ("the whole pipeline", whole)],
            unit="Mpx/s a core",
        ),
        (*imagery.notes, "seconds are those in which a core is busy; the share in wall time is under raw"),
        (MeasuredRate.here("read", whole * read_mpx / mpx),),
    )


def plan_blocks(mosaic: Mosaic, blocks: Sequence[Window], *, layout: Layout, cluster: ClusterSection) -> Mosaic:
    """The mosaic with the plan of its blocks' reads, as a run sends it to a worker."""
    return mosaic.planned(reads_of(mosaic.window, blocks, layout=layout), cluster.decoded_cache_mb * 2**20)


def _feed_wide(imagery: Imagery, on_message: OnMessage) -> tuple[dict[str, float], dict[str, Any]]:
    """Reads of a wide tile against decoding each internal tile behind them once; and memory by area.

    Returns:
        Figures, and what was measured.
    """
    scale, cluster, recipe = imagery.scale, imagery.campaign.cluster, imagery.campaign.recipe()
    mosaic = wide_mosaic(imagery.folder, imagery.patches, recipe, side=scale.wide, on_message=on_message)
    layout, block = scale.layout, scale.block
    high = _rows(mosaic.window, 0, _MOST_ROWS * block)
    # Around the edge of the first blocks, where as many tiles wait for the next row as anywhere in the larger area.
    low = _rows(mosaic.window, block // 2, block)

    def fed(area: Window, size: int, *, cache_mb: int) -> Usage:
        own = list(area.split(size))
        planned = plan_blocks(mosaic, own, layout=layout, cluster=cluster)
        return imagery.measured(feed, planned, own, layout=layout, threads=cluster.threads, cache_mb=cache_mb)

    # With the settings of the memory allocator that workers have; a process reads them when it starts.
    with worker_environment(imagery.campaign):
        parts = internal_tiles(mosaic, list(high.split(block)), layout)
        once = imagery.measured(decode_alone, parts, threads=cluster.threads, cache_mb=_LITTLE_CACHE_MB)
        whole = fed(high, block, cache_mb=cluster.gdal_cache_mb)
        on_message(f"feed: {high.pixels / 1e6:.0f} Mpx of a tile of {scale.wide} px are read")
        # Blocks of a core, because a single row of larger ones shares nothing with the next row; and a cache of GDAL's
        # that the elevation of the smaller area fills.
        few, many = (fed(area, layout.core, cache_mb=_LITTLE_CACHE_MB) for area in (low, high))
    figures = {
        "feed.share_of_decode_once": once.core_s / whole.core_s,
        "feed.memory_ratio_4x": many.own_peak_bytes / few.own_peak_bytes,
    }
    measured = {"decode_once": once, "feed": whole, "feed_a_row": few, "feed_4_rows": many}
    return figures, {
        "mpx": high.pixels / 1e6,
        "decoded_cache_mb": cluster.decoded_cache_mb,
        **{name: usage_json(usage) for name, usage in measured.items()},
    }


def _rows(window: Window, start: int, height: int) -> Window:
    return Window(window.row + start, window.col, height, window.width)


def internal_tiles(mosaic: Mosaic, blocks: Sequence[Window], layout: Layout) -> list[list[_FilePart]]:
    """The internal tiles of all files that the blocks read, each once and whole."""
    reads = reads_of(mosaic.window, blocks, layout=layout)
    parts = []
    for asset in (a for a in mosaic.inputs.assets if a.kind in _BANDS):
        own, (height, width) = Window.from_bounds(asset.bounds), asset.block
        for strip in own.strips(height):
            for col in range(own.col, own.right, width):
                tile = Window(strip.row, col, strip.height, width).intersect(own)
                if any(tile.intersect(read).pixels for read in reads):
                    parts.append([_file_part(asset, tile)])
    return parts
