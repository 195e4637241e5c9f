"""How much memory a worker takes at most, known before anything starts: parts that add up, in bytes.

The engines' shares are linear in the pixels of what they map at once, fitted from above to peaks of whole processes
with the ResNet-34 U-Net of 5 bands and 19 logits in fp32 (Linux, 2 threads): torch 0.82, 1.15 and 2.40 GB at 512²,
1 024² and 2 048², OpenVINO 0.97, 1.95, 2.97 and 9.7 GB at 512², 2 048², 2 848² and 5 376². A lighter one takes less.
"""

from dataclasses import dataclass, fields

from pipeline.errors import ConfigError
from pipeline.grid import Layout
from pipeline.inference.halo import BATCH_PIXELS
from pipeline.inference.predictor import Engine
from pipeline.legend import LAYERS

_PROCESS_BYTES = 1_100_000_000
"""Interpreter, libraries and weights, and what converting and compiling a graph takes for a while."""
_BYTES_A_PIXEL = {"openvino": 330, "torch": 480}
"""Activations of a forward, by engine."""


@dataclass(frozen=True)
class Projection:
    """A worker's memory by what takes it, in bytes."""

    process: int
    """Interpreter, libraries and weights."""
    engine: int
    """A forward of one window."""
    reads: int
    """What the threads have read and map, a block each."""
    tiles: int
    """Layers of the tiles in flight, mapped and not yet sealed, twice while they are put together."""
    cache: int
    """GDAL's block cache."""

    @property
    def total(self) -> int:
        """Of the worker."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        parts = ", ".join(f"{field.name} {getattr(self, field.name) / 1e9:.2f}" for field in fields(self))
        return f"{self.total / 1e9:.2f} GB ({parts})"

    def check(self, budget: int | None) -> None:
        """Raises ConfigError where a worker would take more than `budget` bytes; None is no limit."""
        if budget is not None and self.total > budget:
            raise ConfigError(
                f"a worker would take up to {self}, but cluster.memory_bytes allows {budget / 1e9:.2f} GB; use a "
                f"smaller grid.window (and core), a smaller grid.block, fewer cluster.threads or tiles_in_flight"
            )


def window_bytes(side: int, engine: Engine) -> int:
    """Peak memory of a process that maps a window of `side`² px, in bytes."""
    return _PROCESS_BYTES + side * side * _BYTES_A_PIXEL[engine.name]


def projected_memory(
    layout: Layout,
    engine: Engine,
    *,
    bands: int,
    block: int,
    tile: int,
    threads: int,
    tiles_in_flight: int,
    gdal_cache_mb: int,
) -> Projection:
    """The most memory that a worker takes; with torch on a CUDA device the engine's part is the device's.

    Args:
        layout: its windows decide the engine's part.
        engine: OpenVINO maps windows one by one, torch small ones in batches.
        bands: of the image.
        block: pixels a side.
        tile: pixels a side.
        threads: blocks read and mapped at once.
        tiles_in_flight: tiles submitted and not yet sealed.
        gdal_cache_mb: GDAL's cache in MiB.
    """
    window = layout.window**2
    batch = min(max(1, BATCH_PIXELS // window), (block // layout.core) ** 2) * window
    # A block's bands and mask as they were read, copies of a batch's windows for the engine, and the mapped layers.
    reads = threads * ((bands + 1) * ((block + layout.reach) ** 2 + batch) + len(LAYERS) * (block**2 + batch))
    return Projection(
        process=_PROCESS_BYTES,
        engine=(batch if engine.name == "torch" else window) * _BYTES_A_PIXEL[engine.name],
        reads=reads,
        tiles=tiles_in_flight * 2 * len(LAYERS) * tile**2,
        cache=gdal_cache_mb * 2**20,
    )
