"""`publish`: made-up products published at two sizes: Mpx/s, bytes and inodes, and whether memory grows with tiles.

All is what every publish does: ownership, shards, levels, class shares, and the commit. Only the maps are made up.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.chart import bars
from pipeline.bench.development.nation import sparse
from pipeline.bench.development.rehearsal import FULL_TILE, campaign_of
from pipeline.bench.development.synthetic_domains import FRANCE, Footprint, make_up
from pipeline.bench.imagery import Imagery, Say
from pipeline.bench.machine import Usage, measure, usage_json
from pipeline.bench.report import Report
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.grid import PIXELS_PER_M, Layout, Tile
from pipeline.products.tile.seal import seal
from pipeline.products.tile.stac_item import Provenance
from pipeline.runs.publishing.publish import publish

NAME = "publish"
_ACROSS = (2, 4)
"""Tiles a side of the two products."""
_TILE = 5_000
_CLASSES = tuple(range(1, 13))
_PATCH = 50
"""Pixels a side of what has one class: 10 m."""
_PROVENANCE = Provenance(
    campaign="bench",
    weights="none",
    weights_sha256="0" * 64,
    recipe="none",
    engine="none",
    precision="fp32",
    engine_threads=1,
    layout=Layout(),
    software=(),
    citation="",
    doi="",
)


@dataclass(frozen=True)
class Sized:
    """A publish of so many tiles."""

    tiles: int
    tile: int
    files: int
    """Inodes of an edition's data, folders and metadata left out: they do not grow with the area."""
    size: int
    """Bytes of all its files."""
    usage: Usage

    @property
    def mpx_per_s(self) -> float:
        """From the start of the cluster to the commit."""
        return self.tiles * self.tile**2 / 1e6 / self.usage.wall_s

    @property
    def bytes_per_km2(self) -> float:
        """Of ground."""
        return self.size / (self.tiles * (self.tile / PIXELS_PER_M / 1000) ** 2)

    @property
    def inodes_per_km2(self) -> float:
        """With tiles of 5 km: a tile has as many files whatever its size."""
        return self.files / self.tiles / (FULL_TILE / PIXELS_PER_M / 1000) ** 2


def made_up_map(seed: int, side: int) -> NDArray[np.uint8]:
    """Patches of classes and a confidence that varies a little: uint8 (layer, y, x)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 1 + len(_CLASSES), (-(-side // _PATCH),) * 2, np.uint8)
    stack = np.empty((2, side, side), np.uint8)
    stack[0] = coarse.repeat(_PATCH, 0).repeat(_PATCH, 1)[:side, :side]
    stack[1] = rng.integers(180, 256, (side, side), np.uint8)
    return stack


def publish_once(campaign: Campaign, tiles: int) -> Sized:
    """Publishes a campaign's sealed tiles; to be called in a fresh process, whose workers are counted."""
    published, usage = measure(lambda: publish(campaign))
    files = [p for p in published.store.resolve().parent.rglob("*") if p.is_file() and not p.is_symlink()]
    data = [p for p in files if p.name.isdigit() and p.parent.name.isdigit()]
    return Sized(tiles, campaign.grid.tile, len(data), sum(p.stat().st_size for p in files), usage)


def run(imagery: Imagery, *, say: Say) -> Report:
    """Seals two made-up products, and publishes each in a process of its own."""
    full = imagery.scale.departement_tile == FULL_TILE
    tile = FULL_TILE if full else _TILE if imagery.scale.apart else imagery.scale.tile
    return _report([_sized(imagery, across, tile, say) for across in _ACROSS])


def _sized(imagery: Imagery, across: int, tile: int, say: Say) -> Sized:
    given = Footprint.oblong(1, (FRANCE.row, FRANCE.col), rows=across, cols=across, tile=tile)
    with tempfile.TemporaryDirectory(prefix="publish-", dir=imagery.folder) as scratch:
        catalog = make_up(Path(scratch), [given], write=sparse)
        campaign = campaign_of(imagery, catalog, given)
        output = campaign.output.model_copy(update={"national": Path(scratch, "national")})
        campaign = campaign.model_copy(update={"output": output})
        for seed, made in enumerate(given.tiles):
            _seal(campaign, given.domain, made, seed)
        say(f"publish: {len(given.tiles)} tiles of {tile} px are sealed in {scratch}")
        return imagery.measured(publish_once, campaign, len(given.tiles))


def _seal(campaign: Campaign, domain: Domain, tile: Tile, seed: int) -> None:
    seal(
        campaign.product_folder(domain),
        domain=domain,
        tile=tile,
        stack=made_up_map(seed, tile.window.height),
        fingerprint="made up",
        live=_CLASSES,
        provenance=_PROVENANCE,
        inputs=[],
    )


def _report(sizes: list[Sized]) -> Report:
    few, many = sizes
    peaks = [s.usage.children_peak_bytes / 1e9 for s in sizes]
    figures = {
        "publish.mpx_per_s": many.mpx_per_s,
        "publish.bytes_per_km2": many.bytes_per_km2,
        "publish.inodes_per_km2": many.inodes_per_km2,
        f"publish.worker_peak_gb_{few.tiles}_tiles": peaks[0],
        f"publish.worker_peak_gb_{many.tiles}_tiles": peaks[1],
        "publish.memory_ratio_4x": many.usage.children_peak_bytes / few.usage.children_peak_bytes,
    }
    raw: dict[str, Any] = {
        f"{s.tiles}_tiles": {"tile": s.tile, "files": s.files, "bytes": s.size, **usage_json(s.usage)} for s in sizes
    }
    picture = bars(
        "A worker's peak memory", [(f"{s.tiles} tiles", p) for s, p in zip(sizes, peaks, strict=True)], unit="GB"
    )
    notes = (
        f"the maps are made up, patches of {_PATCH} px with noise for confidence; real ones take other bytes",
        f"tiles have {many.tile} px a side; inodes are those of tiles of {FULL_TILE} px, which have as many files each",
    )
    return Report(NAME, figures, raw, picture, notes)
