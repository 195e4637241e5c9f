"""Projects the largest memory of a worker before a run starts, as a sum of parts in bytes.

The engines' parts are linear in the pixels that they map at once. They are upper bounds fitted to the peaks of whole
processes, with networks of 5 bands and 12 live classes in fp32 (Linux, 2 threads). ResNet-34 U-Net: torch 0.87, 1.16
and 2.13 GB at 512², 1 024² and 2 048² px; OpenVINO 0.97, 1.57, 2.12 and 5.25 GB at 512², 2 048², 2 848² and 5 376² px.
ResNet-34 FPN: torch 3.00 GB at 2 048² px, OpenVINO 3.08 GB at 2 848² px. Lighter networks take less.

FLAIR-HUB's UPerNets take more: with torch 1.82 GB at 1 024² px on ConvNeXtV2 tiny, and at 768² px 1.87 GB on ConvNeXtV2
base and 2.02 GB on Swin base: 1.1 to 1.2 kB a pixel beside the weights. A U-Net on ConvNeXtV2 tiny takes 1.19 GB at
1 024² px.

Nothing has been measured on a CUDA device yet: torch's part there is that of the processor, in every precision.
"""

from dataclasses import dataclass, fields

from pipeline.config import Campaign, GridSection, Recipe
from pipeline.errors import ConfigError
from pipeline.halo import Layout
from pipeline.inference.engine import BATCH_PIXELS, LANES, PLANES, Engine
from pipeline.legend import LAYERS, planes_of

_PROCESS_BYTES = 1_100_000_000
"""Interpreter, libraries and weights, and memory for a while to convert and compile a graph."""
_BYTES_A_PIXEL = {"openvino": 250, "torch": 480}
"""Activations of a forward by engine, in bytes a pixel."""
_MEMBER_BYTES = 250_000_000
"""Allowance for the weights of each further network, as loaded and as the engine has them."""
_COPIES, _CALIBRATED_COPIES, _FLOAT_BYTES = 3, 2, 4
_LARGE_PROCESS_BYTES = 2_700_000_000
"""The same for ConvNeXt and Swin encoders: the weights of the largest have 0.8 GB, and an engine has a copy."""
_WIDE_BYTES_A_PIXEL = {"openvino": 1_300, "torch": 1_300}
"""Activations of a forward with UPerNet or a Swin encoder; with OpenVINO, and for Swin, the same is assumed."""
_CUDA_PROCESS_BYTES = 2_000_000_000
"""Allowance for CUDA's libraries and context in a process on the host."""
_CUDA_DEVICE_BYTES = 1_500_000_000
"""Allowance for context, weights and workspaces of the libraries on the device."""


@dataclass(frozen=True)
class MemoryProjection:
    """Memory of a worker by its parts, in bytes."""

    process: int
    """Interpreter, libraries and weights."""
    engine: int
    """A forward of a window (OpenVINO) or of a batch with its copies (torch); with a GPU only the copies."""
    reads: int
    """The blocks that threads have read and map, one for each thread."""
    tiles: int
    """Layers of the tiles in flight until they are sealed, twice while they are put together."""
    cache: int
    """GDAL's block cache, and decoded tiles of imagery that later blocks need."""
    device: int = 0
    """Memory of the GPU, which is not part of the total; 0 if the engine runs on the processor."""

    @property
    def total(self) -> int:
        """Memory of the worker on its host."""
        return sum(getattr(self, name) for name in self._on_host())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {getattr(self, name) / 1e9:.2f}" for name in self._on_host())
        beside = f", and {self.device / 1e9:.2f} GB of its GPU" if self.device else ""
        return f"{self.total / 1e9:.2f} GB ({parts}){beside}"

    def _on_host(self) -> list[str]:
        return [field.name for field in fields(self) if field.name != "device"]

    def check(self, budget: int | None, device_budget: int | None = None, *, auto: bool = False) -> None:
        """Raises ConfigError if a worker would exceed the memory limit of its host or its GPU; None is no limit.

        With `auto`, sizes that the campaign does not state are no remedy.
        """
        if device_budget is not None and self.device > device_budget:
            raise ConfigError(
                f"a worker would take up to {self.device / 1e9:.2f} GB of its GPU, but cluster.device_memory_bytes "
                f"allows {device_budget / 1e9:.2f} GB. Use a smaller grid.window and grid.core"
            )
        if budget is not None and self.total > budget:
            sizes = "" if auto else "a smaller grid.window and grid.core, a smaller grid.block, or "
            raise ConfigError(
                f"a worker would take up to {self}, but cluster.memory_bytes allows {budget / 1e9:.2f} GB. Use "
                f"{sizes}fewer cluster.threads or tiles_in_flight"
            )

    def check_share(self, share: int) -> None:
        """Raises ConfigError if a worker would exceed its share of the memory here: Dask would pause it for ever."""
        if self.total > share:
            raise ConfigError(
                f"a worker would take up to {self}, but its share of the memory here is {share / 1e9:.2f} GB. Use "
                "fewer --workers, request more memory, or choose a smaller grid.window, grid.core or grid.block"
            )


def window_bytes(side: int, engine: Engine) -> int:
    """Peak memory of a process that maps one window of `side`² px, in bytes."""
    return _PROCESS_BYTES + side * side * _BYTES_A_PIXEL[engine.name]


def worker_memory(
    campaign: Campaign, engine: Engine, *, grid: GridSection, layout: Layout, recipe: Recipe, gpu: bool
) -> MemoryProjection:
    """Projects the largest memory of a campaign's worker with these sizes and this engine."""
    cluster, members = campaign.cluster, len(campaign.model.networks)
    averages = members > 1 or campaign.model.tta != "none" or bool(campaign.layers)
    copies = _COPIES + (0 if campaign.model.temperature == 1.0 else _CALIBRATED_COPIES)
    return project_memory(
        layout,
        engine,
        recipe=recipe,
        block=grid.block,
        tile=grid.tile,
        threads=cluster.threads,
        tiles_in_flight=cluster.tiles_in_flight,
        gdal_cache_mb=cluster.gdal_cache_mb,
        decoded_cache_mb=cluster.decoded_cache_mb,
        gpu=gpu,
        members=members,
        averaged=copies * len(recipe.live) if averages else 0,
        planes=planes_of(campaign.layers, recipe.live),
    )


def project_memory(  # noqa: PLR0913  each is a size that a worker's memory follows from
    layout: Layout,
    engine: Engine,
    *,
    recipe: Recipe,
    block: int,
    tile: int,
    threads: int,
    tiles_in_flight: int,
    gdal_cache_mb: int,
    decoded_cache_mb: int,
    gpu: bool = False,
    members: int = 1,
    averaged: int = 0,
    planes: int = 0,
) -> MemoryProjection:
    """Projects the largest memory of a worker.

    Args:
        layout: gives the size of the windows.
        engine: OpenVINO maps windows one by one, and torch maps small ones in batches.
        recipe: of the network; its bands are counted, and some networks take more than others.
        block: side of a block in pixels.
        tile: side of a tile in pixels.
        threads: number of blocks read and mapped at once.
        tiles_in_flight: number of tiles submitted and not yet sealed.
        gdal_cache_mb: GDAL's block cache, in MiB.
        decoded_cache_mb: decoded tiles of imagery that later blocks need, in MiB.
        gpu: True if the engine runs on a CUDA device.
        members: number of networks; OpenVINO keeps the activations of each.
        averaged: probabilities of a pixel that are kept beside a forward, in float32: of each class, sum, summand and
            mean, and two more with a temperature of the average. 0 where nothing is averaged.
        planes: number of planes of optional layers.
    """
    bands, has_large_encoder = len(recipe.bands), recipe.encoder.startswith(("tu-convnext", "tu-swin"))
    is_wide = recipe.architecture == "upernet" or recipe.encoder.startswith("tu-swin")
    window = layout.window**2
    batch = min(max(1, BATCH_PIXELS // window), (block // layout.core) ** 2) * window
    # For each thread: bands and mask of a block, copies of a batch's windows for the engine, and the mapped layers.
    kept, made = len(LAYERS) + planes, PLANES + planes
    reads = threads * ((bands + 1) * ((block + layout.reach) ** 2 + batch) + kept * block**2 + made * batch)
    # Torch copies batches through buffers of its own, on the host and on the device if there is one.
    lanes = min(LANES, threads) * (bands + 1 + made) * batch if engine.name == "torch" else 0
    on_torch = engine.name == "torch"
    activations = (_WIDE_BYTES_A_PIXEL if is_wide else _BYTES_A_PIXEL)[engine.name] * (1 if on_torch else members)
    forward = (batch if on_torch else window) * (activations + _FLOAT_BYTES * averaged)
    weights = (members - 1) * _MEMBER_BYTES
    return MemoryProjection(
        process=(_LARGE_PROCESS_BYTES if has_large_encoder else _PROCESS_BYTES)
        + weights
        + (_CUDA_PROCESS_BYTES if gpu else 0),
        engine=lanes + (0 if gpu else forward),
        device=_CUDA_DEVICE_BYTES + weights + lanes + forward if gpu else 0,
        reads=reads,
        tiles=tiles_in_flight * 2 * kept * tile**2,
        cache=(gdal_cache_mb + decoded_cache_mb) * 2**20,
    )
