"""The account of a run: the core-seconds of its parts, each measured alone in a new process, and what is left.

| part | what is measured |
| --- | --- |
| `decode` | decoding each internal tile of the files once |
| `forward` | the network's windows, after compilation |
| `seal` | COGs with overviews and checksums |
| `start` | opening the cluster with the network in its workers, and closing it |
| `compile` | what the first window takes beyond a forward |
| `read` | reading and cutting all blocks for a network that costs nothing, beyond `decode` |
| `item` | sealing a tile beyond its COGs |
| `driver` | the process of the run itself, beyond its part of `start` |
| `rest` | what the run used beyond all of these: threads in each other's way, and Dask in the workers |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.bench.forward import forward_seconds, window_image
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import Usage, cores, measure, worker_environment
from pipeline.bench.measurements.feed import all_blocks, decode_alone, feed, internal_tiles, plan_blocks
from pipeline.cluster.client import open_cluster, register_plugin
from pipeline.config import Campaign
from pipeline.geobox import lattice_geobox
from pipeline.grid import Tile, Window
from pipeline.inference import Engine, predictor_for
from pipeline.legend import LAYERS
from pipeline.products.tile.cog import read_cog, write_cog
from pipeline.products.tile.seal import seal, stem
from pipeline.runs.mapping.run import ResidentModel
from pipeline.runs.planning.provenance import tile_provenance
from pipeline.runs.planning.resolved_campaign import resolve
from pipeline.sources.domain_inputs import DomainInputs

_FORWARDS = 4
_DECODING_CACHE_MB = 64


@dataclass(frozen=True)
class RunAccount:
    """Where the core-seconds of a run went."""

    parts: Mapping[str, float]
    """Part → core-seconds; they add up to what the run used."""
    decode_by_window: float
    """Core-seconds in which GDAL alone decodes the windows of the run, where they overlap again."""

    @classmethod
    def of(cls, parts: Mapping[str, float], *, start: Usage, used: Usage, decode_by_window: float) -> "RunAccount":
        """The account of what a run used.

        Args:
            parts: those of `read_parts`, `forward_parts` and `seal_parts`.
            start: of `start_alone`.
            used: by the run.
            decode_by_window: see the field.
        """
        known = {**parts, "start": start.core_s, "driver": used.own_core_s - start.own_core_s}
        return cls(known | {"rest": used.core_s - sum(known.values())}, decode_by_window)

    @property
    def share(self) -> float:
        """Decoding by window, forwards and sealing as a share of all."""
        return self._share(self.decode_by_window)

    @property
    def share_once(self) -> float:
        """Decoding each internal tile once, forwards and sealing as a share of all."""
        return self._share(self.parts["decode"])

    def _share(self, decode: float) -> float:
        return (decode + self.parts["forward"] + self.parts["seal"]) / sum(self.parts.values())

    def __str__(self) -> str:
        """`66.1 core-s: forward 40.4, decode 14.7, …`, the largest first."""
        listed = ", ".join(f"{part} {s:.1f}" for part, s in sorted(self.parts.items(), key=lambda own: -own[1]))
        return f"{sum(self.parts.values()):.1f} core-s: {listed}"


def read_parts(imagery: Imagery, campaign: Campaign, blocks: Sequence[Window]) -> dict[str, float]:
    """`decode` and `read`, for the blocks, the threads and the cache of a campaign over the imagery."""
    mosaic, layout, cluster = imagery.mosaic, imagery.scale.layout, campaign.cluster
    planned = plan_blocks(mosaic, blocks, layout=layout, cluster=cluster)
    tiles = internal_tiles(mosaic, blocks, layout)
    with worker_environment(campaign):
        once = imagery.measured(decode_alone, tiles, threads=cluster.threads, cache_mb=_DECODING_CACHE_MB)
        fed = imagery.measured(
            feed, planned, list(blocks), layout=layout, threads=cluster.threads, cache_mb=cluster.gdal_cache_mb
        )
    return {"decode": once.core_s, "read": fed.core_s - once.core_s}


def forward_parts(imagery: Imagery, engine: Engine) -> dict[str, float]:
    """`forward` and `compile`, for all windows of the imagery."""
    blocks = all_blocks(imagery.mosaic.inputs, imagery.scale.layout.core)
    windows = sum(len(imagery.scale.layout.windows_of(block)) for block in blocks)
    first, others = imagery.measured(time_forwards, imagery, engine)
    each = others.core_s / _FORWARDS
    return {"forward": each * windows, "compile": first.core_s - each}


def time_forwards(imagery: Imagery, engine: Engine) -> tuple[Usage, Usage]:
    """Measures the first forward of an engine on a whole window, and some later ones; call it in a new process."""
    predictor = predictor_for(imagery.model, engine, threads=cores())
    image = window_image(imagery, imagery.scale.layout.window)
    first = measure(lambda: forward_seconds(predictor, image))[1]
    return first, measure(lambda: [forward_seconds(predictor, image) for _ in range(_FORWARDS)])[1]


def seal_parts(imagery: Imagery, campaign: Campaign, scratch: Path) -> dict[str, float]:
    """`seal` and `item`, for all tiles of a campaign that has run: one tile is sealed again, below `scratch`."""
    inputs = imagery.mosaic.inputs
    tile = inputs.tiles[0].tile
    cogs, whole = imagery.measured(seal_alone, campaign, inputs, tile, scratch)
    one_tile = {"seal": cogs.core_s, "item": whole.core_s - cogs.core_s}
    return {name: core_s * len(inputs.tiles) for name, core_s in one_tile.items()}


def seal_alone(campaign: Campaign, inputs: DomainInputs, tile: Tile, scratch: Path) -> tuple[Usage, Usage]:
    """Writes the COGs of a sealed tile again, and seals it again, below `scratch`; call it in a new process."""
    sealed, resolved = campaign.product_folder(inputs.domain), resolve(campaign)
    paths = [sealed / f"{stem(inputs.domain, tile)}-{layer}.tif" for layer in LAYERS]
    stack = np.stack([read_cog(path) for path in paths])
    live, provenance = resolved.recipe.live, tile_provenance(resolved, inputs, tile)
    geobox = lattice_geobox(tile.window, inputs.crs)

    def write() -> None:
        for layer, pixels in zip(LAYERS, stack, strict=True):
            write_cog(scratch / "cogs" / f"{layer}.tif", pixels, layer=layer, geobox=geobox, live=live, tags={})

    def seal_tile() -> None:
        seal(
            scratch / "sealed",
            domain=inputs.domain,
            tile=tile,
            stack=stack,
            fingerprint="",
            live=live,
            provenance=provenance,
            inputs=[],
            crs=inputs.crs,
        )

    return measure(write)[1], measure(seal_tile)[1]


def start_alone(campaign: Campaign) -> Usage:
    """Opens a campaign's cluster, loads its network in each worker, and closes it; call it in a new process."""
    resolved = resolve(campaign)
    resident = ResidentModel(resolved.method, resolved.engine_threads)

    def work() -> None:
        with open_cluster(campaign) as client:
            register_plugin(client, resident)

    return measure(work)[1]
