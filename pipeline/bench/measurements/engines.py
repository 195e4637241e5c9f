"""`engines`: the forward alone, per engine, precision and window, against what the machine multiplies at best."""

import time
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.chart import bars
from pipeline.bench.gemm import agreement, multiplications, network_flops
from pipeline.bench.imagery import Imagery, Say, mirrored
from pipeline.bench.machine import cores
from pipeline.bench.report import Report
from pipeline.grid import Window
from pipeline.inference import Engine, Predictor, predictor_for
from pipeline.inference.torch_engine import cuda_devices
from pipeline.runs.planning.throughput import MeasuredRate

NAME = "engines"
ENGINES = (Engine("torch", "fp32"), Engine("openvino", "fp32"))
"""int8 is `quantize`'s; bf16, at half the speed of fp32 where it was tried, is nobody's."""
_PATCH_REPEATS = 5
"""A small window takes a fraction of a second: it is timed several times where a large one is timed once."""


def run(imagery: Imagery, *, say: Say) -> Report:
    """Times forwards and multiplications in turns, so that a neighbour's noise falls on both."""
    model, threads, scale = imagery.model, cores(), imagery.scale
    predictors = {_name(e): predictor_for(model, e, threads=threads) for e in ENGINES}
    maps = {name: _mapped(p, imagery.patches) for name, p in predictors.items()}
    gemms = multiplications(scale.gemm, threads=threads)
    sides = (scale.patch, scale.layout.window)
    images = {side: mirrored(imagery.patches, Window(0, 0, side, side))[None] for side in sides}
    gemm_rates: dict[str, list[float]] = {name: [] for name in gemms}
    seconds: dict[tuple[str, int], list[float]] = {(name, side): [] for name in predictors for side in sides}
    for name, side in seconds:
        _timed(predictors[name], images[side])  # the first of a shape compiles
    for turn in range(scale.repeats):
        for (name, side), times in seconds.items():
            for _ in range(_PATCH_REPEATS if side == scale.patch and scale.apart else 1):
                times.append(_timed(predictors[name], images[side]))
            for library, multiply in gemms.items():
                gemm_rates[library].append(multiply())
        say(f"engines: {turn + 1} of {scale.repeats} turns")
    peak = max(max(rates) for rates in gemm_rates.values())
    flops = {side: network_flops(model, side * side) for side in sides}
    rates = [_rate(name, side, times, flops=flops[side], peak=peak) for (name, side), times in seconds.items()]
    agreements = {f"{a}, {b}": agreement(maps[a], maps[b]) for a, b in combinations(maps, 2)}
    return _report(imagery, rates, gemm_rates, agreements=agreements, threads=threads)


def _name(engine: Engine) -> str:
    return f"{engine.name} {engine.precision}"


def _mapped(predictor: Predictor, patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Classes (patch, y, x)."""
    valid = np.ones((1, *patches.shape[2:]), np.bool_)
    return np.stack([predictor(patch[None], valid)[0, 0] for patch in patches])


def _timed(predictor: Predictor, image: NDArray[np.uint8]) -> float:
    valid = np.ones((1, *image.shape[2:]), np.bool_)
    start = time.perf_counter()
    predictor(image, valid)
    return time.perf_counter() - start


def _rate(name: str, side: int, times: list[float], *, flops: float, peak: float) -> dict[str, Any]:
    """The best time counts, as the best multiplication does."""
    best = min(times)
    return {
        "engine": name,
        "window": side,
        "seconds": times,
        "mpx_per_s": side * side / best / 1e6,
        "gflop": flops / 1e9,
        "gflop_per_s": flops / best / 1e9,
        "gemm_share": flops / best / 1e9 / peak,
    }


def _report(
    imagery: Imagery,
    rates: list[dict[str, Any]],
    gemm_rates: Mapping[str, list[float]],
    *,
    agreements: Mapping[str, float],
    threads: int,
) -> Report:
    window = imagery.scale.layout.window
    share = next(r["gemm_share"] for r in rates if r["engine"] == "openvino fp32" and r["window"] == window)
    peak = max(max(r) for r in gemm_rates.values())
    values = [(f"{r['engine']}, {r['window']} px", r["gflop_per_s"]) for r in rates]
    return Report(
        NAME,
        {
            "engines.gemm_share_fp32": share,
            "engines.agreement_fp32": min(agreements.values()),
        },
        {"threads": threads, "forwards": rates, "gemm_gflop_per_s": dict(gemm_rates), "agreement": dict(agreements)},
        bars("Forward alone against the matrix-multiply peak", [("peak (fp32)", peak), *values], unit="GFLOP/s"),
        imagery.told,
        tuple(_measured(e, rates, threads=threads, imagery=imagery) for e in ENGINES),
    )


def _measured(engine: Engine, rates: list[dict[str, Any]], *, threads: int, imagery: Imagery) -> MeasuredRate:
    """The rate of the default window: of a core, or of the CUDA device that torch takes where there is one."""
    window = imagery.scale.layout.window
    mpx_s = next(r["mpx_per_s"] for r in rates if r["engine"] == _name(engine) and r["window"] == window)
    devices = cuda_devices() if engine.name == "torch" else ()
    network = imagery.model.recipe.name
    if devices:
        return MeasuredRate.inference(mpx_s, engine, network=network, device=devices[0])
    return MeasuredRate.inference(mpx_s / threads, engine, network=network)
