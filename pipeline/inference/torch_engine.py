"""The torch engine: runs the graph on the processor or a CUDA device. No other module uses CUDA."""

import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.durable import user_cache
from pipeline.errors import EngineError
from pipeline.inference.averaging import AverageGraph
from pipeline.inference.engine import LANES, NO_FEATURES_COMPILED, PLANES, check_finite
from pipeline.inference.map_graph import MapGraph, encoder_of, keeping_features
from pipeline.legend import OptionalLayer, planes_of
from pipeline.model import Ensemble, Model
from pipeline.untrusted.own_files import private_folder

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_CACHE_REMEDY = "set LANDCOVER_CACHE to a folder of your own that can be written"
ForwardKind = Literal["nchw", "channels_last", "graph"]
"""See `TorchPredictor.time_forwards`."""


def device() -> torch.device:
    """The device of this process: the first visible CUDA device, or else the CPU."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def device_names() -> tuple[str, ...]:
    """Names of the CUDA devices that this process sees."""
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def reset_peak_memory() -> None:
    """Begins a new measurement of `peak_memory`."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int:
    """Most bytes of the device that torch reserved since `reset_peak_memory`; 0 on the processor."""
    return int(torch.cuda.max_memory_reserved()) if torch.cuda.is_available() else 0


_DEVICE = threading.Lock()
"""Held by the thread that uses the device; with CUDA only while it queues its forward."""


class TorchPredictor:
    """Runs the graph on this process's device, channels last, in float32 or under autocast.

    Threads that call it at the same time work as a pipeline: during the forward of one batch, the next batch is copied
    to the device and the layers of the previous one are copied back, each on its own stream. On the CPU torch's streams
    do nothing, and the same calls run one after the other.

    The same batch gives the same bytes if processor, libraries and threads are the same. On another processor, with
    another number of threads or with the windows in other batches, torch may add products in another order, so the last
    bits of logits differ. In fp32 a few confidences then differ by 1, and classes only where two logits are almost
    equal. In bf16 single pixels may differ by more.
    """

    def __init__(
        self,
        model: Model | Ensemble,
        *,
        precision: str = "fp32",
        compiled: bool = False,
        layers: Sequence[OptionalLayer] = (),
    ) -> None:
        self.precision = precision
        self._device = device()
        if precision == "fp16" and self._device.type == "cpu":
            raise EngineError("fp16 needs a CUDA device, and this process finds none; use fp32 or bf16")
        graph: nn.Module = AverageGraph(model, layers) if isinstance(model, Ensemble) or layers else MapGraph(model)
        graph = graph.to(self._device)
        self._planes = PLANES + planes_of(layers, model.recipe.live)
        self._compiled = compiled
        self._graph: Any = graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        if compiled:
            _check_compiler(self._device)
            # Torch's own is below /tmp under a name that anybody can take, and code from it is run.
            own = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or user_cache() / "torch-compile"
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private_folder(Path(own), remedy=_CACHE_REMEDY))
            self._graph = torch.compile(self._graph)
        # Last in, first out: a single thread always gets the same lane, and pins the buffers of one only.
        self._lanes: queue.LifoQueue[_Lane] = queue.LifoQueue()
        for _ in range(LANES):
            self._lanes.put(_Lane(self._device))
        self._batch_pixels = sys.maxsize
        """Largest batch, in pixels, that may fit into the device's memory."""

    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """See `Predictor`; a batch that exceeds the device's memory is split."""
        return self._mapped(pixels, valid, None)

    def with_features(
        self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """What a call returns, and of the same forward the encoder's deepest features.

        Args:
            pixels, valid: as for a call.

        Returns:
            uint8 (n, plane, y, x), the same bytes; and float32 (n, channel, row, col).
        """
        features: list[NDArray[np.float32]] = []
        return self._mapped(pixels, valid, features), np.concatenate(features)

    @torch.inference_mode()
    def _mapped(
        self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_], features: list[NDArray[np.float32]] | None
    ) -> NDArray[np.uint8]:
        count, (height, width) = len(pixels), pixels.shape[2:]
        layers = np.empty((count, self._planes, height, width), np.uint8)
        start = 0
        while start < count:
            size = min(count - start, max(1, self._batch_pixels // (height * width)))
            part = slice(start, start + size)
            try:
                self._map(pixels[part], valid[part].view(np.uint8), layers[part], features)
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise EngineError(
                        f"a window of {height} × {width} px exceeds the device's memory; use a smaller window"
                    ) from error
                # The next try is after this clause: until its end the traceback keeps the forward's tensors alive.
                self._batch_pixels = min(self._batch_pixels, size // 2 * height * width)
            else:
                start += size
        check_finite(layers)
        return layers

    @torch.inference_mode()
    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The live logits of windows in which all pixels are valid, before the temperature; see `Averaging.logits`.

        Args:
            pixels: uint8 (n, band, y, x), with sides that are multiples of the stride.

        Returns:
            float32 (n, class, y, x) on the CPU, with classes in the order of the recipe's `live`.
        """
        images = torch.from_numpy(pixels).to(self._device)
        valid = torch.ones((len(pixels), *pixels.shape[2:]), dtype=torch.uint8, device=self._device)
        with _DEVICE, self._arithmetic():
            live: NDArray[np.float32] = self._graph.logits(images, valid).cpu().numpy()
        return live

    def _map(
        self,
        pixels: NDArray[np.uint8],
        valid: NDArray[np.uint8],
        out: NDArray[np.uint8],
        features: list[NDArray[np.float32]] | None,
    ) -> None:
        """Maps one batch into `out`, and appends its features."""
        lane = self._lanes.get()
        try:
            images, mask = lane.upload(pixels, valid)
            with _DEVICE, self._arithmetic():
                lane.wait_for_upload()
                with nullcontext([]) if features is None else self._keeping_features() as kept:
                    layers: torch.Tensor = self._graph(images.contiguous(memory_format=torch.channels_last), mask)
                if features is not None:
                    features += [found.cpu().numpy() for found in kept]
                lane.wait_for_forward()
            # `images`, `mask` and `layers` stay alive until this returns, when the device no longer uses them.
            lane.download(layers, out)
        finally:
            self._lanes.put(lane)

    def _keeping_features(self) -> AbstractContextManager[list[torch.Tensor]]:
        if self._compiled:
            raise EngineError(NO_FEATURES_COMPILED)
        return keeping_features(encoder_of(self._graph))

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        lower = _AUTOCAST.get(self.precision)
        autocast = torch.autocast(self._device.type, dtype=lower) if lower else nullcontext()
        # By default cuDNN convolves fp32 in TF32, which keeps ten bits, and tries which algorithm is fastest: a tile
        # would depend on the run.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with exact, autocast:
            yield

    def time_forwards(self, how: ForwardKind, shape: tuple[int, ...], *, calls: int) -> float:
        """Seconds of a forward over a batch that lies on the device already, without copies; the best of `calls`.

        Args:
            how: `nchw` and `channels_last` queue each operation, with weights and images in this memory layout;
                `graph` replays a CUDA graph of the latter, for which nothing is queued but the graph.
            shape: (n, band, y, x) of the batch.
            calls: number of forwards, after one that is not counted.

        Raises:
            EngineError: a CUDA graph on a processor, or a batch that exceeds the device's memory.
        """
        if how not in forward_kinds():
            raise EngineError("a CUDA graph needs a CUDA device, and this process finds none")
        layout = torch.contiguous_format if how == "nchw" else torch.channels_last
        graph: Any = self._graph.to(memory_format=layout)
        images = torch.full(shape, 100, dtype=torch.uint8, device=self._device).contiguous(memory_format=layout)
        mask = torch.ones((shape[0], *shape[2:]), dtype=torch.uint8, device=self._device)
        try:
            with torch.inference_mode(), _DEVICE, self._arithmetic():
                forward = _captured(graph, images, mask) if how == "graph" else lambda: graph(images, mask)
                return min(_seconds(forward, self._device) for _ in range(calls + 1))
        except torch.OutOfMemoryError as error:
            raise EngineError(f"a batch of {shape} exceeds the device's memory; use a smaller one") from error
        finally:
            self._graph.to(memory_format=torch.channels_last)


def forward_kinds() -> tuple[ForwardKind, ...]:
    """The ways of `time_forwards` that this process has: all of them with a CUDA device."""
    kinds: tuple[ForwardKind, ...] = get_args(ForwardKind)
    return kinds if device().type == "cuda" else kinds[:-1]


def _captured(graph: Any, images: torch.Tensor, mask: torch.Tensor) -> Callable[[], Any]:
    """A function that replays the forward as a CUDA graph, over the same memory each time."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    # Autocast must not keep the weights that it converts: they would belong to the graph's memory.
    with torch.autocast("cuda", enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False):
        with torch.cuda.stream(side):
            graph(images, mask)  # cuDNN chooses its algorithms and takes its workspace outside of the graph
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            graph(images, mask)
    return captured.replay


def _seconds(work: Callable[[], Any], where: torch.device) -> float:
    """Seconds from an idle device until it has done what `work` queues."""
    torch.get_device_module(where).synchronize()
    start = time.perf_counter()
    work()
    torch.get_device_module(where).synchronize()
    return time.perf_counter() - start


class _Lane:
    """Copies batches to the device and back: pinned buffers, and a stream for both copies."""

    def __init__(self, where: torch.device) -> None:
        self._where = where
        self._streams: Any = torch.get_device_module(where)
        self._stream = self._streams.Stream()
        self._pinned = where.type == "cuda"
        # A waiting thread sleeps, because decoding needs the core.
        self._ended = torch.cuda.Event(blocking=True) if self._pinned else self._streams.Event()
        self._buffers: dict[str, torch.Tensor] = {}

    def upload(self, pixels: NDArray[np.uint8], valid: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        """Starts copying a batch to the device."""
        batch = {"pixels": torch.from_numpy(pixels), "valid": torch.from_numpy(valid)}
        staged = [self._buffer(name, tensor.shape).copy_(tensor) for name, tensor in batch.items()]
        with self._streams.stream(self._stream):
            images, mask = (tensor.to(self._where, non_blocking=True) for tensor in staged)
        return images, mask

    def wait_for_upload(self) -> None:
        """Makes work that is queued on the device from now on wait for this lane's upload."""
        self._streams.current_stream().wait_stream(self._stream)

    def wait_for_forward(self) -> None:
        """Makes later work of this lane wait for all work that is queued on the device now."""
        self._stream.wait_stream(self._streams.current_stream())

    def download(self, layers: torch.Tensor, out: NDArray[np.uint8]) -> None:
        """Copies layers into `out`, and returns when they are complete."""
        buffer = self._buffer("layers", layers.shape)
        with self._streams.stream(self._stream):
            buffer.copy_(layers, non_blocking=True)
            self._ended.record(self._stream)
        self._ended.synchronize()
        out[...] = buffer.numpy()

    def _buffer(self, name: str, shape: torch.Size) -> torch.Tensor:
        """A reused uint8 buffer of this shape, in pinned memory if there is a device."""
        size = shape.numel()
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)
        return self._buffers[name][:size].view(shape)


def _check_compiler(where: torch.device) -> None:
    """Raises EngineError if `torch.compile` would fail at the first window because a compiler is missing."""
    compiler = os.environ.get("CC", "gcc") if where.type == "cuda" else os.environ.get("CXX", "g++")
    missing = [] if shutil.which(compiler) else [f"the compiler {compiler}"]
    if where.type == "cuda" and find_spec("triton") is None:
        missing.append("Triton (pip install triton)")
    if missing:
        raise EngineError(
            f"torch_compile needs {' and '.join(missing)} on each worker; install it, or set torch_compile: false"
        )
