"""All benches by name."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.bench import engines, feed, gpu, halo, mapping
from pipeline.bench.imagery import FULL, QUICK, Imagery, Say, make_imagery
from pipeline.bench.report import Report
from pipeline.errors import ConfigError

BENCHES: Mapping[str, Callable[..., Report]] = {
    engines.NAME: engines.run,
    feed.NAME: feed.run,
    mapping.NAME: mapping.run,
    halo.NAME: halo.run,
    gpu.NAME: gpu.run,
}
"""Name → what measures: called with the imagery and `say=`."""
ON_PROCESSOR = tuple(name for name in BENCHES if name != gpu.NAME)
"""What is measured when nothing is named."""


def run_benches(names: Sequence[str], *, out: Path, data: Path, quick: bool, say: Say) -> list[Report]:
    """Makes the imagery where it is missing, then measures and writes one bench after the other.

    Args:
        names: some of `BENCHES`; those on the processor when empty.
        out: folder of the reports; the imagery is kept below it.
        data: the folder of real files.
        quick: 1 Mpx instead of 100: proves that all runs, measures nothing.
        say: told a line after each step.

    Raises:
        ConfigError: an unknown bench.
        EngineError: OpenVINO is not installed, or `gpu` is asked for where there is none.
        StorageError: `out` cannot be written.
    """
    if unknown := [name for name in names if name not in BENCHES]:
        raise ConfigError(f"unknown bench {', '.join(unknown)}: expected {', '.join(BENCHES)}")
    if gpu.NAME in names:
        gpu.check_device(quick=quick)
    imagery: Imagery = make_imagery(out, data=data, scale=QUICK if quick else FULL, say=say)
    reports = []
    for name in names or ON_PROCESSOR:
        report = BENCHES[name](imagery, say=say)
        path = report.write(out)
        for figure, value in report.figures.items():
            say(f"{figure} = {value:.5g}")
        say(f"{name}: {path}")
        reports.append(report)
    return reports
