"""Engines: which one runs a network, and the predictor that a process keeps for it."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import EngineName, Precision
from pipeline.errors import EngineError
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.quantized_model import QuantizedModel, read_quantized
from pipeline.inference.torch_engine import TorchPredictor, device
from pipeline.model import Model


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


def on_gpu(engine: Engine) -> bool:
    """True if this process runs the engine on a CUDA device."""
    return engine.name == "torch" and device().type == "cuda"


class Predictor(Protocol):
    """An engine with a model. Several threads may call it; one at a time uses the device."""

    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Maps a batch of windows.

        Args:
            pixels: uint8 (n, band, y, x), 0..255, with sides that are multiples of the network's stride.
            valid: bool (n, y, x); where it is False, the network sees the channel mean.

        Returns:
            uint8 (n, plane, y, x): the FLAIR value of the most probable live class (never 0);
            round(255 × its softmax over the live logits); and 1 where a logit that is switched off is greater than all
            live ones, else 0. Networks that an older version quantized lack the third plane. Invalid pixels have values
            too, and the caller masks them. The same call gives the same bytes on the same processor, with the same
            libraries and threads of the engine; `OpenVinoPredictor` and `TorchPredictor` say what else may change.

        Raises:
            EngineError: a logit is not finite.
        """
        ...


def resolve_engine(
    name: EngineName = "auto",
    *,
    precision: Precision = "fp32",
    quantized: Path | None = None,
    model: Model | None = None,
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


def _resolved(name: EngineName, precision: Precision, quantized: Path | None, model: Model | None) -> Engine:
    installed = find_spec("openvino") is not None
    if name not in get_args(EngineName):
        raise EngineError(f"unknown engine {name!r}: expected {', '.join(get_args(EngineName))}")
    if name == "openvino" and not installed:
        raise EngineError(
            "engine openvino is not installed: pip install 'landcover-pipeline[cpu]', or set engine: torch"
        )
    if precision == "int8":
        return _int8_engine(name, quantized, model, installed=installed)
    on_openvino = name == "openvino" or (name == "auto" and installed and device().type == "cpu")
    if on_openvino and precision == "fp16":
        raise EngineError(
            "engine openvino has no fp16 on processors; use fp32 or bf16, or engine: torch on a CUDA device"
        )
    return Engine("openvino" if on_openvino else "torch", precision)


def _int8_engine(name: EngineName, quantized: Path | None, model: Model | None, *, installed: bool) -> Engine:
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


_KEPT_PREDICTORS = 2
_RESIDENT: OrderedDict[tuple[str, str, Engine], Predictor] = OrderedDict()
_RESIDENT_LOCK = threading.Lock()


def predictor_for(
    model: Model, engine: Engine, *, threads: int | None = None, stand_in: Predictor | None = None
) -> Predictor:
    """The predictor of this process for a model and an engine, made once and shared by all threads. Only those used
    last are kept.

    Args:
        model: the model to run.
        engine: the engine that runs it.
        threads: threads of the engine, which count when the predictor is made; by default the engine's own number.
        stand_in: takes the place of the engine's predictor if there is none yet.
    """
    key = (model.weights_hash, model.recipe.model_dump_json(), engine)
    with _RESIDENT_LOCK:
        if key not in _RESIDENT:
            _RESIDENT[key] = stand_in or _make(model, engine, threads)
        _RESIDENT.move_to_end(key)
        while len(_RESIDENT) > _KEPT_PREDICTORS:
            _RESIDENT.popitem(last=False)
        return _RESIDENT[key]


def _make(model: Model, engine: Engine, threads: int | None) -> Predictor:
    if engine.name == "openvino":
        return OpenVinoPredictor(model, precision=engine.precision, threads=threads, quantized=engine.quantized)
    if threads is not None:
        torch.set_num_threads(threads)  # for all predictors of this process
    return TorchPredictor(model, precision=engine.precision, compiled=engine.compiled)
