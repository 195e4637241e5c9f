"""Runs benches by name."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from pipeline.bench.imagery import make_imagery
from pipeline.bench.report import BenchReport
from pipeline.bench.scale import FULL, QUICK, gpu_alone
from pipeline.errors import ConfigError, StorageError
from pipeline.progress import OnMessage
from pipeline.runs.planning.throughput import MeasuredRate, save_rates

DEFAULT = ("engines", "feed", "run", "halo", "quantize")
"""The benches that run if none is named."""
_MORE = ("gpu", "ensemble")
_SAMPLING = ("areas", "coverage")
_NETWORKS = ("windows",)
DEVELOPMENT = (
    *(*_SAMPLING, *_NETWORKS),
    *("growth", "nation", "novelty", "publish", "rehearsal", "train", "vectorize", "view"),
)
"""Benches that only developers need; they are in a checkout, not in an installed package."""
_WITHOUT_IMAGERY = {"ensemble", *DEVELOPMENT}
"""Benches that need only the network or patches, so that small imagery is enough for them."""


def available_benches() -> Mapping[str, str]:
    """All benches that are installed; in a checkout the development benches too.

    Returns:
        Name → its module. The function `run` there measures; it takes the imagery and `on_message=`.
    """
    modules = {name: f"pipeline.bench.measurements.{name}" for name in (*DEFAULT, *_MORE)}
    if Path(__file__).with_name("development").joinpath("__init__.py").is_file():
        modules |= {name: f"pipeline.bench.development.{name}" for name in DEVELOPMENT}
        modules |= {name: f"pipeline.bench.development.sampling.{name}" for name in _SAMPLING}
        modules |= {name: f"pipeline.bench.development.networks.{name}" for name in _NETWORKS}
    return modules


def run_benches(
    names: Sequence[str],
    *,
    out: Path,
    data: Path,
    quick: bool,
    on_message: OnMessage,
    full_size: bool = False,
    loader: bool = False,
    minutes: float | None = None,
) -> None:
    """Makes the imagery if it is missing, then runs the benches one after the other and writes their reports.

    Args:
        names: names of benches; `DEFAULT` if empty.
        out: folder of the reports; the imagery is kept below it.
        data: folder of real files.
        quick: 1 Mpx instead of 100, which shows that everything runs and measures nothing.
        on_message: called with a line after each step.
        full_size: tiles of 25 000 px for `rehearsal` and `publish`.
        loader: let `train` measure the loader of patches and the training step.
        minutes: from now, after which `gpu` starts no more measurements.

    Raises:
        ConfigError: an unknown bench, or one that is not in an installed package.
        EngineError: OpenVINO or NNCF is not installed, or `gpu` is requested on a machine without one.
        StorageError: `out` cannot be written.
    """
    benches = available_benches()
    _check_names(names, benches)
    if "gpu" in names:
        import_module(benches["gpu"]).check_device(quick=quick)
    small = quick or (bool(names) and _WITHOUT_IMAGERY.issuperset(names))
    until = None if minutes is None else time.monotonic() + 60 * minutes
    sizes = QUICK if quick else replace(QUICK, patch=FULL.patch) if small else FULL
    scale = replace(sizes, quick=quick, full_size=full_size, loader=loader, until=until)
    if set(names) == {"gpu"}:
        scale = gpu_alone(scale)
    imagery = make_imagery(out, data=data, scale=scale, on_message=on_message)
    for name in names or DEFAULT:
        start = time.monotonic()
        # Imported now: what one bench needs, such as OpenVINO or pyarrow, may be missing where another runs.
        report: BenchReport = import_module(benches[name]).run(imagery, on_message=on_message)
        path = report.write(out, name)
        for figure, value in report.figures.items():
            on_message(f"{figure} = {value:.5g}")
        on_message(f"{name}: {path}, in {(time.monotonic() - start) / 60:.1f} min")
        if report.rates and not scale.quick:
            on_message(f"{name}: {_keep_rates(report.rates)}")


def _keep_rates(rates: Sequence[MeasuredRate]) -> str:
    """Keeps rates for `landcover plan`, and says where; a machine that is lent may have no folder for them."""
    try:
        return f"{len(rates)} rates kept in {save_rates(rates)}"
    except StorageError as error:
        return f"the rates are in the report only: {error}"


def _check_names(names: Sequence[str], benches: Mapping[str, object]) -> None:
    unknown = [name for name in names if name not in benches]
    if left_out := [name for name in unknown if name in DEVELOPMENT]:
        raise ConfigError(
            f"bench {', '.join(left_out)} is not in the installed package: it is for developers; run it in a checkout "
            "of the repository"
        )
    if unknown:
        raise ConfigError(f"unknown bench {', '.join(unknown)}: expected {', '.join(benches)}")
