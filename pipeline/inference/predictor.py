"""The predictor that a process keeps for a network and its engine."""

import threading
from collections import OrderedDict
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.inference.engine import Engine
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.model import Model


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


@runtime_checkable
class FeaturePredictor(Predictor, Protocol):
    """A predictor that also gives the encoder's deepest features of the same forward."""

    def with_features(
        self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The layers, the same bytes as those of a call, and float32 (n, channel, row, col)."""
        ...


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
