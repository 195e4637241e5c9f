"""How much memory a worker takes at most, known before anything starts: parts that add up, in bytes.

The engines' shares are linear in the pixels of what they map at once, fitted from above to peaks of whole processes
with networks of 5 bands and 12 live classes in fp32 (Linux, 2 threads). ResNet-34 U-Net: torch 0.87, 1.16 and 2.13 GB
at 512², 1 024² and 2 048², OpenVINO 0.97, 1.57, 2.12 and 5.25 GB at 512², 2 048², 2 848² and 5 376²; ResNet-34 FPN:
torch 3.00 GB at 2 048², OpenVINO 3.08 GB at 2 848². A lighter one takes less.
On a CUDA device nothing was measured yet: torch's share there is the processor's, whatever the precision.
"""

from dataclasses import dataclass, fields

from pipeline.errors import ConfigError
from pipeline.grid import Layout
from pipeline.inference.halo import BATCH_PIXELS
from pipeline.inference.predictor import Engine
from pipeline.inference.torch_engine import LANES
from pipeline.legend import LAYERS

_PROCESS_BYTES = 1_100_000_000
"""Interpreter, libraries and weights, and what converting and compiling a graph takes for a while."""
_BYTES_A_PIXEL = {"openvino": 250, "torch": 480}
"""Activations of a forward, by engine."""
_CUDA_PROCESS_BYTES = 2_000_000_000
"""What CUDA's libraries and context add to a process of the host: an allowance."""
_CUDA_DEVICE_BYTES = 1_500_000_000
"""Context, weights and the libraries' workspaces on the device: an allowance."""


@dataclass(frozen=True)
class Projection:
    """A worker's memory by what takes it, in bytes."""

    process: int
    """Interpreter, libraries and weights."""
    engine: int
    """A forward of one window, or of torch's batch, with torch's copies on the way there; on a GPU these alone."""
    reads: int
    """What the threads have read and map, a block each."""
    tiles: int
    """Layers of the tiles in flight, mapped and not yet sealed, twice while they are put together."""
    cache: int
    """GDAL's block cache."""
    device: int = 0
    """A GPU's own memory, beside the total; 0 where the engine runs on the processor."""

    @property
    def total(self) -> int:
        """Of the worker on its host."""
        return sum(getattr(self, name) for name in self._on_host())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {getattr(self, name) / 1e9:.2f}" for name in self._on_host())
        beside = f", and {self.device / 1e9:.2f} GB of its GPU" if self.device else ""
        return f"{self.total / 1e9:.2f} GB ({parts}){beside}"

    def _on_host(self) -> list[str]:
        return [field.name for field in fields(self) if field.name != "device"]

    def check(self, budget: int | None, device_budget: int | None = None) -> None:
        """Raises ConfigError where a worker would take more bytes than its host or its GPU may give; None: no limit."""
        if device_budget is not None and self.device > device_budget:
            raise ConfigError(
                f"a worker would take up to {self.device / 1e9:.2f} GB of its GPU, but cluster.device_memory_bytes "
                f"allows {device_budget / 1e9:.2f} GB; use a smaller grid.window (and core)"
            )
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
    gpu: bool = False,
) -> Projection:
    """The most memory that a worker takes.

    Args:
        layout: its windows decide the engine's part.
        engine: OpenVINO maps windows one by one, torch small ones in batches.
        bands: of the image.
        block: pixels a side.
        tile: pixels a side.
        threads: blocks read and mapped at once.
        tiles_in_flight: tiles submitted and not yet sealed.
        gdal_cache_mb: GDAL's cache in MiB.
        gpu: the engine runs on a CUDA device.
    """
    window = layout.window**2
    batch = min(max(1, BATCH_PIXELS // window), (block // layout.core) ** 2) * window
    # A block's bands and mask as they were read, copies of a batch's windows for the engine, and the mapped layers.
    reads = threads * ((bands + 1) * ((block + layout.reach) ** 2 + batch) + len(LAYERS) * (block**2 + batch))
    # Torch's batches come and go through buffers of their own, on the host and, where there is one, on the device.
    lanes = min(LANES, threads) * (bands + 1 + len(LAYERS)) * batch if engine.name == "torch" else 0
    forward = (batch if engine.name == "torch" else window) * _BYTES_A_PIXEL[engine.name]
    return Projection(
        process=_PROCESS_BYTES + (_CUDA_PROCESS_BYTES if gpu else 0),
        engine=lanes + (0 if gpu else forward),
        device=_CUDA_DEVICE_BYTES + lanes + forward if gpu else 0,
        reads=reads,
        tiles=tiles_in_flight * 2 * len(LAYERS) * tile**2,
        cache=gdal_cache_mb * 2**20,
    )
