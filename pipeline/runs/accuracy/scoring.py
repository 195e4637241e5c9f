"""What parts of a set give when they are judged, added up exactly, and the files that tell of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.durable import replacing, write_json
from pipeline.errors import EvaluationError
from pipeline.evaluation import confusion_matrix, figures
from pipeline.evaluation.calibration import Reliability
from pipeline.evaluation.intervals import bootstrap
from pipeline.evaluation.metrics import MODES, Mode, as_ign
from pipeline.evaluation.report import MEANS, Evaluation, page
from pipeline.progress import Progress

CLASSES = len(legend.FLAIR)
"""Rows of every matrix: all of FLAIR, as IGN's `confmat.npy` has."""

Units = Literal["auto", "zones", "patches"]


@dataclass(frozen=True)
class Judging:
    """How to judge."""

    mode: Mode = "legacy"
    """Of the means that are reported first."""
    units: Units = "auto"
    """What the bootstrap draws of labelled patches; `auto` is zones where each patch has one and there are several."""
    workers: int = 1
    """Processes on this machine."""
    scheduler: str | None = None
    """Address or scheduler file of a running Dask cluster, instead of them."""
    seed: int = 2022
    """Of the bootstrap."""


DEFAULT = Judging()


@dataclass(frozen=True, eq=False)
class Judged:
    """One part: a patch, or a block of a map."""

    unit: str
    """What it is resampled with: its zone, or itself."""
    domain: str
    matrix: NDArray[np.int64]
    """int64 (19, 19), rows truth."""
    reliability: Reliability


def judge(
    truth: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    confidence: NDArray[np.uint8] | None,
    *,
    live: Sequence[int],
    unit: str,
    domain: str = "",
) -> Judged:
    """Compares a map with the truth.

    Args:
        truth: uint8 (y, x), FLAIR values, 0 for no label.
        classes: uint8 (y, x), FLAIR values; where they are 0 (no data) nothing is compared.
        confidence: uint8 (y, x), 255 × probability; None where it is not known.
        live: FLAIR values whose confidence is looked at.
        unit: what the part is resampled with.
        domain: where it lies.
    """
    # Uint8 wraps: value 0 becomes 255, which the matrix ignores.
    labels = np.where(classes == legend.NODATA, np.uint8(255), truth - np.uint8(1))
    matrix = confusion_matrix(labels, classes - np.uint8(1), CLASSES)
    found = Reliability()
    if confidence is not None:
        counted = np.isin(truth, list(live)) & (classes != legend.NODATA)
        found = Reliability.of(confidence[counted] / np.float64(255), truth[counted] == classes[counted])
    return Judged(unit, domain, matrix, found)


@dataclass
class Sums:
    """All parts together; integers, so that neither order nor number of workers changes them."""

    units: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    domains: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    reliability: Reliability = field(default_factory=Reliability)

    @classmethod
    def of(cls, results: Iterable[Sequence[Judged]], *, progress: Progress) -> "Sums":
        """Adds up what jobs give; `progress` counts their parts.

        Raises:
            EvaluationError: no pixel could be compared.
        """
        sums, done = cls(), 0
        for parts in results:
            # Where nothing was compared there is nothing to resample either.
            for part in (p for p in parts if p.matrix.any()):
                _add(sums.units, part.unit, part.matrix)
                if part.domain:
                    _add(sums.domains, part.domain, part.matrix)
                sums.reliability = sums.reliability + part.reliability
            done += len(parts)
            progress.advance(len(parts))
        if not sums.units:
            raise EvaluationError(
                f"nothing to compare: of {done} parts, none has a pixel with both a label and a class; do they lie on "
                "each other, and is the nomenclature the right one?"
            )
        return sums

    @property
    def matrix(self) -> NDArray[np.int64]:
        """Of everything."""
        whole = np.zeros((CLASSES, CLASSES), np.int64)
        for matrix in self.units.values():
            whole += matrix
        return whole


def _add(sums: dict[str, NDArray[np.int64]], key: str, matrix: NDArray[np.int64]) -> None:
    if key in sums:
        sums[key] += matrix
    else:
        sums[key] = matrix.copy()


def evaluation_of(
    sums: Sums, *, title: str, live: Sequence[int], units: str, how: Judging, about: Mapping[str, str]
) -> Evaluation:
    """The figures of what was added up.

    Args:
        sums: of all parts.
        title: of the report.
        live: FLAIR values that are judged.
        units: what the units are called: zones, patches, blocks.
        how: mode and seed.
        about: what was compared.
    """
    index = tuple(value - 1 for value in live)
    several = len(sums.units) > 1
    stacked = np.stack([sums.units[u] for u in sorted(sums.units)])
    return Evaluation(
        title,
        sums.matrix,
        index,
        by_domain=sums.domains,
        intervals=bootstrap(stacked, live=index, mode=how.mode, seed=how.seed) if several else None,
        units=units,
        mode=how.mode,
        about=about,
        reliability=sums.reliability if sums.reliability.pixels.any() else None,
    )


def write_evaluation(out: Path, given: Evaluation) -> Path:
    """Writes `confmat.npy`, `metrics.json`, the figures and `report.html`; returns the report's path.

    Raises:
        StorageError: `out` cannot be written.
    """
    with replacing(out / "confmat.npy") as temporary, temporary.open("wb") as file:
        np.save(file, given.matrix)
    for by in ("precision", "recall"):
        _write(out / f"confusion-{by}.png", figures.confusion(given.kept, given.names, by=by))
    if given.reliability is not None:
        _write(out / "reliability.png", figures.reliability({"confidence": given.reliability}))
    write_json(out / "metrics.json", as_json(given))
    report = out / "report.html"
    _write(report, page(given).encode())
    return report


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def as_json(given: Evaluation) -> dict[str, Any]:
    """IGN's keys first, then what theirs do not have; theirs in percent, ours 0..1."""
    found = given.scored(given.mode)
    more: dict[str, Any] = {
        "mode": given.mode,
        "modes": {mode: {name: given.scored(mode)[name] for name in MEANS} for mode in MODES},
        "pixels": int(given.matrix.sum()),
        "judged_pixels": int(given.kept.sum()),
        "by_domain": {
            name: {mode: {k: s[k] for k in MEANS} for mode in MODES for s in [_scores(given, matrix, mode)]}
            for name, matrix in sorted(given.by_domain.items())
        },
        "about": dict(given.about),
    }
    if given.intervals is not None:
        more["intervals_95"] = {
            "units": f"{given.intervals.units} {given.units}",
            "means": given.intervals.means,
            "by_class": {k: list(v) for k, v in given.intervals.by_class.items()},
        }
    if given.reliability is not None:
        more["expected_calibration_error"] = given.reliability.ece
    return as_ign(found, live=given.live) | more


def _scores(given: Evaluation, matrix: NDArray[np.int64], mode: Mode) -> Mapping[str, Any]:
    return Evaluation("", matrix, given.live).scored(mode)
