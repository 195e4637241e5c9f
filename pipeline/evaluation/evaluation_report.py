"""An evaluation's matrix, scores and intervals, and its HTML page."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.evaluation import figures
from pipeline.evaluation.calibration import Reliability
from pipeline.evaluation.intervals import Intervals, few_units
from pipeline.evaluation.metrics import BY_CLASS, MEANS, Mode, Scores, scores
from pipeline.html_page import render


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that was measured of one map or model; reports and files are made from it."""

    title: str
    matrix: NDArray[np.int64]
    """int64 (n, n), network indices, rows truth."""
    live: tuple[int, ...]
    """Network indices of the compared classes."""
    by_domain: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Domain → its matrix."""
    intervals: Intervals | None = None
    """Of the scores in `mode`; None where there was one unit only."""
    units: str = "zones"
    """The units that the bootstrap drew: zones, patches, tiles."""
    mode: Mode = "legacy"
    """Of the means that are reported first; the others are reported too."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Inputs of the comparison: weights, recipe, labels."""
    reliability: Reliability | None = None
    as_mapped: "Evaluation | None" = None
    """The same patches in windows with a halo, as the product is made; None where only one figure was measured."""
    generalised: "Evaluation | None" = None
    """Of a national product: the same comparison with its generalised map, if it has one."""

    @property
    def second(self) -> "tuple[str, Evaluation] | None":
        """What is shown beside the scores, and its scores: `as mapped` or `generalised`."""
        if self.as_mapped is not None:
            return "as mapped", self.as_mapped
        return None if self.generalised is None else ("generalised", self.generalised)

    @property
    def other_mode(self) -> Mode:
        """The mode that is not `mode`."""
        return "present" if self.mode == "legacy" else "legacy"

    def scored(self, mode: Mode) -> Scores:
        """Its scores."""
        return scores(self.matrix, live=self.live, mode=mode)

    @property
    def few_units(self) -> str:
        """A warning about intervals over few units; empty where there is nothing to warn of."""
        return few_units(self.intervals.units, self.units) if self.intervals else ""

    @property
    def kept(self) -> NDArray[np.int64]:
        """int64 (class, class): the live classes alone."""
        return self.matrix[np.ix_(self.live, self.live)]

    @property
    def classes(self) -> tuple[legend.LandCover, ...]:
        """The live classes."""
        return legend.classes(i + 1 for i in self.live)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the live classes."""
        return tuple(c.name for c in self.classes)


def evaluation_page(evaluation: Evaluation) -> str:
    """The HTML page: means, classes, domains, both confusion matrices, reliability."""
    kept, names = evaluation.kept, evaluation.names
    charts = {f"confusion by {by}": figures.confusion(kept, names, by=by) for by in figures.BY}
    if evaluation.reliability is not None and evaluation.reliability.pixels.any():
        charts["reliability"] = figures.reliability({"confidence": evaluation.reliability})
    return render(
        "evaluation.html",
        title=evaluation.title,
        evaluation=evaluation,
        found=evaluation.scored(evaluation.mode),
        other=evaluation.scored(evaluation.other_mode),
        second=evaluation.second and evaluation.second[1].scored(evaluation.mode),
        domains={
            name: (scores(matrix, live=evaluation.live, mode="present"), int(matrix.sum()))
            for name, matrix in sorted(evaluation.by_domain.items())
        },
        means=MEANS,
        by_class=BY_CLASS,
        charts=charts,
    )
