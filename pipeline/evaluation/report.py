"""An evaluation as one HTML page that needs no other file."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.evaluation import figures
from pipeline.evaluation.calibration import Reliability
from pipeline.evaluation.html import STYLE, class_name, image, table
from pipeline.evaluation.intervals import Interval, Intervals
from pipeline.evaluation.metrics import Mode, Scores, scores

MEANS = {
    "oa": "overall accuracy",
    "miou": "mIoU",
    "mfscore": "mean F-score",
    "mprecision": "mean precision",
    "mrecall": "mean recall",
}
"""Figure of `Scores` → what people call it."""
BY_CLASS = ("iou", "fscore", "precision", "recall")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that was measured of one map or model; what reports and files are made from."""

    title: str
    matrix: NDArray[np.int64]
    """int64 (n, n), network indices, rows truth."""
    live: tuple[int, ...]
    """Network indices that were judged."""
    by_domain: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Domain → its matrix."""
    intervals: Intervals | None = None
    """Of the scores in `mode`; None where there was one unit only."""
    units: str = "zones"
    """What the bootstrap drew: zones or patches."""
    mode: Mode = "legacy"
    """Of the means that are reported first; the others are reported too."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What was compared: weights, recipe, labels."""
    reliability: Reliability | None = None

    @property
    def other_mode(self) -> Mode:
        """The mode that is not `mode`."""
        return "present" if self.mode == "legacy" else "legacy"

    def scored(self, mode: Mode) -> Scores:
        """Its scores."""
        return scores(self.matrix, live=self.live, mode=mode)

    @property
    def kept(self) -> NDArray[np.int64]:
        """int64 (class, class): the live classes alone."""
        return self.matrix[np.ix_(self.live, self.live)]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the live classes."""
        return tuple(legend.BY_VALUE[i + 1].name for i in self.live)


def page(given: Evaluation) -> str:
    """The page: means, classes, domains, both confusion matrices, reliability."""
    found, other = given.scored(given.mode), given.scored(given.other_mode)
    pictures = [
        (f"confusion by {by}", figures.confusion(given.kept, given.names, by=by)) for by in ("precision", "recall")
    ]
    if given.reliability is not None and given.reliability.pixels.any():
        pictures.append(("reliability", figures.reliability({"confidence": given.reliability})))
    images = "".join(image(name, png) for name, png in pictures)
    about = "".join(f"<br>{html.escape(k)}: {html.escape(v)}" for k, v in given.about.items())
    counted, judged = int(given.matrix.sum()), int(given.kept.sum())
    sure = (
        f"95 % intervals: bootstrap over {given.intervals.units} {html.escape(given.units)}."
        if given.intervals
        else f"No intervals: they want two or more {html.escape(given.units)}."
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(given.title)}</title><style>{STYLE}</style>
<h1>{html.escape(given.title)}</h1>
<p>{counted:,} labelled pixels; {judged:,} of them of a judged class in truth and map, and only these count.
{sure} All figures in percent.<br><small>{about.removeprefix("<br>")}</small></p>
<h2>Means</h2>{_means(given, found, other)}
<h2>By class</h2>{_classes(given, found)}
{_domains(given)}
<h2>Confusion</h2>{images}
</html>
"""


def _means(given: Evaluation, found: Scores, other: Scores) -> str:
    rows = []
    for name, called in MEANS.items():
        interval = given.intervals.means[name] if given.intervals else None
        rows.append((called, _cell(found[name], interval), f"{100 * other[name]:.3f}"))
    return table(("", f"mode {given.mode}", f"mode {given.other_mode}"), rows)


def _classes(given: Evaluation, found: Scores) -> str:
    rows = []
    true = given.kept.sum(axis=1)
    for k, index in enumerate(given.live):
        cells = []
        for name in BY_CLASS:
            interval = given.intervals.by_class[name][k] if given.intervals else None
            cells.append(_cell(found[name][k], interval) if found["present"][k] else "absent")
        rows.append((class_name(index + 1), *cells, f"{int(true[k]):,}"))
    return table(("class", "IoU", "F-score", "precision", "recall", "true pixels"), rows)


def _domains(given: Evaluation) -> str:
    if not given.by_domain:
        return ""
    rows = []
    for name, matrix in sorted(given.by_domain.items()):
        found = scores(matrix, live=given.live, mode="present")
        rows.append((html.escape(name), f"{100 * found['oa']:.3f}", f"{100 * found['miou']:.3f}", f"{matrix.sum():,}"))
    head = ("domain", "overall accuracy", "mIoU over present classes", "pixels")
    return f"<h2>By domain</h2>{table(head, rows)}"


def _cell(value: float, interval: Interval | None) -> str:
    sure = f"<small>{100 * interval[0]:.2f} – {100 * interval[1]:.2f}</small>" if interval else ""
    return f"{100 * value:.3f}{sure}"
