"""`gpu`: the torch engine on a CUDA device: its speed, its share of the device's peak, and the cores that feed it.

The figures that decide most come first, and the report is written after each, so that a device that is lent for minutes
leaves results whenever it is taken away. Nothing here or below needs OpenVINO, pandas, pyarrow or matplotlib.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.chart import bar_chart
from pipeline.bench.forward import agreement, class_maps, window_image
from pipeline.bench.gemm import device_gemm, network_flops
from pipeline.bench.imagery import Imagery
from pipeline.bench.measurements.feed import all_blocks, decode_imagery
from pipeline.bench.measurements.gpu_checks import Checked, map_imagery, run_gpu_tests
from pipeline.bench.report import BenchReport
from pipeline.config import Precision
from pipeline.errors import EngineError, LandcoverError
from pipeline.grid import PIXELS_PER_M
from pipeline.halo import Layout
from pipeline.inference import Engine, on_gpu, predictor_for
from pipeline.inference.engine import LANES, cuda_devices
from pipeline.inference.torch_engine import TorchPredictor, forward_kinds, peak_memory, reset_peak_memory
from pipeline.progress import OnMessage
from pipeline.runs.planning.throughput import MeasuredRate

_FORWARDS = 24
"""Windows of one timing at full scale: a GPU maps one in a fraction of a second."""
_BEFORE_DECODING = 2
"""Decoding is measured after two engines: what feeds the faster one."""
_DRAWS = all(map(find_spec, ("matplotlib", "scipy")))
_KM2_PER_MPX = 1 / PIXELS_PER_M**2
"""A pixel covers 0.04 m²."""


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
    agreement: float
    """Share of the patches' pixels that have the class of fp32, 0..1."""
    device_bytes: int
    """Most memory of the device that torch reserved; 0 on the processor."""

    @property
    def kept_mpx(self) -> float:
        """Mpx of a window's core."""
        return self.layout.core**2 / 1e6


@dataclass(frozen=True)
class _Step:
    """A measurement to make: an engine with its windows."""

    name: str
    """`fp16`, `fp16_compiled`, `fp16_512x16`: the end of its figures' names."""
    engine: Engine
    layout: Layout
    batch: int = 1


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
    """Makes one measurement after the other until the time is up; the first one is always made.

    Those that there was no time for, or that failed, are in the notes.
    """
    report = _Report(imagery, on_message)
    left: list[str] = []
    for number, (name, measurement) in enumerate(_measurements(imagery, report)):
        if number and _is_time_up(imagery):
            left.append(name)
            continue
        try:
            measurement()
        except (LandcoverError, RuntimeError) as error:  # torch's own errors are of the latter type
            if not number:
                raise
            # The others are worth having: a device may be lent only once.
            report.notes.append(f"{name} failed: {str(error).strip()[:500]}")
            on_message(f"gpu: {report.notes[-1]}")
        report.made().write(imagery.reports, "gpu")
    if left:
        report.notes.append(f"there was no time to measure {', '.join(left)}: give it more --minutes")
    return report.made()


def _measurements(imagery: Imagery, report: "_Report") -> list[tuple[str, Callable[[], None]]]:
    """The measurements with their names, the most important ones first; the first one is fp32."""
    engines = [(step.name, partial(report.add_engine, step)) for step in _steps(imagery)]
    compiled = [(step.name, partial(report.add_engine, step)) for step in _compiled_steps(imagery)]
    return [
        *engines[:_BEFORE_DECODING],
        ("decoding on one core", report.add_decoding),
        *engines[_BEFORE_DECODING:],
        ("forwards on the device alone", report.add_forwards),
        *compiled[:1],
        ("the tests marked gpu", report.add_tests),
        ("a campaign", report.add_campaign),
        *compiled[1:],
    ]


def _is_time_up(imagery: Imagery) -> bool:
    return imagery.scale.until is not None and time.monotonic() > imagery.scale.until


def _precisions() -> tuple[Precision, ...]:
    """The first one is fp32, and the second one the fastest."""
    return ("fp32", "fp16", "bf16") if on_gpu(Engine("torch")) else ("fp32", "bf16")


def _windows(imagery: Imagery) -> list[tuple[Layout, int]]:
    """The windows beside the layout's own, and how many of them are in a call."""
    own = imagery.scale.layout
    return [(Layout.for_window(side, own.halo, own.stride), batch) for side, batch in imagery.scale.gpu_windows]


def _steps(imagery: Imagery) -> list[_Step]:
    layout, (_, lower, *_) = imagery.scale.layout, _precisions()
    steps = [_Step(precision, Engine("torch", precision), layout) for precision in _precisions()]
    other = [_Step(f"{lower}_{w.window}x{batch}", Engine("torch", lower), w, batch) for w, batch in _windows(imagery)]
    return steps + other


def _compiled_steps(imagery: Imagery) -> list[_Step]:
    """The same with `torch.compile`, which takes a minute or more for each."""
    if not _compiles(imagery):
        return []
    _, lower, *_ = _precisions()
    engine = Engine("torch", lower, compiled=True)
    own = _Step(f"{lower}_compiled", engine, imagery.scale.layout)
    return [own, *(_Step(f"{lower}_compiled_{w.window}x{batch}", engine, w, batch) for w, batch in _windows(imagery))]


def _compiles(imagery: Imagery) -> bool:
    return not imagery.scale.quick and find_spec("triton") is not None


class _Report:
    """What was measured so far."""

    def __init__(self, imagery: Imagery, on_message: OnMessage) -> None:
        self._imagery, self._on_message = imagery, on_message
        self._reference: NDArray[np.uint8] | None = None
        """The patches' classes in fp32."""
        self.timings: dict[str, EngineTiming] = {}
        self.core_mpx_per_s: float | None = None
        self._others: dict[str, float] = {}
        """Further figures, without `gpu.`."""
        self._raw: dict[str, Any] = {}
        windows = f"windows of {imagery.scale.layout.window} px, or as named (side x windows of a call)"
        self.notes = [*imagery.notes, f"measured on {_device()} with {windows}, counting the pixels of their cores"]
        if not _compiles(imagery):
            self.notes.append("torch.compile was not measured: the scale is quick, or Triton is not installed")
        if not _DRAWS:
            self.notes.append("there is no chart, because matplotlib or SciPy is not installed")

    def add_engine(self, step: _Step) -> None:
        """Times an engine from the host's pixels to the host's layers."""
        if self._reference is None:
            self._reference = class_maps(predictor_for(self._imagery.model, step.engine), self._imagery.patches)
        timing = _time_engine(self._imagery, step, self._reference)
        self.timings[step.name] = timing
        self._on_message(f"gpu: {step.name} {timing.kept_mpx / timing.threads_s:.4g} Mpx/s")

    def add_decoding(self) -> None:
        """Measures what feeds the engines."""
        self.core_mpx_per_s = _decode_rate(self._imagery)
        self._on_message(f"gpu: one core decodes {self.core_mpx_per_s:.3g} Mpx/s")

    def add_forwards(self) -> None:
        """Times forwards without copies, in each memory layout and as a CUDA graph."""
        model, scale, (_, lower, *_) = self._imagery.model, self._imagery.scale, _precisions()
        predictor, bands = TorchPredictor(model, precision=lower), len(model.recipe.bands)
        for layout, batch in [(scale.layout, 1), *_windows(self._imagery)]:
            for how in forward_kinds():
                shape = (batch, bands, layout.window, layout.window)
                seconds = predictor.time_forwards(how, shape, calls=1 if scale.quick else _FORWARDS)
                name = f"device_mpx_per_s_{lower}_{how}_{layout.window}x{batch}"
                self._others[name] = batch * layout.core**2 / 1e6 / seconds
                self._on_message(f"gpu: {name} = {self._others[name]:.4g}")

    def add_tests(self) -> None:
        """Runs the tests that need a device."""
        until = self._imagery.scale.until
        done = run_gpu_tests(self._imagery.folder, seconds=None if until is None else until - time.monotonic())
        self._add(done, "tests")

    def add_campaign(self) -> None:
        """Maps the imagery with the code of `landcover run`."""
        self._add(map_imagery(self._imagery, _precisions()[1]), "campaign")

    def _add(self, done: Checked, name: str) -> None:
        self._others |= done.figures
        self._raw[name] = done.raw
        self.notes += done.notes
        self._on_message(f"gpu: {', '.join(f'{figure} = {value:.4g}' for figure, value in done.figures.items())}")

    def made(self) -> BenchReport:
        """The report of what was measured so far."""
        decoding = {} if self.core_mpx_per_s is None else {"gpu.decode_mpx_per_core_s": self.core_mpx_per_s}
        figures: dict[str, float] = {**decoding}
        raw: dict[str, Any] = {**self._raw}
        for name, timing in self.timings.items():
            own = _figures(self._imagery, timing, self.core_mpx_per_s)
            figures |= {f"gpu.{figure}_{name}": value for figure, value in own.items()}
            raw[name] = {
                "window_s_one_thread": timing.one_thread_s,
                f"window_s_{LANES}_threads": timing.threads_s,
                "gemm_gflop_per_s": timing.gemm_gflop_per_s,
                "device_bytes": timing.device_bytes,
            }
        figures |= {f"gpu.{figure}": value for figure, value in self._others.items()}
        shown = [(name, figures[f"gpu.mpx_per_s_{name}"]) for name in self.timings]
        network = self._imagery.model.recipe.name
        rates = tuple(
            MeasuredRate.inference(t.layout.window**2 / 1e6 / t.threads_s, t.engine, network=network, device=_device())
            for t in self.timings.values()
            if not t.engine.compiled and t.layout == self._imagery.scale.layout
        )
        chart = bar_chart("Speed of one GPU, without reading", shown, unit="Mpx/s") if _DRAWS else b""
        return BenchReport(figures, raw, chart, tuple(self.notes), rates)


def _device() -> str:
    return next(iter(cuda_devices()), "the processor")


def _figures(imagery: Imagery, timing: EngineTiming, core_mpx_per_s: float | None) -> Mapping[str, float]:
    """The figures of one engine; each pixel counts once, however often windows overlap on it."""
    rate = timing.kept_mpx / timing.threads_s
    flops = network_flops(imagery.model, timing.layout.window**2)
    return {
        "mpx_per_s": rate,
        "km2_per_hour": rate * _KM2_PER_MPX * 3600,
        "gemm_share": flops / timing.threads_s / 1e9 / timing.gemm_gflop_per_s,
        "copies_hidden": 1 - timing.threads_s / timing.one_thread_s,
        "agreement": timing.agreement,
        **({} if core_mpx_per_s is None else {"cores_to_feed": rate / core_mpx_per_s}),
    }


def _time_engine(imagery: Imagery, step: _Step, reference: NDArray[np.uint8]) -> EngineTiming:
    """Times an engine and multiplications in turns, and takes the best of each."""
    scale, predictor = imagery.scale, predictor_for(imagery.model, step.engine)
    share = agreement(class_maps(predictor, imagery.patches), reference)
    image = np.repeat(window_image(imagery, step.layout.window), step.batch, axis=0)
    valid = np.ones((step.batch, *image.shape[2:]), np.bool_)
    multiply = device_gemm(scale.gemm, step.engine.precision)
    calls = 1 if scale.quick else max(LANES, _FORWARDS // step.batch)
    reset_peak_memory()

    def seconds(threads: int) -> float:
        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            for done in [pool.submit(predictor, image, valid) for _ in range(calls)]:
                done.result()
            return (time.perf_counter() - start) / (calls * step.batch)

    seconds(LANES)  # compiles the graph for this window, and pins the buffers of each lane
    turns = [(seconds(1), seconds(LANES), multiply()) for _ in range(scale.repeats)]
    one_thread, threads, rates = zip(*turns, strict=True)
    return EngineTiming(
        step.engine, step.layout, step.batch, min(one_thread), min(threads), max(rates), share, peak_memory()
    )


def _decode_rate(imagery: Imagery) -> float:
    """Mpx of RVB and IRC that a core decodes in a busy second, as `feed` measures it."""
    blocks, cluster = all_blocks(imagery.mosaic.inputs, imagery.scale.block), imagery.campaign.cluster
    busy = statistics.median(decode_imagery(imagery, blocks, cluster).core_s for _ in range(imagery.scale.repeats))
    return sum(block.pixels for block in blocks) / 1e6 / busy
