"""`publish`: synthetic products published at two sizes: speed, bytes, inodes, and whether memory grows with the tiles.

Only the maps are synthetic. The rest is the code of every publish: ownership, shards, levels, class shares, the commit.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.chart import bar_chart
from pipeline.bench.development.nation import write_sparse_file
from pipeline.bench.development.rehearsal import rehearsal_campaign
from pipeline.bench.development.synthetic_domains import DELIVERED_TILE, Footprint, write_domains
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import Usage, measure, usage_json
from pipeline.bench.report import BenchReport
from pipeline.config import Campaign
from pipeline.grid import PIXELS_PER_M
from pipeline.halo import Layout
from pipeline.products.tile.seal import seal
from pipeline.products.tile.stac_item import Provenance
from pipeline.progress import OnMessage
from pipeline.runs.publishing.publish import publish

_TILES_A_SIDE = (2, 4)
"""Of the two products."""
_TILE = 5_000
CLASSES = tuple(range(1, 13))
"""Classes of the synthetic maps."""
_PATCH = 50
"""Side of a patch of one class in pixels: 10 m."""
PROVENANCE = Provenance(
    campaign="bench",
    weights="none",
    weights_sha256="0" * 64,
    recipe="none",
    engine="none",
    precision="fp32",
    engine_threads=1,
    layout=Layout(),
    software=(),
)


@dataclass(frozen=True)
class PublishedProduct:
    """The size of a published product, and the resources that publishing used."""

    tiles: int
    tile: int
    """Side of a tile in pixels."""
    files: int
    """Inodes of the edition's data, without folders and metadata, which do not grow with the area."""
    size: int
    """Bytes of all files of the edition."""
    usage: Usage


def synthetic_map(seed: int, side: int) -> NDArray[np.uint8]:
    """A map of square patches of random classes, with noise as confidence: uint8 (layer, y, x)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 1 + len(CLASSES), (-(-side // _PATCH),) * 2, np.uint8)
    stack = np.empty((2, side, side), np.uint8)
    stack[0] = coarse.repeat(_PATCH, 0).repeat(_PATCH, 1)[:side, :side]
    stack[1] = rng.integers(180, 256, (side, side), np.uint8)
    return stack


def publish_once(campaign: Campaign, tiles: int) -> PublishedProduct:
    """Publishes the sealed tiles of a campaign; call it in a new process, which has no other workers."""
    published, usage = measure(lambda: publish(campaign))
    files = [p for p in published.store.resolve().parent.rglob("*") if p.is_file() and not p.is_symlink()]
    data = [p for p in files if p.name.isdigit() and p.parent.name.isdigit()]
    return PublishedProduct(tiles, campaign.grid.tile, len(data), sum(p.stat().st_size for p in files), usage)


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Seals two synthetic products, and publishes each in a new process."""
    scale = imagery.scale
    tile = DELIVERED_TILE if scale.full_size else scale.tile if scale.quick else _TILE
    return _report([_seal_and_publish(imagery, across, tile, on_message) for across in _TILES_A_SIDE])


def _seal_and_publish(imagery: Imagery, across: int, tile: int, on_message: OnMessage) -> PublishedProduct:
    footprint = Footprint.rectangle(1, rows=across, cols=across, tile=tile)
    with tempfile.TemporaryDirectory(prefix="publish-", dir=imagery.folder) as scratch:
        catalog = write_domains(Path(scratch), [footprint], write=write_sparse_file)
        campaign = rehearsal_campaign(imagery, catalog, footprint)
        output = campaign.output.model_copy(update={"national": Path(scratch, "national")})
        campaign = campaign.model_copy(update={"output": output})
        for seed, sealed in enumerate(footprint.tiles):
            seal(
                campaign.product_folder(footprint.domain),
                domain=footprint.domain,
                tile=sealed,
                stack=synthetic_map(seed, tile),
                fingerprint="synthetic",
                live=CLASSES,
                provenance=PROVENANCE,
                inputs=[],
            )
        on_message(f"publish: {len(footprint.tiles)} tiles of {tile} px are sealed in {scratch}")
        return imagery.measured(publish_once, campaign, len(footprint.tiles))


def _km2(tile: int) -> float:
    return (tile / PIXELS_PER_M / 1000) ** 2


def _report(products: list[PublishedProduct]) -> BenchReport:
    few, many = products
    peaks = {f"{p.tiles}_tiles": p.usage.children_peak_bytes / 1e9 for p in products}
    figures = {
        # From the start of the cluster to the commit.
        "publish.mpx_per_s": many.tiles * many.tile**2 / 1e6 / many.usage.wall_s,
        "publish.bytes_per_km2": many.size / many.tiles / _km2(many.tile),
        # With tiles of 5 km: the number of files does not depend on a tile's size.
        "publish.inodes_per_km2": many.files / many.tiles / _km2(DELIVERED_TILE),
        **{f"publish.worker_peak_gb_{name}": peak for name, peak in peaks.items()},
        "publish.memory_ratio_4x": many.usage.children_peak_bytes / few.usage.children_peak_bytes,
    }
    raw: dict[str, Any] = {
        f"{p.tiles}_tiles": {"tile": p.tile, "files": p.files, "bytes": p.size, **usage_json(p.usage)} for p in products
    }
    values = [(name.replace("_", " "), peak) for name, peak in peaks.items()]
    notes = (
        f"the maps are synthetic, patches of {_PATCH} px with noise as confidence; real maps take other bytes",
        f"tiles have {many.tile} px a side; inodes are for tiles of {DELIVERED_TILE} px, which have as many files",
    )
    return BenchReport(figures, raw, bar_chart("Peak memory of a worker", values, unit="GB"), notes)
