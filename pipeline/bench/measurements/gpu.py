"""`gpu`: the torch engine on a CUDA device: how fast, how near the device's peak, and what it takes to feed it."""

import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.chart import bars
from pipeline.bench.decode import decode
from pipeline.bench.gemm import agreement, multiplication_on_device, network_flops
from pipeline.bench.imagery import Imagery, Say, mirrored
from pipeline.bench.measurements.feed import blocks_of, parts_of
from pipeline.bench.report import Report
from pipeline.config import Precision
from pipeline.errors import EngineError
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.inference import Engine, Predictor, on_gpu, predictor_for
from pipeline.inference.torch_engine import LANES, cuda_devices
from pipeline.runs.planning.throughput import MeasuredRate

NAME = "gpu"
_FORWARDS = 24
"""Windows of one timing at full scale: a GPU maps one in a fraction of a second."""
_KM2_PER_MPX = 1 / PIXELS_PER_M**2
"""0.04 m² a pixel."""


@dataclass(frozen=True)
class Timed:
    """An engine's forwards over whole windows."""

    engine: Engine
    alone_s: float
    """Of a window when one thread calls: copies and forward come one after the other."""
    beside_s: float
    """Of a window when `LANES` threads call: copies run beside the forward."""
    gemm_gflop_per_s: float
    """The best multiplication in this precision."""
    agreement: float
    """Share of the patches' pixels that get the class of fp32."""

    @property
    def name(self) -> str:
        """`fp16`, `fp16_compiled`."""
        return self.engine.precision + ("_compiled" if self.engine.compiled else "")


def check_device(*, quick: bool) -> None:
    """Refuses before anything is made, where there is no CUDA device and the small scale was not asked for.

    Raises:
        EngineError: there is none.
    """
    if not quick and not on_gpu(Engine("torch")):
        raise EngineError(
            "bench gpu wants a CUDA device, and torch sees none here: run it on a machine with one, with a torch built "
            "for CUDA; `landcover bench gpu --quick` runs the same code on the processor, to no figures of worth"
        )


def run(imagery: Imagery, *, say: Say) -> Report:
    """Forwards and multiplications on the device, then what a core decodes, in a process of its own.

    Raises:
        EngineError: there is no CUDA device, and the imagery is not of the small scale.
    """
    check_device(quick=not imagery.scale.apart)
    compiles = imagery.scale.apart and find_spec("triton") is not None
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16") if on_gpu(Engine("torch")) else ("fp32", "bf16")
    engines = [Engine("torch", p) for p in precisions]
    engines += [Engine("torch", p, compiled=True) for p in precisions[1:] if compiles]
    truth = _classes(predictor_for(imagery.model, engines[0]), imagery.patches)
    timed = []
    for engine in engines:
        timed.append(_timed(imagery, engine, truth))
        say(f"gpu: {timed[-1].name} {_mapped_mpx(imagery) / timed[-1].beside_s:.4g} Mpx/s")
    core_mpx_per_s = _decoded(imagery)
    say(f"gpu: a core decodes {core_mpx_per_s:.3g} Mpx/s")
    notes = [
        *imagery.told,
        f"measured on {_device()}; windows of {imagery.scale.layout.window} px, their core kept",
    ]
    if not compiles:
        notes.append("torch.compile is left out: at the small scale, and where Triton is not installed")
    return _report(imagery, timed, core_mpx_per_s, notes)


def _report(imagery: Imagery, timed: list[Timed], core_mpx_per_s: float, notes: list[str]) -> Report:
    figures: dict[str, float] = {"gpu.decode_mpx_per_core_s": core_mpx_per_s}
    raw: dict[str, Any] = {}
    for t in timed:
        told = _figures(imagery, t, core_mpx_per_s)
        figures |= {f"gpu.{what}_{t.name}": value for what, value in told.items()}
        raw[t.name] = {
            "window_s_one_thread": t.alone_s,
            f"window_s_{LANES}_threads": t.beside_s,
            "gemm_gflop_per_s": t.gemm_gflop_per_s,
        }
    shown = [(t.name, figures[f"gpu.mpx_per_s_{t.name}"]) for t in timed]
    picture = bars("Mapped by one GPU, reading left out", shown, unit="Mpx/s")
    network, computed_mpx = imagery.model.recipe.name, imagery.scale.layout.window**2 / 1e6
    rates = tuple(
        MeasuredRate.inference(computed_mpx / t.beside_s, t.engine, network=network, device=_device())
        for t in timed
        if not t.engine.compiled
    )
    return Report(NAME, figures, raw, picture, tuple(notes), rates)


def _device() -> str:
    return next(iter(cuda_devices()), "the processor")


def _figures(imagery: Imagery, timed: Timed, core_mpx_per_s: float) -> Mapping[str, float]:
    """What an owner asks for; pixels count once, not as often as windows overlap."""
    rate = _mapped_mpx(imagery) / timed.beside_s
    flops = network_flops(imagery.model, imagery.scale.layout.window**2)
    return {
        "mpx_per_s": rate,
        "km2_per_hour": rate * _KM2_PER_MPX * 3600,
        "gemm_share": flops / timed.beside_s / 1e9 / timed.gemm_gflop_per_s,
        "cores_to_feed": rate / core_mpx_per_s,
        "agreement": timed.agreement,
    }


def _mapped_mpx(imagery: Imagery) -> float:
    """What is kept of a window."""
    return imagery.scale.layout.core**2 / 1e6


def _classes(predictor: Predictor, patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Classes (patch, y, x)."""
    valid = np.ones((1, *patches.shape[2:]), np.bool_)
    return np.stack([predictor(patch[None], valid)[0, 0] for patch in patches])


def _timed(imagery: Imagery, engine: Engine, truth: NDArray[np.uint8]) -> Timed:
    """Times an engine and the multiplications in turns; the best of each counts."""
    scale, predictor = imagery.scale, predictor_for(imagery.model, engine)
    share = agreement(_classes(predictor, imagery.patches), truth)
    image = mirrored(imagery.patches, Window(0, 0, scale.layout.window, scale.layout.window))[None]
    valid = np.ones((1, *image.shape[2:]), np.bool_)
    multiply = multiplication_on_device(scale.gemm, engine.precision)
    count = _FORWARDS if scale.apart else 1

    def seconds(threads: int) -> float:
        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            for done in [pool.submit(predictor, image, valid) for _ in range(count)]:
                done.result()
            return (time.perf_counter() - start) / count

    seconds(LANES)  # the first of a shape compiles, and pins each lane's buffers
    turns = [(seconds(1), seconds(LANES), multiply()) for _ in range(scale.repeats)]
    alone, beside, rates = zip(*turns, strict=True)
    return Timed(engine, min(alone), min(beside), max(rates), share)


def _decoded(imagery: Imagery) -> float:
    """Mpx that a core decodes of RVB and IRC in a busy second, as `feed` measures it."""
    mosaic, scale, cluster = imagery.mosaic, imagery.scale, imagery.campaign.cluster
    blocks = blocks_of(mosaic.inputs, scale.block)
    parts = parts_of(mosaic.inputs, blocks, scale.layout)
    how = {"threads": cluster.threads, "cache_mb": cluster.gdal_cache_mb}
    busy = statistics.median(imagery.measured(decode, parts, **how).core_s for _ in range(scale.repeats))
    return sum(block.pixels for block in blocks) / 1e6 / busy
