"""What `run` compares: the same campaign on different engines and precisions. fp32 on OpenVINO comes first."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.bench.gemm import has_bf16
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import cores
from pipeline.config import Campaign, Precision
from pipeline.inference import Engine

_CACHE_MB = 128


@dataclass(frozen=True)
class Candidate:
    """One way to map the imagery."""

    name: str
    engine: Engine
    model: tuple[tuple[str, str], ...] = ()
    """Keys of the campaign's `model` section that this one needs beside the weights, such as a quantized network."""

    @classmethod
    def fp32(cls) -> "Candidate":
        """The reference of every agreement."""
        return cls("openvino fp32", Engine("openvino", "fp32"))

    def of(self, campaign: Campaign, products: Path) -> Campaign:
        """The imagery's campaign on this engine, into a folder of its own.

        A block is a core here: a tile of 1 km has one block of the default size, and reading beside inferring wants
        several. GDAL's cache is one that a single tile fills, so that memory can be compared between areas.
        """
        engine: Literal["torch", "openvino"] = self.engine.name
        precision: Precision = self.engine.precision
        return campaign.model_copy(
            update={
                "engine": engine,
                "precision": precision,
                "engine_threads": cores(),
                "model": campaign.model.model_copy(update=dict(self.model)),
                "grid": campaign.grid.model_copy(update={"block": campaign.grid.core}),
                "cluster": campaign.cluster.model_copy(update={"gdal_cache_mb": _CACHE_MB}),
                "output": campaign.output.model_copy(update={"domains": products}),
            }
        )


def candidates(imagery: Imagery) -> tuple[Candidate, ...]:
    """All that can be measured here, the fp32 reference first."""
    # At the small scale a second run would only take time.
    wanted = imagery.scale.apart and has_bf16()
    bf16 = (Candidate("openvino bf16", Engine("openvino", "bf16")),) if wanted else ()
    return (Candidate.fp32(), *bf16)
