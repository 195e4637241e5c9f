"""`engines`: the speed of a forward by engine and window, compared with the machine's best matrix multiplication."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from pipeline.bench.chart import bar_chart
from pipeline.bench.forward import agreement, class_maps, forward_seconds, window_image
from pipeline.bench.gemm import cpu_gemms, network_flops
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import cores
from pipeline.bench.report import BenchReport
from pipeline.inference import Engine, predictor_for
from pipeline.inference.engine import cuda_devices, missing_instructions
from pipeline.progress import OnMessage
from pipeline.runs.planning.throughput import MeasuredRate

_BF16 = Engine("openvino", "bf16")
ENGINES = (Engine("torch", "fp32"), Engine("openvino", "fp32"), *(() if missing_instructions(_BF16) else (_BF16,)))
"""int8 is measured by `quantize`; bf16 only where the processor has instructions for it: it is slow elsewhere."""
_PATCH_REPEATS = 5
"""How often a small window is timed for each time of a large one: it takes a fraction of a second."""


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Times forwards and multiplications in turns, so that other load on the machine slows both."""
    model, threads, scale = imagery.model, cores(), imagery.scale
    predictors = {_name(e): predictor_for(model, e, threads=threads) for e in ENGINES}
    maps = {name: class_maps(predictor, imagery.patches) for name, predictor in predictors.items()}
    gemms = cpu_gemms(scale.gemm, threads=threads)
    images = {side: window_image(imagery, side) for side in (scale.patch, scale.layout.window)}
    gemm_rates: dict[str, list[float]] = {name: [] for name in gemms}
    seconds: dict[tuple[str, int], list[float]] = {(name, side): [] for name in predictors for side in images}
    for name, side in seconds:
        forward_seconds(predictors[name], images[side])  # compiles the graph for this window
    for turn in range(scale.repeats):
        for (name, side), times in seconds.items():
            for _ in range(_PATCH_REPEATS if side == scale.patch and not scale.quick else 1):
                times.append(forward_seconds(predictors[name], images[side]))
            for library, multiply in gemms.items():
                gemm_rates[library].append(multiply())
        on_message(f"engines: turn {turn + 1} of {scale.repeats}")
    peak = max(max(rates) for rates in gemm_rates.values())
    flops = {side: network_flops(model, side * side) for side in images}
    rates = [_rate(name, side, times, flops=flops[side], peak=peak) for (name, side), times in seconds.items()]
    exact = [name for name in maps if name.endswith("fp32")]
    agreements = {f"{a}, {b}": agreement(maps[a], maps[b]) for a, b in combinations(exact, 2)}
    return _report(imagery, rates, gemm_rates, agreements=agreements, threads=threads)


def _name(engine: Engine) -> str:
    return f"{engine.name} {engine.precision}"


def _rate(name: str, side: int, times: list[float], *, flops: float, peak: float) -> dict[str, Any]:
    """The figures of an engine and window from its best time, as for multiplications."""
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
) -> BenchReport:
    window = imagery.scale.layout.window
    share = next(r["gemm_share"] for r in rates if r["engine"] == "openvino fp32" and r["window"] == window)
    peak = max(max(r) for r in gemm_rates.values())
    values = [(f"{r['engine']}, {r['window']} px", r["gflop_per_s"]) for r in rates]
    return BenchReport(
        {"engines.gemm_share_fp32": share, "engines.agreement_fp32": min(agreements.values())},
        {"threads": threads, "forwards": rates, "gemm_gflop_per_s": dict(gemm_rates), "agreement": dict(agreements)},
        bar_chart("Forwards and the matrix-multiply peak", [("peak (fp32)", peak), *values], unit="GFLOP/s"),
        imagery.notes,
        tuple(_measured(e, rates, threads=threads, imagery=imagery) for e in ENGINES),
    )


def _measured(engine: Engine, rates: list[dict[str, Any]], *, threads: int, imagery: Imagery) -> MeasuredRate:
    """The rate at the default window: of a core, or of the CUDA device if torch has one."""
    window = imagery.scale.layout.window
    mpx_s = next(r["mpx_per_s"] for r in rates if r["engine"] == _name(engine) and r["window"] == window)
    devices = cuda_devices() if engine.name == "torch" else ()
    network = imagery.model.recipe.name
    if devices:
        return MeasuredRate.inference(mpx_s, engine, network=network, device=devices[0])
    return MeasuredRate.inference(mpx_s / threads, engine, network=network)
