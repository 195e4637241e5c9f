"""What `run` compares: the same campaign on different engines and precisions. fp32 on OpenVINO comes first."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.bench.machine import cores
from pipeline.config import Campaign, Precision

_CACHE_MB = 192
"""Less than the 225 MB that a tile of 1 km decodes to."""


@dataclass(frozen=True)
class Candidate:
    """One way to map the imagery."""

    precision: Precision
    quantized: Path | None = None
    """The network in int8."""
    tiles_in_flight: int | None = None
    """Instead of the campaign's number."""

    @property
    def name(self) -> str:
        """For people, and the key of the JSON."""
        return f"openvino {self.precision}"

    def of(self, campaign: Campaign, products: Path) -> Campaign:
        """The imagery's campaign on this engine, into a folder of its own.

        A block is a core here: a tile of 1 km has one block of the default size, and reading beside inferring wants
        several. GDAL's cache is one that a single tile fills, so that memory can be compared between areas.
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


REFERENCE = Candidate("fp32")
"""The reference of every agreement."""
