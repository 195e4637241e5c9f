"""Timings that `gpu` makes: an engine from the host's pixels to the host's layers, and forwards on the device alone."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.forward import agreement, window_image
from pipeline.bench.gemm import device_gemm
from pipeline.bench.imagery import Imagery
from pipeline.config import Precision
from pipeline.halo import Layout
from pipeline.inference import Engine, predictor_for
from pipeline.inference.engine import LANES
from pipeline.inference.torch_engine import ForwardKind, TorchPredictor, peak_memory, reset_peak_memory

_FORWARDS = 24
"""Windows of one timing at full scale: a GPU maps one in a fraction of a second."""


@dataclass(frozen=True)
class EngineStep:
    """An engine to time, with its windows."""

    name: str
    """`fp16`, `fp16_compiled`, `fp16_512x16`: the end of its figures' names."""
    engine: Engine
    layout: Layout
    batch: int = 1
    """Windows of one call."""


@dataclass(frozen=True)
class EngineTiming:
    """An engine's forwards over whole windows."""

    engine: Engine
    layout: Layout
    batch: int
    """Windows of one call."""
    one_thread_s: float
    """Seconds a window when one thread calls, so that copies and forward follow each other."""
    threads_s: float
    """Seconds a window when `LANES` threads call, so that copies run during the forward."""
    gemm_gflop_per_s: float
    """The best multiplication in this precision."""
    agreement: float | None
    """Share of a window's pixels that have the class of fp32, 0..1; None where fp32 exceeds the device's memory."""
    device_bytes: int
    """Most memory of the device that torch reserved; 0 on the processor."""

    @property
    def kept_mpx(self) -> float:
        """Mpx of a window's core."""
        return self.layout.core**2 / 1e6


def classes_in_fp32(imagery: Imagery, side: int) -> NDArray[np.uint8]:
    """The FLAIR values of one window on the torch engine in fp32: uint8 (y, x)."""
    image = window_image(imagery, side)
    predictor = predictor_for(imagery.model, Engine("torch"))
    classes: NDArray[np.uint8] = predictor(image, np.ones((1, side, side), np.bool_))[0, 0]
    return classes


def time_engine(imagery: Imagery, step: EngineStep, truth: NDArray[np.uint8] | None) -> EngineTiming:
    """Times an engine and multiplications in turns, and takes the best of each.

    It sees windows of one size only: for a second one, `torch.compile` would fuse the network again, for any size.

    Args:
        imagery: gives network and pixels.
        step: the engine.
        truth: classes of its window in fp32, uint8 (y, x), where they are known.
    """
    scale, predictor = imagery.scale, predictor_for(imagery.model, step.engine)
    image = np.repeat(window_image(imagery, step.layout.window), step.batch, axis=0)
    valid = np.ones((step.batch, *image.shape[2:]), np.bool_)
    multiply = device_gemm(scale.gemm, step.engine.precision)
    calls = 1 if scale.quick else max(LANES, _FORWARDS // step.batch)
    reset_peak_memory()
    classes = predictor(image, valid)[0, 0]  # the first call compiles the network
    share = None if truth is None else agreement(classes, truth)

    def seconds(threads: int) -> float:
        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            for done in [pool.submit(predictor, image, valid) for _ in range(calls)]:
                done.result()
            return (time.perf_counter() - start) / (calls * step.batch)

    if not scale.quick:
        seconds(LANES)  # pins the buffers of each lane
    turns = [(seconds(1), seconds(LANES), multiply()) for _ in range(scale.repeats)]
    one_thread, threads, rates = zip(*turns, strict=True)
    return EngineTiming(
        step.engine, step.layout, step.batch, min(one_thread), min(threads), max(rates), share, peak_memory()
    )


def time_forwards(imagery: Imagery, precision: Precision, how: ForwardKind, layout: Layout, batch: int) -> float:
    """Mpx that forwards map in a second without copies; call it in a new process for a CUDA graph.

    A capture that fails may leave the device's memory in a state in which nothing else can be measured.
    """
    shape = (batch, len(imagery.campaign.recipe().bands), layout.window, layout.window)
    predictor = TorchPredictor(imagery.model, precision=precision)
    seconds = predictor.time_forwards(how, shape, calls=1 if imagery.scale.quick else _FORWARDS)
    return batch * layout.core**2 / 1e6 / seconds
