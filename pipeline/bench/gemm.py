"""The yardstick: what this machine multiplies at best, and what a network has to multiply."""

import copy
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from pipeline.inference.torch_engine import device
from pipeline.model import Model

_IN_A_ROW = 8
"""Multiplications of which only the last is waited for: queueing one takes a GPU longer than doing it."""
_COUNTED = 256
"""Pixels a side on which a network's operations are counted; they grow with the pixels."""


def network_flops(model: Model, pixels: int) -> float:
    """Floating-point operations of a forward over `pixels` pixels: two for each multiplication of its convolutions.

    64.7 GFLOP for the 512² patch of the ResNet-34 U-Net.
    """
    bands = len(model.recipe.bands)
    network = copy.deepcopy(model.network).to("meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.empty(1, bands, _COUNTED, _COUNTED, device="meta"))
    return float(counter.get_total_flops()) * pixels / _COUNTED**2


def multiplications(size: int, *, threads: int) -> Mapping[str, Callable[[], float]]:
    """Functions that each multiply two `size`² float32 matrices once and return GFLOP/s, by library.

    The peak is the best of them: no library is the machine.
    """
    import openvino
    from openvino import opset13

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), np.float32) for _ in range(2))
    flops = 2.0 * size**3

    left, right = (opset13.parameter((size, size), np.float32) for _ in range(2))
    graph = openvino.Model(opset13.matmul(left, right, False, False), [left, right])  # noqa: FBT003  (its signature)
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = openvino.Core().compile_model(graph, "CPU", options).create_infer_request()

    def by_openvino() -> None:
        request.infer([a, b])

    def by_torch() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.mm(torch.from_numpy(a), torch.from_numpy(b))
        torch.set_num_threads(before)

    def rated(multiply: Callable[[], None]) -> Callable[[], float]:
        multiply()  # the first one makes threads and buffers

        def once() -> float:
            start = time.perf_counter()
            multiply()
            return flops / (time.perf_counter() - start) / 1e9

        return once

    return {"openvino": rated(by_openvino), "torch": rated(by_torch)}


def multiplication_on_device(size: int, precision: str) -> Callable[[], float]:
    """A function that multiplies two `size`² matrices where the torch engine runs, and returns GFLOP/s.

    Args:
        size: rows and columns.
        precision: `fp32` (never TF32: torch's default for a multiplication), `fp16` or `bf16`.
    """
    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    a, b = (torch.full((size, size), 0.01, dtype=kind, device=device()) for _ in range(2))

    def once() -> float:
        start = time.perf_counter()
        for _ in range(_IN_A_ROW):
            product = torch.mm(a, b)
        product[0, 0].item()  # a GPU's work is done when something of it is read
        return _IN_A_ROW * 2.0 * size**3 / (time.perf_counter() - start) / 1e9

    once()
    return once


def agreement(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Share of pixels with the same class."""
    return float((a == b).mean())
