"""`gpu`: the torch engine on a CUDA device: its speed, its share of the device's peak, and the cores that feed it."""

import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.chart import bar_chart
from pipeline.bench.forward import agreement, class_maps, window_image
from pipeline.bench.gemm import device_gemm, network_flops
from pipeline.bench.imagery import Imagery
from pipeline.bench.measurements.feed import all_blocks, decode_imagery
from pipeline.bench.report import BenchReport
from pipeline.config import Precision
from pipeline.errors import EngineError
from pipeline.grid import PIXELS_PER_M
from pipeline.inference import Engine, on_gpu, predictor_for
from pipeline.inference.engine import LANES, cuda_devices
from pipeline.progress import OnMessage
from pipeline.runs.planning.throughput import MeasuredRate

_FORWARDS = 24
"""Windows of one timing at full scale: a GPU maps one in a fraction of a second."""
_KM2_PER_MPX = 1 / PIXELS_PER_M**2
"""A pixel covers 0.04 m²."""


@dataclass(frozen=True)
class EngineTiming:
    """An engine's forwards over whole windows."""

    engine: Engine
    one_thread_s: float
    """Seconds a window when one thread calls, so that copies and forward follow each other."""
    threads_s: float
    """Seconds a window when `LANES` threads call, so that copies run during the forward."""
    gemm_gflop_per_s: float
    """The best multiplication in this precision."""
    agreement: float
    """Share of the patches' pixels that have the class of fp32, 0..1."""

    @property
    def name(self) -> str:
        """`fp16`, `fp16_compiled`."""
        return self.engine.precision + ("_compiled" if self.engine.compiled else "")


def check_device(*, quick: bool) -> None:
    """Refuses to start on a machine without a CUDA device, except at the quick scale.

    Raises:
        EngineError: there is no CUDA device.
    """
    if not quick and not on_gpu(Engine("torch")):
        raise EngineError(
            "bench gpu needs a CUDA device, and torch finds none here. Run it on a machine with a GPU and with a torch "
            "built for CUDA; `landcover bench gpu --quick` only tries the code on the processor"
        )


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Times forwards and multiplications on the device, then decoding on one core."""
    quick = imagery.scale.quick
    compiles = not quick and find_spec("triton") is not None
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16") if on_gpu(Engine("torch")) else ("fp32", "bf16")
    engines = [Engine("torch", p) for p in precisions]
    engines += [Engine("torch", p, compiled=True) for p in precisions[1:] if compiles]
    reference = class_maps(predictor_for(imagery.model, engines[0]), imagery.patches)
    timings = []
    for engine in engines:
        timings.append(_time_engine(imagery, engine, reference))
        on_message(f"gpu: {timings[-1].name} {_kept_mpx(imagery) / timings[-1].threads_s:.4g} Mpx/s")
    core_mpx_per_s = _decode_rate(imagery)
    on_message(f"gpu: one core decodes {core_mpx_per_s:.3g} Mpx/s")
    notes = [
        *imagery.notes,
        f"measured on {_device()} with windows of {imagery.scale.layout.window} px, counting the pixels of their cores",
    ]
    if not compiles:
        notes.append("torch.compile was not measured: the scale is quick, or Triton is not installed")
    return _report(imagery, timings, core_mpx_per_s, notes)


def _report(imagery: Imagery, timings: list[EngineTiming], core_mpx_per_s: float, notes: list[str]) -> BenchReport:
    figures: dict[str, float] = {"gpu.decode_mpx_per_core_s": core_mpx_per_s}
    raw: dict[str, Any] = {}
    for t in timings:
        own = _figures(imagery, t, core_mpx_per_s)
        figures |= {f"gpu.{figure}_{t.name}": value for figure, value in own.items()}
        raw[t.name] = {
            "window_s_one_thread": t.one_thread_s,
            f"window_s_{LANES}_threads": t.threads_s,
            "gemm_gflop_per_s": t.gemm_gflop_per_s,
        }
    shown = [(t.name, figures[f"gpu.mpx_per_s_{t.name}"]) for t in timings]
    network, computed_mpx = imagery.model.recipe.name, imagery.scale.layout.window**2 / 1e6
    rates = tuple(
        MeasuredRate.inference(computed_mpx / t.threads_s, t.engine, network=network, device=_device())
        for t in timings
        if not t.engine.compiled
    )
    chart = bar_chart("Speed of one GPU, without reading", shown, unit="Mpx/s")
    return BenchReport(figures, raw, chart, tuple(notes), rates)


def _device() -> str:
    return next(iter(cuda_devices()), "the processor")


def _figures(imagery: Imagery, timing: EngineTiming, core_mpx_per_s: float) -> Mapping[str, float]:
    """The figures of one engine; each pixel counts once, however often windows overlap on it."""
    rate = _kept_mpx(imagery) / timing.threads_s
    flops = network_flops(imagery.model, imagery.scale.layout.window**2)
    return {
        "mpx_per_s": rate,
        "km2_per_hour": rate * _KM2_PER_MPX * 3600,
        "gemm_share": flops / timing.threads_s / 1e9 / timing.gemm_gflop_per_s,
        "cores_to_feed": rate / core_mpx_per_s,
        "agreement": timing.agreement,
    }


def _kept_mpx(imagery: Imagery) -> float:
    """Mpx of a window's core."""
    return imagery.scale.layout.core**2 / 1e6


def _time_engine(imagery: Imagery, engine: Engine, reference: NDArray[np.uint8]) -> EngineTiming:
    """Times an engine and multiplications in turns, and takes the best of each."""
    scale, predictor = imagery.scale, predictor_for(imagery.model, engine)
    share = agreement(class_maps(predictor, imagery.patches), reference)
    image = window_image(imagery, scale.layout.window)
    valid = np.ones((1, *image.shape[2:]), np.bool_)
    multiply = device_gemm(scale.gemm, engine.precision)
    count = 1 if scale.quick else _FORWARDS

    def seconds(threads: int) -> float:
        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            for done in [pool.submit(predictor, image, valid) for _ in range(count)]:
                done.result()
            return (time.perf_counter() - start) / count

    seconds(LANES)  # compiles the graph for this window, and pins the buffers of each lane
    turns = [(seconds(1), seconds(LANES), multiply()) for _ in range(scale.repeats)]
    one_thread, threads, rates = zip(*turns, strict=True)
    return EngineTiming(engine, min(one_thread), min(threads), max(rates), share)


def _decode_rate(imagery: Imagery) -> float:
    """Mpx of RVB and IRC that a core decodes in a busy second, as `feed` measures it."""
    blocks, cluster = all_blocks(imagery.mosaic.inputs, imagery.scale.block), imagery.campaign.cluster
    busy = statistics.median(decode_imagery(imagery, blocks, cluster).core_s for _ in range(imagery.scale.repeats))
    return sum(block.pixels for block in blocks) / 1e6 / busy
