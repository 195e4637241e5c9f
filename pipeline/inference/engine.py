"""Which engine runs a network. Nothing here imports torch where there is no GPU, so that plans are fast."""

import ctypes
import re
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.config import EngineName, Precision
from pipeline.errors import EngineError
from pipeline.inference.quantized_model import QuantizedModel, read_quantized
from pipeline.legend import LAYERS
from pipeline.model.weights_file import UnloadedModel

if TYPE_CHECKING:
    from pipeline.model import Model

LANES = 3
"""Batches of the torch engine in flight at once: one is copied to the device, one is mapped, one is copied back."""
PLANES = len(LAYERS) + 1
"""Planes of a mapped window: the layers, and where a logit that is switched off would have won."""
NOT_FINITE = 0
"""Confidence of a pixel with a NaN or infinite live logit. The greatest softmax over n classes is never below 1 / n."""
NO_FEATURES_COMPILED = (
    "the novelty score (model.reference) needs the encoder's features, which torch_compile does not give; remove either"
)
BATCH_PIXELS = 2_848 * 2_848
"""Most pixels of small windows in one batch: it takes the memory of one large window."""


@dataclass(frozen=True)
class Engine:
    """The engine that runs the network, and its precision; part of every fingerprint."""

    name: Literal["torch", "openvino"] = "torch"
    precision: Precision = "fp32"
    quantized: QuantizedModel | None = None
    """The int8 network; None for other precisions."""
    compiled: bool = False
    """True if `torch.compile` fuses the graph."""

    @property
    def content(self) -> dict[str, str]:
        """The part of a fingerprint that belongs to the engine.

        A quantized network counts by its hash, not by its path. Compilation counts, because fused operations round in
        other places. The version of the compiler does not: versions are provenance.
        """
        own: dict[str, str] = {"name": self.name, "precision": self.precision}
        own |= {"quantized": self.quantized.sha256} if self.quantized else {}
        return own | ({"compiled": "true"} if self.compiled else {})


TORCH = Engine()
_INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm"),
}
"""Precision → names of instructions, as the kernel gives them, one of which makes it fast on a processor: on x86 or,
the last of each, on ARM. Without them bf16 is emulated or not used, and int8 adds products in 16 bits."""


def missing_instructions(engine: Engine, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Names of the processor's instructions that the engine's precision needs; empty where it has one of them.

    Args:
        engine: torch on a GPU needs none.
        cpuinfo: the kernel's table of processors.

    Example:
        >>> missing_instructions(Engine("openvino", "fp32"))
        ''
    """
    needed = _INSTRUCTIONS.get(engine.precision, ()) if engine.name == "openvino" else ()
    found = set(re.findall(r"\w+", cpuinfo.read_text(encoding="utf-8"))) if needed else set()
    return "" if found.intersection(needed) else " or ".join(needed)


def check_gives_features(engine: Engine) -> None:
    """Raises EngineError if the engine does not give the encoder's features, which the novelty score needs."""
    if engine.compiled:
        raise EngineError(NO_FEATURES_COMPILED)
    if engine.quantized and not engine.quantized.gives_features:
        raise EngineError(
            f"{engine.quantized.path}: this int8 network does not give the encoder's features, which the novelty score "
            "(model.reference) needs; run `landcover quantize` again with model.reference in the campaign, or remove "
            "model.reference"
        )


def on_gpu(engine: Engine) -> bool:
    """True if this process runs the engine on a CUDA device."""
    return engine.name == "torch" and _has_gpu()


def cuda_devices() -> tuple[str, ...]:
    """Names of the CUDA devices that this process sees."""
    if not _has_driver():
        return ()
    from pipeline.inference import torch_engine

    return torch_engine.device_names()


def _has_gpu() -> bool:
    if not _has_driver():
        return False
    from pipeline.inference import torch_engine

    return torch_engine.device().type == "cuda"


def _has_driver() -> bool:
    """False where torch can find no GPU, because no driver of one is installed."""
    if "torch" in sys.modules:
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()  # AMD's driver, which torch calls CUDA too
    return True


def resolve_engine(
    name: EngineName = "auto",
    *,
    precision: Precision = "fp32",
    quantized: Path | None = None,
    model: "Model | UnloadedModel | None" = None,
    compiled: bool = False,
) -> Engine:
    """The engine for a campaign's `engine:`.

    `auto` is torch if there is a CUDA device, else OpenVINO if it is installed, else torch. With int8 it is OpenVINO.

    Args:
        name: `auto`, `torch` or `openvino`.
        precision: arithmetic of the forward.
        quantized: the XML that `landcover quantize` made, for int8 only.
        model: the model that it must have been made from, for int8 only.
        compiled: use `torch.compile`.

    Raises:
        EngineError: the engine is unknown or not installed, or does not have the precision; the quantized network is
            missing, damaged, or made from other weights or another recipe; or `compiled` with another engine than
            torch.
    """
    engine = _resolved(name, precision, quantized, model)
    if compiled and engine.name != "torch":
        raise EngineError(
            f"torch_compile needs engine torch, and engine {name} in {precision} is {engine.name} here. Remove "
            "torch_compile, or set engine: torch"
        )
    return replace(engine, compiled=compiled)


def _resolved(
    name: EngineName, precision: Precision, quantized: Path | None, model: "Model | UnloadedModel | None"
) -> Engine:
    installed = find_spec("openvino") is not None
    if name not in get_args(EngineName):
        raise EngineError(f"unknown engine {name!r}: expected {', '.join(get_args(EngineName))}")
    if name == "openvino" and not installed:
        raise EngineError(
            "engine openvino is not installed: pip install 'landcover-pipeline[cpu]', or set engine: torch"
        )
    if precision == "int8":
        return _int8_engine(name, quantized, model, installed=installed)
    on_openvino = name == "openvino" or (name == "auto" and installed and not _has_gpu())
    if on_openvino and precision == "fp16":
        raise EngineError(
            "engine openvino has no fp16 on processors; use fp32 or bf16, or engine: torch on a CUDA device"
        )
    return Engine("openvino" if on_openvino else "torch", precision)


def _int8_engine(
    name: EngineName, quantized: Path | None, model: "Model | UnloadedModel | None", *, installed: bool
) -> Engine:
    if name == "torch" or not installed:
        raise EngineError(
            f"precision int8 needs engine openvino, got {name}"
            + ("" if installed else ", and OpenVINO is not installed: pip install 'landcover-pipeline[cpu]'")
        )
    if quantized is None or model is None:
        raise EngineError(
            "precision int8 needs a quantized network (model.quantized in a campaign, --quantized on the command "
            "line); make one with `landcover quantize`"
        )
    found = read_quantized(quantized)
    found.check_fits(model)
    return Engine("openvino", "int8", found)


def check_finite(layers: NDArray[np.uint8]) -> None:
    """Raises EngineError if a logit of planes (n, plane, y, x) was NaN or infinite."""
    if (layers[:, 1] == NOT_FINITE).any():
        raise EngineError("the network computed logits that are not finite; the weights or the input are damaged")
