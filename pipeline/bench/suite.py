"""Runs benches by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from pipeline.bench.imagery import make_imagery
from pipeline.bench.measurements import engines, feed, gpu, halo, quantize
from pipeline.bench.measurements import run as mapping
from pipeline.bench.report import BenchReport
from pipeline.bench.scale import FULL, QUICK, BenchScale
from pipeline.errors import ConfigError
from pipeline.progress import OnMessage
from pipeline.runs.planning.throughput import save_rates

MEASUREMENTS: Mapping[str, Callable[..., BenchReport]] = {
    engines.NAME: engines.run,
    feed.NAME: feed.run,
    mapping.NAME: mapping.run,
    halo.NAME: halo.run,
    quantize.NAME: quantize.run,
    gpu.NAME: gpu.run,
}
"""Name → function that measures; it takes the imagery and `on_message=`."""
DEFAULT = (engines.NAME, feed.NAME, mapping.NAME, halo.NAME, quantize.NAME)
"""The benches that run if none is named."""
DEVELOPMENT = ("nation", "publish", "rehearsal", "train")
"""Benches that only developers need; they are in a checkout, not in an installed package."""
_WITHOUT_IMAGERY = {"nation", "publish", "rehearsal"}
"""Benches that need only the network, so that small imagery is enough for them."""


def available_benches() -> Mapping[str, Callable[..., BenchReport]]:
    """All benches that are installed, by name; in a checkout the development benches too."""
    if not Path(__file__).with_name("development").joinpath("__init__.py").is_file():
        return MEASUREMENTS
    modules = {name: import_module(f"pipeline.bench.development.{name}") for name in DEVELOPMENT}
    return {**MEASUREMENTS, **{name: module.run for name, module in modules.items()}}


def run_benches(
    names: Sequence[str], *, out: Path, data: Path, quick: bool, on_message: OnMessage, full_size: bool = False
) -> list[BenchReport]:
    """Makes the imagery if it is missing, then runs the benches one after the other and writes their reports.

    Args:
        names: names of benches; `DEFAULT` if empty.
        out: folder of the reports; the imagery is kept below it.
        data: folder of real files.
        quick: 1 Mpx instead of 100, which shows that everything runs and measures nothing.
        on_message: called with a line after each step.
        full_size: tiles of 25 000 px for `rehearsal` and `publish`.

    Raises:
        ConfigError: an unknown bench, or one that is not in an installed package.
        EngineError: OpenVINO or NNCF is not installed, or `gpu` is requested on a machine without one.
        StorageError: `out`, or the file of rates, cannot be written.
    """
    benches = available_benches()
    _check_names(names, benches)
    if gpu.NAME in names:
        gpu.check_device(quick=quick)
    scale = _scale(names, quick=quick, full_size=full_size)
    imagery = make_imagery(out, data=data, scale=scale, on_message=on_message)
    reports = []
    for name in names or DEFAULT:
        report = benches[name](imagery, on_message=on_message)
        path = report.write(out)
        for figure, value in report.figures.items():
            on_message(f"{figure} = {value:.5g}")
        on_message(f"{name}: {path}")
        if report.rates and not scale.quick:
            on_message(f"{name}: {len(report.rates)} rates kept in {save_rates(report.rates)}")
        reports.append(report)
    return reports


def _check_names(names: Sequence[str], benches: Mapping[str, object]) -> None:
    unknown = [name for name in names if name not in benches]
    if left_out := [name for name in unknown if name in DEVELOPMENT]:
        raise ConfigError(
            f"bench {', '.join(left_out)} is not in the installed package: it is for developers; run it in a checkout "
            "of the repository"
        )
    if unknown:
        raise ConfigError(f"unknown bench {', '.join(unknown)}: expected {', '.join(benches)}")


def _scale(names: Sequence[str], *, quick: bool, full_size: bool) -> BenchScale:
    small = quick or (bool(names) and _WITHOUT_IMAGERY.issuperset(names))
    return replace(QUICK if small else FULL, quick=quick, full_size=full_size)
