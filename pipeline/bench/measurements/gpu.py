"""`gpu`: the torch engine on a CUDA device: its speed, its share of the device's peak, and the cores that feed it.

The figures that decide most come first, and the report is written after each, so that a device that is lent for minutes
leaves results whenever it is taken away. What fails costs its own figure and leaves a note; what may harm the others,
or take minutes, runs in a process of its own. Nothing here or below needs OpenVINO, pandas, pyarrow or matplotlib.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.chart import bar_chart
from pipeline.bench.gemm import network_flops
from pipeline.bench.imagery import Imagery
from pipeline.bench.measurements.feed import all_blocks, decode_imagery
from pipeline.bench.measurements.gpu_checks import Checked, map_imagery, run_gpu_tests
from pipeline.bench.measurements.gpu_timings import (
    EngineStep,
    EngineTiming,
    classes_in_fp32,
    time_engine,
    time_forwards,
)
from pipeline.bench.report import BenchReport
from pipeline.config import ClusterKind, Precision
from pipeline.errors import EngineError
from pipeline.grid import PIXELS_PER_M
from pipeline.halo import Layout
from pipeline.inference import Engine, on_gpu
from pipeline.inference.engine import LANES, cuda_devices
from pipeline.inference.torch_engine import ForwardKind, forward_kinds
from pipeline.progress import OnMessage
from pipeline.runs.planning.throughput import MeasuredRate

_BEFORE_DECODING = 2
"""Decoding is measured after two engines: what feeds the faster one."""
_LEAST_S = 60.0
"""Shortest time limit of a process."""
_KM2_PER_MPX = 1 / PIXELS_PER_M**2
"""A pixel covers 0.04 m²."""


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

    Raises:
        EngineError: all of them failed.
        StorageError: the report cannot be written.
    """
    report = _Report(imagery, on_message)
    left: list[str] = []
    for number, (name, measurement) in enumerate(_measurements(imagery, report)):
        if number and _is_time_up(imagery):
            left.append(name)
            continue
        try:
            measurement()
        except Exception as error:  # noqa: BLE001  (a device may be lent only once: the other figures are worth having)
            report.note(f"{name} failed: {type(error).__name__}: {str(error).strip()[:500]}")
        report.made().write(imagery.reports, "gpu")
    if not report.timings:
        raise EngineError(f"bench gpu could time no engine; {imagery.reports / 'gpu.json'} has what failed")
    if left:
        report.notes.append(f"there was no time to measure {', '.join(left)}: give it more --minutes")
    return report.drawn()


def _measurements(imagery: Imagery, report: "_Report") -> list[tuple[str, Callable[[], None]]]:
    """The measurements with their names, the most important ones first; the first one is fp32."""
    engines = [(step.name, partial(report.add_engine, step)) for step in _steps(imagery)]
    compiled = [(step.name, partial(report.add_engine, step)) for step in _compiled_steps(imagery)]
    windows = [(imagery.scale.layout, 1), *_windows(imagery)]
    forwards = [
        (f"forwards as {how} in {layout.window}x{batch}", partial(report.add_forwards, how, layout, batch))
        for how in forward_kinds()
        for layout, batch in windows
    ]
    campaigns = [(f"a campaign on a {kind} cluster", partial(report.add_campaign, kind)) for kind in _cluster_kinds()]
    return [
        *engines[:_BEFORE_DECODING],
        ("decoding on one core", report.add_decoding),
        *engines[_BEFORE_DECODING:],
        *forwards,
        *compiled[:1],
        ("the tests marked gpu", report.add_tests),
        *campaigns,
        *compiled[1:],
    ]


def _cluster_kinds() -> tuple[ClusterKind, ...]:
    """`cuda` after `local`, where there is a device and dask-cuda."""
    return ("local", "cuda") if on_gpu(Engine("torch")) and find_spec("dask_cuda") else ("local",)


def _is_time_up(imagery: Imagery) -> bool:
    return imagery.scale.until is not None and time.monotonic() > imagery.scale.until


def _time_limit(imagery: Imagery) -> float | None:
    """Seconds that a process may take: half of those that are left, so that the next ones have some too."""
    until = imagery.scale.until
    return None if until is None else max(_LEAST_S, (until - time.monotonic()) / 2)


def _precisions() -> tuple[Precision, ...]:
    """The first one is fp32, and the second one the fastest."""
    return ("fp32", "fp16", "bf16") if on_gpu(Engine("torch")) else ("fp32", "bf16")


def _windows(imagery: Imagery) -> list[tuple[Layout, int]]:
    """The windows beside the layout's own, and how many of them are in a call."""
    own = imagery.scale.layout
    return [(Layout.for_window(side, own.halo, own.stride), batch) for side, batch in imagery.scale.gpu_windows]


def _steps(imagery: Imagery) -> list[EngineStep]:
    layout, (_, lower, *_) = imagery.scale.layout, _precisions()
    steps = [EngineStep(precision, Engine("torch", precision), layout) for precision in _precisions()]
    other = [
        EngineStep(f"{lower}_{w.window}x{batch}", Engine("torch", lower), w, batch) for w, batch in _windows(imagery)
    ]
    return steps + other


def _compiled_steps(imagery: Imagery) -> list[EngineStep]:
    """The same with `torch.compile`, which takes a minute or more for each."""
    if not _compiles(imagery):
        return []
    _, lower, *_ = _precisions()
    engine = Engine("torch", lower, compiled=True)
    own = EngineStep(f"{lower}_compiled", engine, imagery.scale.layout)
    return [
        own,
        *(EngineStep(f"{lower}_compiled_{w.window}x{batch}", engine, w, batch) for w, batch in _windows(imagery)),
    ]


def _compiles(imagery: Imagery) -> bool:
    return not imagery.scale.quick and find_spec("triton") is not None


class _Report:
    """What was measured so far."""

    def __init__(self, imagery: Imagery, on_message: OnMessage) -> None:
        self._imagery, self._on_message = imagery, on_message
        self._truths: dict[int, NDArray[np.uint8] | None] = {}
        """Side of a window → its classes in fp32; None where that exceeds the device's memory."""
        self.timings: dict[str, EngineTiming] = {}
        self.core_mpx_per_s: float | None = None
        self._others: dict[str, float] = {}
        """Further figures, without `gpu.`."""
        self._raw: dict[str, Any] = {}
        windows = f"windows of {imagery.scale.layout.window} px, or as named (side x windows of a call)"
        self.notes = [*imagery.notes, f"measured on {_device()} with {windows}, counting the pixels of their cores"]
        if not _compiles(imagery):
            self.notes.append("torch.compile was not measured: the scale is quick, or Triton is not installed")

    def note(self, text: str) -> None:
        """Keeps a note, and prints it."""
        self.notes.append(text)
        self._on_message(f"gpu: {text}")

    def add_engine(self, step: EngineStep) -> None:
        """Times an engine from the host's pixels to the host's layers; one that is compiled, in a new process."""
        truth = self._truth(step.layout.window)
        if step.engine.compiled:
            timing = self._imagery.measured_within(_time_limit(self._imagery), time_engine, self._imagery, step, truth)
        else:
            timing = time_engine(self._imagery, step, truth)
        self.timings[step.name] = timing
        self._on_message(f"gpu: {step.name} {timing.kept_mpx / timing.threads_s:.4g} Mpx/s")

    def _truth(self, side: int) -> NDArray[np.uint8] | None:
        if side not in self._truths:
            try:
                self._truths[side] = classes_in_fp32(self._imagery, side)
            except EngineError as error:
                self._truths[side] = None
                self.note(f"agreement over windows of {side} px is missing: {error}")
        return self._truths[side]

    def add_decoding(self) -> None:
        """Measures what feeds the engines."""
        self.core_mpx_per_s = _decode_rate(self._imagery)
        self._on_message(f"gpu: one core decodes {self.core_mpx_per_s:.3g} Mpx/s")

    def add_forwards(self, how: ForwardKind, layout: Layout, batch: int) -> None:
        """Times forwards without copies; as a CUDA graph, in a new process."""
        imagery, lower = self._imagery, _precisions()[1]
        given = (imagery, lower, how, layout, batch)
        if how == "graph":
            rate = imagery.measured_within(_time_limit(imagery), time_forwards, *given)
        else:
            rate = time_forwards(*given)
        name = f"device_mpx_per_s_{lower}_{how}_{layout.window}x{batch}"
        self._others[name] = rate
        self._on_message(f"gpu: {name} = {rate:.4g}")

    def add_tests(self) -> None:
        """Runs the tests that need a device."""
        self._add(run_gpu_tests(self._imagery.folder, seconds=_time_limit(self._imagery)), "tests")

    def add_campaign(self, kind: ClusterKind) -> None:
        """Maps the imagery with the code of `landcover run`."""
        name = "campaign" if kind == "local" else f"campaign_{kind}"
        done = map_imagery(self._imagery, _precisions()[1], kind=kind, seconds=_time_limit(self._imagery))
        figures = {f"{name}_{figure}": value for figure, value in done.figures.items()}
        self._add(replace(done, figures=figures), name)

    def _add(self, done: Checked, name: str) -> None:
        self._others |= done.figures
        self._raw[name] = done.raw
        self.notes += done.notes
        self._on_message(f"gpu: {', '.join(f'{figure} = {value:.4g}' for figure, value in done.figures.items())}")

    def made(self) -> BenchReport:
        """The report of what was measured so far, without a chart."""
        figures: dict[str, float] = {}
        if self.core_mpx_per_s is not None:
            figures["gpu.decode_mpx_per_core_s"] = self.core_mpx_per_s
        raw: dict[str, Any] = {**self._raw}
        for name, timing in self.timings.items():
            own = engine_figures(timing, flops_a_pixel=self._flops_a_pixel, core_mpx_per_s=self.core_mpx_per_s)
            figures |= {f"gpu.{figure}_{name}": value for figure, value in own.items()}
            raw[name] = {
                "window_s_one_thread": timing.one_thread_s,
                f"window_s_{LANES}_threads": timing.threads_s,
                "gemm_gflop_per_s": timing.gemm_gflop_per_s,
                "device_bytes": timing.device_bytes,
            }
        figures |= {f"gpu.{figure}": value for figure, value in self._others.items()}
        network = self._imagery.model.recipe.name
        rates = tuple(
            MeasuredRate.inference(t.layout.window**2 / 1e6 / t.threads_s, t.engine, network=network, device=_device())
            for t in self.timings.values()
            if not t.engine.compiled and t.layout == self._imagery.scale.layout
        )
        return BenchReport(figures, raw, b"", tuple(self.notes), rates)

    def drawn(self) -> BenchReport:
        """The report with its chart, where one can be drawn."""
        speeds = [(name, t.kept_mpx / t.threads_s) for name, t in self.timings.items()]
        chart = b""
        try:
            chart = bar_chart("Speed of one GPU, without reading", speeds, unit="Mpx/s")
        except (ImportError, OSError) as error:  # a folder for matplotlib's cache cannot be made
            self.note(f"there is no chart: {error}")
        return replace(self.made(), chart=chart)

    @cached_property
    def _flops_a_pixel(self) -> float:
        return network_flops(self._imagery.model, 1)


def _device() -> str:
    return next(iter(cuda_devices()), "the processor")


def engine_figures(timing: EngineTiming, *, flops_a_pixel: float, core_mpx_per_s: float | None) -> Mapping[str, float]:
    """The figures of one engine; each pixel counts once, however often windows overlap on it.

    Args:
        timing: of the engine.
        flops_a_pixel: operations of its network.
        core_mpx_per_s: Mpx that one core decodes in a second, where that is known already.
    """
    rate = timing.kept_mpx / timing.threads_s
    flops = flops_a_pixel * timing.layout.window**2
    return {
        "mpx_per_s": rate,
        "km2_per_hour": rate * _KM2_PER_MPX * 3600,
        "gemm_share": flops / timing.threads_s / 1e9 / timing.gemm_gflop_per_s,
        "copies_hidden": 1 - timing.threads_s / timing.one_thread_s,
        **({} if timing.agreement is None else {"agreement": timing.agreement}),
        **({} if core_mpx_per_s is None else {"cores_to_feed": rate / core_mpx_per_s}),
    }


def _decode_rate(imagery: Imagery) -> float:
    """Mpx of RVB and IRC that a core decodes in a busy second, as `feed` measures it, once."""
    blocks, cluster = all_blocks(imagery.mosaic.inputs, imagery.scale.block), imagery.campaign.cluster
    return sum(block.pixels for block in blocks) / 1e6 / decode_imagery(imagery, blocks, cluster).core_s
