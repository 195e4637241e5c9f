"""All benches by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.bench.development import nation, publish, rehearsal, train
from pipeline.bench.imagery import FULL, QUICK, Imagery, Say, Scale, make_imagery
from pipeline.bench.measurements import engines, feed, gpu, halo, quantize
from pipeline.bench.measurements import run as mapping
from pipeline.bench.report import Report
from pipeline.errors import ConfigError
from pipeline.runs.planning.throughput import save_rates

BENCHES: Mapping[str, Callable[..., Report]] = {
    engines.NAME: engines.run,
    feed.NAME: feed.run,
    mapping.NAME: mapping.run,
    halo.NAME: halo.run,
    quantize.NAME: quantize.run,
    train.NAME: train.run,
    nation.NAME: nation.run,
    publish.NAME: publish.run,
    rehearsal.NAME: rehearsal.run,
    gpu.NAME: gpu.run,
}
"""Name → what measures: called with the imagery and `say=`."""
DEFAULT = (engines.NAME, feed.NAME, mapping.NAME, halo.NAME, quantize.NAME)
"""What is measured when nothing is named."""


def run_benches(
    names: Sequence[str], *, out: Path, data: Path, quick: bool, say: Say, full_size: bool = False
) -> list[Report]:
    """Makes the imagery where it is missing, then measures and writes one bench after the other.

    Args:
        names: some of `BENCHES`; `DEFAULT` when empty.
        out: folder of the reports; the imagery is kept below it.
        data: the folder of real files.
        quick: 1 Mpx instead of 100: proves that all runs, measures nothing.
        say: told a line after each step.
        full_size: `rehearsal` and `publish` with tiles of 25 000 px.

    Raises:
        ConfigError: an unknown bench.
        EngineError: OpenVINO or NNCF is not installed, or `gpu` is asked for where there is none.
        StorageError: `out`, or the file of rates, cannot be written.
    """
    if unknown := [name for name in names if name not in BENCHES]:
        raise ConfigError(f"unknown bench {', '.join(unknown)}: expected {', '.join(BENCHES)}")
    if gpu.NAME in names:
        gpu.check_device(quick=quick)
    scale = _scale(names, quick=quick, full_size=full_size)
    imagery: Imagery = make_imagery(out, data=data, scale=scale, say=say)
    reports = []
    for name in names or DEFAULT:
        report = BENCHES[name](imagery, say=say)
        path = report.write(out)
        for figure, value in report.figures.items():
            say(f"{figure} = {value:.5g}")
        say(f"{name}: {path}")
        if scale.apart and report.rates:
            say(f"{name}: {len(report.rates)} rates kept in {save_rates(report.rates)}")
        reports.append(report)
    return reports


def _scale(names: Sequence[str], *, quick: bool, full_size: bool) -> Scale:
    scale = QUICK if quick else FULL
    if names and not quick and {nation.NAME, publish.NAME, rehearsal.NAME}.issuperset(names):
        # Of the imagery they take only the network.
        scale = replace(QUICK, apart=True, departement=FULL.departement, departement_tile=FULL.departement_tile)
    return replace(scale, departement_tile=rehearsal.FULL_TILE) if full_size else scale
