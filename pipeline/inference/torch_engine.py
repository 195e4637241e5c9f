"""The torch engine, and the only module that knows CUDA."""

import copy
import threading
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import EngineError
from pipeline.inference.graph import NOT_FINITE, MapGraph
from pipeline.model import Model

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def device() -> torch.device:
    """The device of this process: the first visible CUDA device, else the CPU."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def set_threads(count: int) -> None:
    """Threads of torch's operators in this process, for all its predictors."""
    torch.set_num_threads(count)


class TorchPredictor:
    """The graph on this process's device, channels last, in float32 or under autocast."""

    def __init__(self, model: Model, *, precision: str = "fp32") -> None:
        self.precision = precision
        self._device = device()
        if precision == "fp16" and self._device.type == "cpu":
            raise EngineError("fp16 wants a CUDA device, and this process sees none; use fp32 or bf16")
        # A copy, because a loaded model is shared by all of a process and `.to` would change it for all.
        graph = copy.deepcopy(MapGraph(model)).to(self._device)
        self._graph = graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks it
        self._held = threading.Lock()

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """See `Predictor`; a batch that does not fit into CUDA memory goes in halves."""
        with self._held:
            return self._mapped(pixels, valid.view(np.uint8))

    def _mapped(self, pixels: NDArray[np.uint8], valid: NDArray[np.uint8]) -> NDArray[np.uint8]:
        layers: NDArray[np.uint8]
        try:
            images = torch.from_numpy(pixels).to(self._device).contiguous(memory_format=torch.channels_last)
            with self._autocast():
                layers = self._graph(images, torch.from_numpy(valid).to(self._device)).cpu().numpy()
        except torch.cuda.OutOfMemoryError as error:
            if len(pixels) == 1:
                height, width = pixels.shape[2:]
                raise EngineError(
                    f"a window of {height} × {width} px does not fit into the device's memory; use a smaller window"
                ) from error
            torch.cuda.empty_cache()
            half = len(pixels) // 2
            parts = [self._mapped(pixels[:half], valid[:half]), self._mapped(pixels[half:], valid[half:])]
            layers = np.concatenate(parts)
        check_finite(layers)
        return layers

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=_AUTOCAST[self.precision])


def check_finite(layers: NDArray[np.uint8]) -> None:
    """Raises EngineError where a logit was NaN or infinite: a failure is no pixel."""
    if (layers[:, 1] == NOT_FINITE).any():
        raise EngineError("the network gave logits that are not finite; the weights or the input are damaged")
