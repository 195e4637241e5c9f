"""Compares patches or blocks of a map with labels, sums their confusion matrices exactly, and writes the results."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.cluster.parallel_map import parallel_map
from pipeline.durable import replacing, write_bytes, write_json, write_text
from pipeline.errors import EvaluationError
from pipeline.evaluation import confusion_matrix, figures, scores
from pipeline.evaluation.calibration import Reliability
from pipeline.evaluation.evaluation_report import Evaluation, evaluation_page
from pipeline.evaluation.intervals import bootstrap
from pipeline.evaluation.metrics import MEANS, MODES, Mode, as_ign
from pipeline.progress import Progress

CLASSES = len(legend.FLAIR)
"""Rows of every matrix: all of FLAIR, as IGN's `confmat.npy` has."""

Units = Literal["auto", "zones", "patches"]
Job = TypeVar("Job")
_Matrices = defaultdict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class EvaluationOptions:
    """How scores are averaged and resampled, and where the work runs."""

    mode: Mode = "legacy"
    """Of the means that are reported first."""
    units: Units = "auto"
    """The bootstrap draws these; `auto` is zones where every patch has one and there are several, else patches."""
    workers: int = 1
    """Processes on this machine."""
    scheduler: str | None = None
    """Address or scheduler file of a running Dask cluster, instead of them."""
    as_mapped: bool = True
    """For labelled patches: whether they are scored as mapped too, besides patch by patch."""


DEFAULT = EvaluationOptions()


@dataclass(frozen=True, eq=False)
class BlockComparison:
    """A map compared with the truth over one patch, or one block of a map."""

    unit: str
    """The unit that it is resampled with: its zone, its tile, or itself."""
    domain: str
    matrix: NDArray[np.int64]
    """int64 (19, 19), rows truth."""
    reliability: Reliability


def compare(
    truth: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    confidence: NDArray[np.uint8] | None,
    *,
    live: Sequence[int],
    unit: str,
    domain: str = "",
) -> BlockComparison:
    """Compares a map with the truth.

    Args:
        truth: uint8 (y, x), FLAIR values, 0 for no label.
        classes: uint8 (y, x), FLAIR values; where they are 0 (no data) nothing is compared.
        confidence: uint8 (y, x), 255 × probability; None where it is not known.
        live: FLAIR values whose confidence counts.
        unit: the unit that the block is resampled with.
        domain: the block's domain.
    """
    # Uint8 wraps: value 0 becomes 255, which the matrix ignores.
    labels = np.where(classes == legend.NODATA, np.uint8(255), truth - np.uint8(1))
    matrix = confusion_matrix(labels, classes - np.uint8(1), CLASSES)
    found = Reliability()
    if confidence is not None:
        counted = np.isin(truth, list(live)) & (classes != legend.NODATA)
        found = Reliability.of(confidence[counted] / np.float64(255), truth[counted] == classes[counted])
    return BlockComparison(unit, domain, matrix, found)


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """An evaluation and its written report."""

    evaluation: Evaluation
    report: Path


def score_jobs(
    jobs: Iterable[Job],
    work: Callable[[Job], Sequence[BlockComparison]],
    *,
    title: str,
    live: Sequence[int],
    units: str,
    about: Mapping[str, str],
    options: EvaluationOptions,
    progress: Progress,
) -> Evaluation:
    """Runs all comparisons, and sums their matrices.

    Args:
        jobs: picklable.
        work: compares the blocks of one job.
        title: of the report.
        live: FLAIR values of the compared classes.
        units: what the resampled units are called: zones, patches, blocks.
        about: inputs of the comparison, by name.
        options: mode, processes.
        progress: counts blocks.

    Raises:
        EvaluationError: no pixel could be compared.
        ClusterError: the running cluster does not answer, or was lost.
    """
    results = parallel_map(jobs, work, workers=options.workers, scheduler=options.scheduler)
    by_unit, by_domain, reliability = _add_up(results, progress)
    index = tuple(value - 1 for value in live)
    stacked = np.stack([by_unit[unit] for unit in sorted(by_unit)])
    return Evaluation(
        title,
        stacked.sum(axis=0),
        index,
        by_domain=by_domain,
        intervals=bootstrap(stacked, live=index, mode=options.mode) if len(by_unit) > 1 else None,
        units=units,
        mode=options.mode,
        about=about,
        reliability=reliability if reliability.pixels.any() else None,
    )


def _add_up(
    results: Iterable[Sequence[BlockComparison]], progress: Progress
) -> tuple[_Matrices, _Matrices, Reliability]:
    """Sums confusion matrices by unit and by domain, and the reliability; `progress` counts blocks.

    Matrices are integers, so neither order nor number of workers changes the sums.

    Raises:
        EvaluationError: no pixel could be compared.
    """
    by_unit, by_domain = _Matrices(_no_pixels), _Matrices(_no_pixels)
    reliability, done = Reliability(), 0
    for blocks in results:
        # Where nothing was compared there is nothing to resample either.
        for block in (b for b in blocks if b.matrix.any()):
            by_unit[block.unit] += block.matrix
            if block.domain:
                by_domain[block.domain] += block.matrix
            reliability = reliability + block.reliability
        done += len(blocks)
        progress.advance(len(blocks))
    if not by_unit:
        raise EvaluationError(
            f"nothing to compare: none of the {done} parts has a pixel with both a label and a class. Check that "
            "the map and the labels overlap, and that --reference-as names the legend of the labels"
        )
    return by_unit, by_domain, reliability


def _no_pixels() -> NDArray[np.int64]:
    return np.zeros((CLASSES, CLASSES), np.int64)


def write_evaluation(out: Path, evaluation: Evaluation) -> EvaluationResult:
    """Writes `confmat.npy`, `metrics.json`, the figures and `report.html`.

    Patches that were also scored as mapped have that matrix in `confmat-as-mapped.npy`; that of a generalised map is in
    `confmat-generalised.npy`.

    Raises:
        StorageError: `out` cannot be written.
    """
    matrices = {"confmat.npy": evaluation.matrix}
    if evaluation.second is not None:
        name, second = evaluation.second
        matrices[f"confmat-{name.replace(' ', '-')}.npy"] = second.matrix
    for name, matrix in matrices.items():
        with replacing(out / name) as temporary, temporary.open("wb") as file:
            np.save(file, matrix)
    for by in figures.BY:
        write_bytes(out / f"confusion-{by}.png", figures.confusion(evaluation.kept, evaluation.names, by=by))
    if evaluation.reliability is not None:
        write_bytes(out / "reliability.png", figures.reliability({"confidence": evaluation.reliability}))
    write_json(out / "metrics.json", as_json(evaluation))
    report = out / "report.html"
    write_text(report, evaluation_page(evaluation))
    return EvaluationResult(evaluation, report)


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """IGN's keys first, in percent; then keys of our own, shares 0..1. NaN becomes null."""
    more: dict[str, Any] = {
        "mode": evaluation.mode,
        "modes": _means(evaluation.matrix, evaluation.live),
        "pixels": int(evaluation.matrix.sum()),
        "judged_pixels": int(evaluation.kept.sum()),
        "by_domain": {name: _means(matrix, evaluation.live) for name, matrix in sorted(evaluation.by_domain.items())},
        "about": dict(evaluation.about),
    }
    if evaluation.intervals is not None:
        more["intervals_95"] = {
            "units": f"{evaluation.intervals.units} {evaluation.units}",
            "means": evaluation.intervals.means,
            "by_class": {k: list(v) for k, v in evaluation.intervals.by_class.items()},
            "warning": evaluation.few_units or None,
        }
    if evaluation.second is not None:
        name, second = evaluation.second
        more[name.replace(" ", "_")] = as_json(second)
    if evaluation.reliability is not None:
        more["expected_calibration_error"] = evaluation.reliability.ece
    return as_ign(evaluation.scored(evaluation.mode), live=evaluation.live) | more


def _means(matrix: NDArray[np.int64], live: Sequence[int]) -> dict[Mode, dict[str, float]]:
    """Mode → key of `MEANS` → score."""
    found = {mode: scores(matrix, live=live, mode=mode) for mode in MODES}
    return {mode: {name: own[name] for name in MEANS} for mode, own in found.items()}
