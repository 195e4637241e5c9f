"""What an engine is: uint8 goes in, uint8 comes out. And the one that stays resident in a process."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.config import EngineName, Precision
from pipeline.errors import EngineError
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.quantized_model import Quantized, read_quantized
from pipeline.inference.torch_engine import TorchPredictor, device, set_threads
from pipeline.model import Model


@dataclass(frozen=True)
class Engine:
    """What runs the network, resolved: part of every fingerprint."""

    name: Literal["torch", "openvino"] = "torch"
    precision: Precision = "fp32"
    quantized: Quantized | None = None
    """The network in int8; None for every other precision."""
    compiled: bool = False
    """Torch's compiler fuses the graph."""

    @property
    def content(self) -> dict[str, str]:
        """What bytes depend on: of a quantised network its hash, not its place.

        Fused operations round elsewhere, so compiling is part of it, as the engine is. What it is compiled with is
        not: versions are provenance.
        """
        own: dict[str, str] = {"name": self.name, "precision": self.precision}
        own |= {"quantized": self.quantized.sha256} if self.quantized else {}
        return own | ({"compiled": "true"} if self.compiled else {})


TORCH = Engine()


def on_gpu(engine: Engine) -> bool:
    """True where this process would run the engine on a CUDA device."""
    return engine.name == "torch" and device().type == "cuda"


class Predictor(Protocol):
    """An engine with a model in it. Calls may come from several threads; one at a time holds the device."""

    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Maps a batch of windows.

        Args:
            pixels: uint8 (n, band, y, x), 0..255; y and x multiples of the network's stride.
            valid: bool (n, y, x); False enters the network as the channel mean.

        Returns:
            uint8 (n, layer, y, x): the FLAIR value of the most probable live class (never 0), and
            round(255 × its softmax over the live logits). Invalid pixels get a value too: the
            caller masks them.

        Raises:
            EngineError: logits that are not finite.
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
    """The engine behind a campaign's `engine:`.

    `auto` is torch where there is a CUDA device, else OpenVINO where it is installed, else torch; in int8 it
    is OpenVINO wherever it is installed.

    Args:
        quantized: the XML that `landcover quantize` made; int8 needs it, the others do not look at it.
        model: what it must have been made from; int8 needs it too.
        compiled: through `torch.compile`.

    Raises:
        EngineError: no engine of this name, one that is not installed, a precision that it does not have, a
            quantised network that is missing, damaged, or made from other weights or another recipe, or torch's
            compiler with another engine.
    """
    engine = _resolved(name, precision, quantized, model)
    if compiled and engine.name != "torch":
        raise EngineError(
            f"torch_compile is of engine torch, and engine {name} in {precision} is {engine.name} here; take "
            "torch_compile out, or say engine: torch"
        )
    return replace(engine, compiled=compiled)


def _resolved(name: EngineName, precision: Precision, quantized: Path | None, model: Model | None) -> Engine:
    installed = find_spec("openvino") is not None
    if name not in get_args(EngineName):
        raise EngineError(f"unknown engine {name!r}: expected {', '.join(get_args(EngineName))}")
    if name == "openvino" and not installed:
        raise EngineError("engine openvino is not installed: pip install 'landcover-pipeline[cpu]', or engine: torch")
    if precision == "int8":
        return _in_int8(name, quantized, model, installed=installed)
    on_openvino = name == "openvino" or (name == "auto" and installed and device().type == "cpu")
    if on_openvino and precision == "fp16":
        raise EngineError("OpenVINO's CPU engine has no fp16 here: use fp32 or bf16, or engine: torch on a CUDA device")
    return Engine("openvino" if on_openvino else "torch", precision)


def _in_int8(name: EngineName, quantized: Path | None, model: Model | None, *, installed: bool) -> Engine:
    if name == "torch" or not installed:
        raise EngineError(
            f"precision int8 wants engine openvino, got {name}"
            + ("" if installed else " and OpenVINO is not installed: pip install 'landcover-pipeline[cpu]'")
        )
    if quantized is None or model is None:
        raise EngineError(
            "precision int8 wants a quantised network (model.quantized in a campaign, --quantized on the command "
            "line): `landcover quantize` makes it"
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
    """This process's predictor for a model: made once, then shared by all threads; the last ones used are kept.

    Args:
        threads: of the engine, taken when the predictor is made; by default what the engine takes itself.
        stand_in: kept in place of the engine's own when none was made yet.
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
        set_threads(threads)
    return TorchPredictor(model, precision=engine.precision, compiled=engine.compiled)
