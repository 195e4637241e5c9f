"""The torch engine, and the only module that knows CUDA."""

import os
import queue
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import EngineError
from pipeline.inference.map_graph import NOT_FINITE, MapGraph
from pipeline.legend import LAYERS
from pipeline.model import Model

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
LANES = 3
"""Batches under way at once: one comes up to the device, one is mapped, one goes down."""


def device() -> torch.device:
    """The device of this process: the first visible CUDA device, else the CPU."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def cuda_devices() -> tuple[str, ...]:
    """Names of the CUDA devices that this process sees."""
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def set_threads(count: int) -> None:
    """Threads of torch's operators in this process, for all its predictors."""
    torch.set_num_threads(count)


_HELD = threading.Lock()
"""The device, for the thread that has it; with CUDA for as long as its forward takes to be queued."""


class TorchPredictor:
    """The graph on this process's device, channels last, in float32 or under autocast.

    Threads that call it at once share the work as a pipeline does: while the forward of one runs, another's windows
    come up and a third's layers go down, each on a stream of its own. On the CPU, torch's streams do nothing and the
    same calls come one after the other.
    """

    def __init__(self, model: Model, *, precision: str = "fp32", compiled: bool = False) -> None:
        self.precision = precision
        self._device = device()
        if precision == "fp16" and self._device.type == "cpu":
            raise EngineError("fp16 wants a CUDA device, and this process sees none; use fp32 or bf16")
        graph = MapGraph(model).to(self._device)
        self._graph: Any = graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks it
        if compiled:
            _check_compiler(self._device)
            self._graph = torch.compile(self._graph)
        # The lane that came back last goes out first: a single thread pins the buffers of one.
        self._lanes: queue.LifoQueue[_Lane] = queue.LifoQueue()
        for _ in range(LANES):
            self._lanes.put(_Lane(self._device))
        self._room = sys.maxsize
        """Pixels of a batch that fit into the device's memory, as far as is known."""

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """See `Predictor`; windows that do not fit into the device's memory together go in smaller batches."""
        count, (height, width) = len(pixels), pixels.shape[2:]
        layers = np.empty((count, len(LAYERS), height, width), np.uint8)
        start = 0
        while start < count:
            size = min(count - start, max(1, self._room // (height * width)))
            part = slice(start, start + size)
            try:
                self._map(pixels[part], valid[part].view(np.uint8), layers[part])
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise EngineError(
                        f"a window of {height} × {width} px does not fit into the device's memory; use a smaller window"
                    ) from error
                # Tried again only after this clause: until then the traceback keeps the forward's tensors alive.
                self._room = min(self._room, size // 2 * height * width)
            else:
                start += size
        check_finite(layers)
        return layers

    @torch.inference_mode()
    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The live logits of windows without no data, before any temperature, on the CPU.

        Args:
            pixels: uint8 (n, band, y, x), sides multiples of the stride.

        Returns:
            float32 (n, class, y, x), classes in the order of the recipe's `live`.
        """
        images = torch.from_numpy(pixels).to(self._device)
        valid = torch.ones((len(pixels), *pixels.shape[2:]), dtype=torch.uint8, device=self._device)
        with _HELD, self._arithmetic():
            live: NDArray[np.float32] = self._graph.logits(images, valid).cpu().numpy()
        return live

    def _map(self, pixels: NDArray[np.uint8], valid: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Maps one batch into `out`."""
        lane = self._lanes.get()
        try:
            images, mask = lane.up(pixels, valid)
            with _HELD:
                lane.let_device_wait()
                layers = self._forward(images, mask)
                lane.wait_for_device()
            # `images`, `mask` and `layers` live until this returns, when all that the device does with them is done.
            lane.down(layers, out)
        finally:
            self._lanes.put(lane)

    def _forward(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with self._arithmetic():
            layers: torch.Tensor = self._graph(images.contiguous(memory_format=torch.channels_last), mask)
        return layers

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        lower = _AUTOCAST.get(self.precision)
        autocast = torch.autocast(self._device.type, dtype=lower) if lower else nullcontext()
        # fp32 means fp32: by default cuDNN convolves it in TF32, which keeps ten bits. And one algorithm a shape, not
        # the one that was fastest today: a tile does not depend on the run.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with exact, autocast:
            yield


class _Lane:
    """A batch's way to the device and back: pinned buffers, and the stream on which both copies run."""

    def __init__(self, where: torch.device) -> None:
        self._where = where
        self._streams: Any = torch.get_device_module(where)
        self._stream = self._streams.Stream()
        self._pinned = where.type == "cuda"
        # A thread that waits for the device sleeps: the core is wanted for decoding.
        self._ended = torch.cuda.Event(blocking=True) if self._pinned else self._streams.Event()
        self._buffers: dict[str, torch.Tensor] = {}

    def up(self, pixels: NDArray[np.uint8], valid: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        """Begins to copy a batch to the device."""
        staged = [self._staged(name, torch.from_numpy(array)) for name, array in (("pixels", pixels), ("valid", valid))]
        with self._streams.stream(self._stream):
            images, mask = (tensor.to(self._where, non_blocking=True) for tensor in staged)
        return images, mask

    def let_device_wait(self) -> None:
        """What is queued on the device from now on begins when the copy is there."""
        self._streams.current_stream().wait_stream(self._stream)

    def wait_for_device(self) -> None:
        """What this lane does from now on begins when all that is queued on the device now is done."""
        self._stream.wait_stream(self._streams.current_stream())

    def down(self, layers: torch.Tensor, out: NDArray[np.uint8]) -> None:
        """Copies mapped layers into `out`, and returns when they are there."""
        buffer = self._buffer("layers", layers.shape)
        with self._streams.stream(self._stream):
            buffer.copy_(layers, non_blocking=True)
            self._ended.record(self._stream)
        self._ended.synchronize()
        out[...] = buffer.numpy()

    def _staged(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return self._buffer(name, tensor.shape).copy_(tensor)

    def _buffer(self, name: str, shape: torch.Size) -> torch.Tensor:
        """A kept uint8 buffer of this shape, in memory that the device reads and writes by itself."""
        size = shape.numel()
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)
        return self._buffers[name][:size].view(shape)


def _check_compiler(where: torch.device) -> None:
    """Raises EngineError where `torch.compile` would fail at the first window for want of a compiler."""
    compiler = os.environ.get("CC", "gcc") if where.type == "cuda" else os.environ.get("CXX", "g++")
    lacks = [] if shutil.which(compiler) else [f"the compiler {compiler}"]
    if where.type == "cuda" and find_spec("triton") is None:
        lacks.append("Triton (pip install triton)")
    if lacks:
        raise EngineError(f"torch_compile wants {' and '.join(lacks)} on each worker; install, or torch_compile: false")


def check_finite(layers: NDArray[np.uint8]) -> None:
    """Raises EngineError where a logit was NaN or infinite: a failure is no pixel."""
    if (layers[:, 1] == NOT_FINITE).any():
        raise EngineError("the network gave logits that are not finite; the weights or the input are damaged")
