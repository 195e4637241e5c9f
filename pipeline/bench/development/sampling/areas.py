"""`areas`: bias, coverage and width of areas from samples, by estimator, over simulated samples; no imagery is read.

A map of twelve classes is simulated as a chance for each pixel: its confidence is drawn from a beta distribution, and
it is right with a chance that depends on it. The estimators: `olofsson`, the stratified estimate with ± 1.96 standard
errors; `stratified`, the same with the intervals of `landcover evaluate --sample`; `regression`, on the confidence.

Small zones are simulated with error rates that differ between zones. There `olofsson` uses the points of the zone
alone, in zones that have two or more of each mapped class, and `composite` all points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.special import betaincinv

from pipeline.bench.imagery import Imagery
from pipeline.bench.report import BenchReport
from pipeline.evaluation.area_estimation import allocate
from pipeline.evaluation.figures import as_png
from pipeline.evaluation.model_assisted import composite_areas, regression_shares
from pipeline.evaluation.share_interval import Floats
from pipeline.evaluation.stratified_shares import Z_95, Counts, Shares, simple_shares
from pipeline.progress import OnMessage

RUNS = 1_000
"""Samples of each map."""
ZONE_RUNS = 200
"""Samples of each set of zones, with all of its zones."""
SHARES = np.array([0.06, 0.05, 0.03, 0.02, 0.04, 0.05, 0.2, 0.06, 0.02, 0.25, 0.2, 0.02])
"""Of the classes in the map."""
_Figures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class SimulatedMap:
    """A map whose confidence says more or less about its errors."""

    name: str
    points: int
    slope: float
    """By how much the chance of being right rises from confidence 0 to 1; 1 is calibrated, 0 says nothing."""
    least: int = 30
    spread: float = 3.0
    """Of the confidences: the sum of both parameters of their beta distribution. Less is more spread out."""

    @property
    def means(self) -> Floats:
        """Mean confidence of each class; the chance of being right is the same on average."""
        return np.linspace(0.62, 0.9, len(SHARES))

    @property
    def truth(self) -> Floats:
        """True share of each class in each mapped one, float64 (mapped, true)."""
        return self._shares(self.means)

    def _shares(self, right: Floats) -> Floats:
        elsewhere = np.tile(SHARES, (len(SHARES), 1)) * (1 - np.eye(len(SHARES)))
        elsewhere /= elsewhere.sum(axis=1, keepdims=True)
        return np.eye(len(SHARES)) * right[:, None] + elsewhere * (1 - right)[:, None]

    def draw(self, rng: np.random.Generator) -> tuple[Counts, Counts, Floats]:
        """Points of a sample: positions of mapped and true class, int64 (point,), and confidence."""
        units = allocate(dict(enumerate(SHARES.tolist())), self.points, least=self.least)
        mapped = np.repeat(np.arange(len(SHARES)), list(units.values()))
        mean = self.means[mapped]
        confidence = rng.beta(mean * self.spread, (1 - mean) * self.spread)
        right = rng.random(len(mapped)) < mean + self.slope * (confidence - mean)
        wrong = self._shares(np.zeros(len(SHARES))).cumsum(axis=1)[mapped]
        other = (rng.random(len(mapped))[:, None] * wrong[:, -1:] >= wrong).sum(axis=1)
        return mapped, np.where(right, mapped, other), confidence


MAPS = (
    SimulatedMap("calibrated, 600 points", 600, 1.0),
    SimulatedMap("calibrated, 1 200 points", 1_200, 1.0),
    SimulatedMap("calibrated, 360 points (30 each)", 360, 1.0),
    SimulatedMap("half as telling, 600 points", 600, 0.5),
    SimulatedMap("says nothing, 600 points", 600, 0.0),
    SimulatedMap("says nothing, 240 points (20 each)", 240, 0.0, least=20),
)


@dataclass(frozen=True)
class SimulatedZones:
    """Zones whose error rates differ."""

    name: str
    zones: int
    points: int
    """In all zones."""
    differ: float
    """ρ of the beta distribution of a zone's shares; 0 where zones do not differ."""
    together: bool = False
    """Whether all classes of a zone deviate alike, which the composite model excludes."""


ZONES = (
    SimulatedZones("60 zones alike, 600 points", 60, 600, 0.0),
    SimulatedZones("60 zones, ρ .02, 600 points", 60, 600, 0.02),
    SimulatedZones("60 zones, ρ .1, 600 points", 60, 600, 0.1),
    SimulatedZones("60 zones, ρ .1, 3 000 points", 60, 3_000, 0.1),
    SimulatedZones("20 zones, ρ .1, 600 points", 20, 600, 0.1),
    SimulatedZones("60 zones, ρ .1, classes together, 600 points", 60, 600, 0.1, together=True),
    SimulatedZones("60 zones, ρ .1, classes together, 3 000 points", 60, 3_000, 0.1, together=True),
)


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Simulates all designs; a few minutes on one core."""
    runs, of_zones = (10, 3) if imagery.scale.quick else (RUNS, ZONE_RUNS)
    rng = np.random.default_rng(2022)
    table: list[dict[str, Any]] = []
    for design in (*MAPS, *ZONES):
        if isinstance(design, SimulatedMap):
            found = simulate_map(design, runs, rng)
        else:
            found = simulate_zones(design, of_zones, rng)
        table.append({"design": design.name, "methods": found})
        for name, one in found.items():
            on_message(f"areas: {design.name}: {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in one.items()))
    return BenchReport(_figures(table), {"runs": runs, "runs_of_zones": of_zones, "designs": table}, _chart(table))


def simulate_map(design: SimulatedMap, runs: int, rng: np.random.Generator) -> _Figures:
    """Means over the areas of all classes, by estimator: see `_summary`."""
    classes = np.arange(len(SHARES))
    stratified, assisted = [], []
    for _ in range(runs):
        mapped, reference, confidence = design.draw(rng)
        hits = reference == classes[:, None]
        own = np.stack([np.bincount(mapped, weights=y, minlength=len(SHARES)) for y in hits]).astype(np.int64)
        stratified.append(simple_shares(own, np.bincount(mapped, minlength=len(SHARES)), SHARES))
        assisted.append(regression_shares(hits, mapped, confidence, design.means, SHARES))
    truth = np.tile(SHARES @ design.truth, (runs, 1))
    plain, sharper = _joined(stratified), _joined(assisted)
    half = Z_95 * np.sqrt(plain.variance)
    found = {
        "olofsson": (plain.value, plain.value - half, plain.value + half),
        "stratified": (plain.value, *plain.interval()),
        "regression": (sharper.value, *sharper.interval()),
    }
    return {name: _summary(np.stack(rows, axis=-1), truth) for name, rows in found.items()}


def _joined(shares: Sequence[Shares]) -> Shares:
    """(run, figure)."""
    unit = [np.broadcast_to(one.unit, one.value.shape) for one in shares]
    value, variance, spread = (np.stack([getattr(s, f) for s in shares]) for f in ("value", "variance", "spread"))
    return Shares(value, variance, spread, np.stack(unit))


def simulate_zones(design: SimulatedZones, runs: int, rng: np.random.Generator) -> _Figures:
    """Means over all zones, of the area of the first four classes together, by estimator: see `_summary`."""
    members, known = [0, 1, 2, 3], len(SHARES)
    base = SimulatedMap("", 0, 0.0).truth[:, members].sum(axis=1)
    found: dict[str, list[Floats]] = {"olofsson": [], "composite": []}
    truths = []
    for _ in range(runs):
        weights = rng.dirichlet(SHARES * 6, design.zones)
        weights = np.where(weights < 0.02, 0, weights)
        weights /= weights.sum(axis=1, keepdims=True)
        size = rng.dirichlet(np.full(design.zones, 4.0))
        rates = np.tile(base, (design.zones, 1))
        if design.differ:
            chance = rng.random((design.zones, 1) if design.together else rates.shape)
            total = 1 / design.differ - 1
            rates = betaincinv(rates * total, (1 - rates) * total, np.broadcast_to(chance, rates.shape))
        shares = size[:, None] * weights
        # A stratified sample: all pixels of a mapped class have the same chance.
        units = allocate(dict(enumerate(shares.sum(axis=0).tolist())), design.points, least=30)
        drawn = np.zeros((design.zones, known), np.int64)
        for h, n in units.items():
            drawn[:, h] = rng.multinomial(n, shares[:, h] / shares[:, h].sum())
        hits = rng.binomial(drawn, rates)
        # Two columns are enough: the searched classes, and all others.
        counts = np.stack([hits, drawn - hits], axis=-1)
        truths.append((weights * rates).sum(axis=1))
        composite = composite_areas(counts, weights, counts.sum(axis=0), [0])
        found["composite"].append(np.array([(e.value, e.low, e.high) for e in composite.estimates]))
        found["olofsson"].append(_direct(counts, weights))
    return {name: _summary(np.array(own), np.array(truths)) for name, own in found.items()}


def _direct(counts: Counts, weights: Floats) -> Floats:
    """(value, low, high) of zones by their own points, float64 (zone, 3); NaN where a class has fewer than two."""
    points = counts.sum(axis=-1)
    rows = np.full((len(weights), 3), np.nan)
    for k in np.flatnonzero(((points >= 2) | (weights == 0)).all(axis=1)).tolist():
        share = simple_shares(counts[k, :, 0], points[k], weights[k])
        half = Z_95 * float(np.sqrt(share.variance))
        rows[k] = share.value - half, share.value, share.value + half
    return rows[:, [1, 0, 2]]


def _summary(rows: Floats, truth: Floats) -> dict[str, float]:
    """Of values with their limits, float64 (run, figure, 3).

    `bias`, the mean over figures of |mean error|, in percent of the truth's mean; `error`, the root mean square, in
    percent of it; `covered` and `least`, mean and lowest coverage; `width` in percent; `known`, share of the figures
    that can be estimated.
    """
    value, low, high = np.moveaxis(rows, -1, 0)
    known = ~np.isnan(value)
    inside = (low <= truth + 1e-12) & (truth <= high + 1e-12)
    scale = 100 / float(truth.mean())
    with np.errstate(invalid="ignore", divide="ignore"):
        by_figure = np.where(known, value - truth, 0).sum(axis=0) / known.sum(axis=0)
        covered = (inside & known).sum(axis=0) / known.sum(axis=0)
    if not known.any():
        return {"known": 0.0}
    return {
        "bias": scale * float(np.nanmean(np.abs(by_figure))),
        "error": scale * float(np.sqrt(((value - truth)[known] ** 2).mean())),
        "covered": float(inside[known].mean()),
        "least": float(np.nanmin(covered)),
        "width": scale * float((high - low)[known].mean()),
        "known": float(known.mean()),
    }


def _figures(table: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    maps = [row["methods"] for row in table if "regression" in row["methods"]]
    zones = [row["methods"]["composite"] for row in table if "composite" in row["methods"]]
    return {
        "areas.regression_width": float(maps[0]["regression"]["width"] / maps[0]["stratified"]["width"]),
        "areas.regression_covered": float(np.mean([m["regression"]["covered"] for m in maps])),
        "areas.composite_covered": float(np.mean([z["covered"] for z in zones])),
    }


def _chart(table: Sequence[Mapping[str, Any]]) -> bytes:
    """A row for each design: width and coverage of each estimator."""
    figure = Figure(figsize=(9, 1.5 + 0.4 * len(table)), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colours = {"olofsson": "0.7", "stratified": "#3b6ea5", "regression": "#2a9d5c", "composite": "#2a9d5c"}
    for row, one in enumerate(table):
        for name, own in one["methods"].items():
            if own["known"]:
                left.plot(own["width"], row, "o", color=colours[name])
                right.plot(own["covered"], row, "o", color=colours[name])
    left.set_yticks(range(len(table)), [one["design"] for one in table])
    left.invert_yaxis()
    left.set_xlabel("mean width, % of the mean area")
    right.set_xlabel("coverage of 95 % intervals")
    right.axvline(0.95, color="0.5", linestyle="--", linewidth=1)
    return as_png(figure)
