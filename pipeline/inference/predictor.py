"""The predictor that a process keeps for a network and its engine."""

import threading
from collections import OrderedDict
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import EngineError
from pipeline.inference.engine import Engine, check_gives_features
from pipeline.inference.openvino_engine import OpenVinoAverage, OpenVinoPredictor
from pipeline.legend import OptionalLayer
from pipeline.model import Ensemble, Model
from pipeline.model.reference_features import ReferenceFeatures, pool_squares


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
            live ones, else 0. Networks that an older version quantized lack the third plane. Those of optional layers
            follow: see `legend.OPTIONAL_LAYERS`. Invalid pixels have values too, and the caller masks them. The same
            call gives the same bytes on the same processor, with the same libraries and threads of the engine;
            `OpenVinoPredictor` and `TorchPredictor` say what else may change.

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
_RESIDENT: OrderedDict[tuple[object, ...], Predictor] = OrderedDict()
_RESIDENT_LOCK = threading.Lock()


def predictor_for(
    model: Model | Ensemble,
    engine: Engine,
    *,
    layers: tuple[OptionalLayer, ...] = (),
    features: bool = False,
    threads: int | None = None,
    stand_in: Predictor | None = None,
) -> Predictor:
    """The predictor of this process for a model and an engine, made once and shared by all threads. Only those used
    last are kept.

    Args:
        model: the model to run.
        engine: the engine that runs it.
        layers: optional layers, whose planes follow after the others.
        features: whether it must be a `FeaturePredictor`.
        threads: threads of the engine, which count when the predictor is made; by default the engine's own number.
        stand_in: takes the place of the engine's predictor if there is none yet.
    """
    if features:
        check_gives_features(engine)
    key = (model.__dask_tokenize__(), engine, layers, features)
    with _RESIDENT_LOCK:
        if key not in _RESIDENT:
            _RESIDENT[key] = stand_in or _make(model, engine, threads, layers, features=features)
        _RESIDENT.move_to_end(key)
        while len(_RESIDENT) > _KEPT_PREDICTORS:
            _RESIDENT.popitem(last=False)
        return _RESIDENT[key]


def _make(
    model: Model | Ensemble,
    engine: Engine,
    threads: int | None,
    layers: tuple[OptionalLayer, ...],
    *,
    features: bool,
) -> Predictor:
    averages = isinstance(model, Ensemble) or bool(layers)
    if averages and engine.precision == "int8":
        raise EngineError(
            "a network in int8 gives classes without probabilities, which members, tta and optional layers need; use "
            "precision fp32 or bf16"
        )
    if engine.name == "openvino" and isinstance(model, Model) and not layers:
        # Without an import of torch, which takes a second: its graph is converted once.
        return OpenVinoPredictor(
            model, precision=engine.precision, threads=threads, quantized=engine.quantized, features=features
        )
    import torch

    if threads is not None:
        torch.set_num_threads(threads)  # for all predictors of this process
    if engine.name == "torch":
        from pipeline.inference.torch_engine import TorchPredictor

        return TorchPredictor(model, precision=engine.precision, compiled=engine.compiled, layers=layers)
    return OpenVinoAverage(model, precision=engine.precision, threads=threads, layers=layers, features=features)


class ScoringPredictor:
    """A predictor that also keeps the novelty of what it maps, from the same forward."""

    def __init__(self, predictor: Predictor, reference: ReferenceFeatures) -> None:
        if not isinstance(predictor, FeaturePredictor):
            raise EngineError("the novelty score needs a predictor that gives the encoder's features")
        self._predictor, self._reference = predictor, reference
        self._features: list[NDArray[np.float32]] = []
        self._squares: list[NDArray[np.float32]] = []

    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """See `Predictor`."""
        layers, features = self._predictor.with_features(pixels, valid)
        self._features = list(features)
        return layers

    def keep(self, at: int, valid: NDArray[np.bool_], kept: tuple[slice, slice]) -> None:
        """Pools the core of a window of the batch that was mapped last."""
        self._squares.append(pool_squares(self._features[at], valid, kept))

    @property
    def novelty(self) -> NDArray[np.float64]:
        """float64 (square,), in the order of the windows."""
        squares = [one for one in self._squares if len(one)]
        return self._reference.novelty(np.concatenate(squares)) if squares else np.empty(0)
