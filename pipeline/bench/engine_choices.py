"""The ways to map that `run` compares: one campaign in different precisions of OpenVINO."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.bench.machine import cores
from pipeline.config import Campaign, Precision

_CACHE_MB = 192
"""Less than the 225 MB of pixels in a tile of 1 km, so that one tile fills the cache."""


@dataclass(frozen=True)
class EngineChoice:
    """One way to map the imagery."""

    precision: Precision
    quantized: Path | None = None
    """The int8 network, for precision int8."""
    tiles_in_flight: int | None = None
    """Replaces the campaign's number."""

    @property
    def name(self) -> str:
        """The name in messages and in the JSON."""
        return f"openvino {self.precision}"

    def apply(self, campaign: Campaign, products: Path) -> Campaign:
        """The campaign with this engine and precision, and another folder for its products.

        A block has the size of a core here. A tile of 1 km would otherwise be one block, and the next block can be read
        during inference only if there are several. A single tile fills GDAL's cache, so that memory can be compared
        between areas.
        """
        cluster = {
            "gdal_cache_mb": _CACHE_MB,
            "tiles_in_flight": self.tiles_in_flight or campaign.cluster.tiles_in_flight,
        }
        engine: Literal["openvino"] = "openvino"
        return campaign.model_copy(
            update={
                "engine": engine,
                "precision": self.precision,
                "engine_threads": cores(),
                "model": campaign.model.model_copy(update={"quantized": self.quantized}),
                "grid": campaign.grid.model_copy(update={"block": campaign.grid.core}),
                "cluster": campaign.cluster.model_copy(update=cluster),
                "output": campaign.output.model_copy(update={"domains": products}),
            }
        )


FP32 = EngineChoice("fp32")
"""The reference of every agreement."""
