"""Matrix multiplication (GEMM) as the yardstick: the best that this machine does, and what a network needs."""

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.inference.torch_engine import device
from pipeline.model import Model

_QUEUED = 8
"""Multiplications queued at once, of which only the last is waited for: queueing one takes a GPU longer than it."""
_COUNTED_SIDE = 256
"""Side of the image on which a network's operations are counted, in pixels; they are proportional to the pixels."""


def network_flops(model: Model, pixels: int) -> float:
    """Floating-point operations of a forward over `pixels` pixels: two for each multiplication of its convolutions.

    The ResNet-34 U-Net takes 64.7 GFLOP for a patch of 512² px.
    """
    bands = len(model.recipe.bands)
    network = copy.deepcopy(model.network).to("meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.empty(1, bands, _COUNTED_SIDE, _COUNTED_SIDE, device="meta"))
    return float(counter.get_total_flops()) * pixels / _COUNTED_SIDE**2


def cpu_gemms(size: int, *, threads: int) -> Mapping[str, Callable[[], float]]:
    """Functions that each multiply two float32 matrices of `size`² once and return GFLOP/s, by library.

    The peak is the best of them, since neither library always reaches what the machine can do. `threads` are those of
    all operators of torch in this process from now on.
    """
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), np.float32) for _ in range(2))
    request = _openvino_matmul(size, threads)
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    calls = {"openvino": lambda: request.infer([a, b]), "torch": lambda: torch.mm(left, right)}
    return {library: _rate_of(multiply, 2.0 * size**3) for library, multiply in calls.items()}


def device_gemm(size: int, precision: str) -> Callable[[], float]:
    """A function that multiplies two matrices of `size`² on the torch engine's device, and returns GFLOP/s.

    Args:
        size: rows and columns.
        precision: `fp32` (never TF32, which torch does not use for multiplications by default), `fp16` or `bf16`.
    """
    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    a, b = (torch.full((size, size), 0.01, dtype=kind, device=device()) for _ in range(2))

    def multiply() -> None:
        for _ in range(_QUEUED):
            product = torch.mm(a, b)
        product[0, 0].item()  # waits: reading a value needs the finished product

    return _rate_of(multiply, _QUEUED * 2.0 * size**3)


def _openvino_matmul(size: int, threads: int) -> Any:
    import openvino
    from openvino import opset13

    left, right = (opset13.parameter((size, size), np.float32) for _ in range(2))
    graph = openvino.Model(opset13.matmul(left, right, False, False), [left, right])  # noqa: FBT003  (its signature)
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    return openvino.Core().compile_model(graph, "CPU", options).create_infer_request()


def _rate_of(multiply: Callable[[], object], flops: float) -> Callable[[], float]:
    """A function that calls `multiply` once and returns GFLOP/s; calls it first, which makes threads and buffers."""
    multiply()

    def once() -> float:
        start = time.perf_counter()
        multiply()
        return flops / (time.perf_counter() - start) / 1e9

    return once
