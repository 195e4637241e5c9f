"""What an engine is: uint8 goes in, uint8 comes out. And the one that stays resident in a process."""

import threading
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.config import EngineName, Precision
from pipeline.errors import EngineError
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.torch_engine import TorchPredictor, device, set_threads
from pipeline.model import Model


@dataclass(frozen=True)
class Engine:
    """What runs the network, resolved: part of every fingerprint."""

    name: Literal["torch", "openvino"] = "torch"
    precision: Precision = "fp32"


TORCH = Engine()


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


def resolve_engine(name: EngineName = "auto", *, precision: Precision = "fp32") -> Engine:
    """The engine behind a campaign's `engine:`.

    `auto` is torch where there is a CUDA device, else OpenVINO where it is installed, else torch.

    Raises:
        EngineError: no engine of this name, one that is not installed, or a precision that it does not have.
    """
    installed = find_spec("openvino") is not None
    if name not in get_args(EngineName):
        raise EngineError(f"unknown engine {name!r}: expected {', '.join(get_args(EngineName))}")
    if name == "openvino" and not installed:
        raise EngineError("engine openvino is not installed: pip install 'landcover-pipeline[cpu]', or engine: torch")
    on_openvino = name == "openvino" or (name == "auto" and installed and device().type == "cpu")
    if on_openvino and precision == "fp16":
        raise EngineError("OpenVINO's CPU engine has no fp16 here: use fp32 or bf16, or engine: torch on a CUDA device")
    return Engine("openvino" if on_openvino else "torch", precision)


_RESIDENT: dict[tuple[str, str, Engine], Predictor] = {}
_RESIDENT_LOCK = threading.Lock()


def predictor_for(model: Model, engine: Engine, *, threads: int | None = None) -> Predictor:
    """This process's predictor for a model: made once, then shared by all threads.

    Args:
        threads: of the engine, taken when the predictor is made; by default what the engine takes itself.
    """
    key = (model.weights_hash, model.recipe.model_dump_json(), engine)
    with _RESIDENT_LOCK:
        if key not in _RESIDENT:
            _RESIDENT[key] = _make(model, engine, threads)
        return _RESIDENT[key]


def _make(model: Model, engine: Engine, threads: int | None) -> Predictor:
    if engine.name == "openvino":
        return OpenVinoPredictor(model, precision=engine.precision, threads=threads)
    if threads is not None:
        set_threads(threads)
    return TorchPredictor(model, precision=engine.precision)
