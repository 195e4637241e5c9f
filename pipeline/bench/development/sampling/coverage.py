"""`coverage`: how often 95 % intervals from samples cover the truth, by design, method and rarity; no imagery is read.

Each design is simulated with true shares from 0.002 to 0.5. The methods: `ours` is that of `landcover evaluate
--sample`; `exact` the same with Clopper's and Pearson's limits (the further point in full); `wald` the ± 1.96 standard
errors of Olofsson et al.; `wilson` Wilson's interval with the effective number of points, and Student's t for clusters;
`korn` Korn's and Graubard's, Clopper's and Pearson's limits with that number; `mover` Wilson's interval by stratum,
combined.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.special import betaincinv, stdtrit

from pipeline.bench.imagery import Imagery
from pipeline.bench.report import BenchReport
from pipeline.evaluation.figures import as_png
from pipeline.evaluation.share_interval import Floats, part_interval, share_interval
from pipeline.evaluation.stratified_shares import Z_95, Counts, Shares, simple_shares, two_stage_shares
from pipeline.progress import OnMessage

RARITY = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""True shares."""
RUNS = 2_000
"""Samples of each design and share."""
_LIMITS = Mapping[str, tuple[Floats, Floats]]


@dataclass(frozen=True)
class SimulatedDesign:
    """A design to simulate: strata, and for two stages clusters with alike points."""

    name: str
    weights: tuple[float, ...]
    """Shares of the strata in the area."""
    points: tuple[int, ...]
    """Points of each stratum; in two stages those of a cluster."""
    others: tuple[float | None, ...] = ()
    """True shares of the strata that do not have the simulated one (None)."""
    clusters: int = 0
    alike: float = 0.0
    """Correlation of the hits of a cluster."""
    nested: bool = False
    """Every cluster lies in one stratum, and there are `clusters` of each."""
    producers: bool = False
    """Of the first stratum's class: the simulated share is missed by the other strata, the own is hit by 0.8."""


_ONE, _FEW = (1.0,), (8, 30, 100)

DESIGNS = (
    *(SimulatedDesign(f"user's accuracy, {n} points", _ONE, (n,)) for n in (8, 15, 30, 50, 100, 300)),
    *(SimulatedDesign(f"5 equal strata, {n} points each", _ONE * 5, (n,) * 5) for n in (8, 30)),
    *(SimulatedDesign(f"12 equal strata, {n} points each", _ONE * 12, (n,) * 12) for n in (8, 30)),
    *(SimulatedDesign(f"W .02 .015 .325 .64, {n} points each", (2, 1.5, 32.5, 64), (n,) * 4) for n in (8, 30, 50)),
    *(SimulatedDesign(f"W .99 .01, {n} points each", (99, 1), (n, n), (None, 0.8)) for n in (8, 30, 100)),
    SimulatedDesign("W .99 .01, 500 and 50 points", (99, 1), (500, 50), (None, 0.8)),
    *(SimulatedDesign(f"producer's, W .01 .99, {n} points each", (1, 99), (n,) * 2, producers=True) for n in _FEW),
    *(SimulatedDesign(f"producer's, 3 strata, {n} points each", (3, 3, 4), (n,) * 3, producers=True) for n in (8, 30)),
    SimulatedDesign("two stages, 10 × 8 points, ρ .1", _ONE, (8,), clusters=10, alike=0.1),
    SimulatedDesign("two stages, 20 × 10 points, ρ .1", _ONE, (10,), clusters=20, alike=0.1),
    SimulatedDesign("two stages, 20 × 10 points, ρ .3", _ONE, (10,), clusters=20, alike=0.3),
    SimulatedDesign("two stages, 30 × 8 points, ρ .2", _ONE, (8,), clusters=30, alike=0.2),
    SimulatedDesign("two stages, 50 × 10 points, ρ .1", _ONE, (10,), clusters=50, alike=0.1),
    SimulatedDesign("two stages, 3 strata across 20 × 15, ρ .1", (5, 3, 2), (5,) * 3, clusters=20, alike=0.1),
    SimulatedDesign("two stages, W .99 .01 across 20 × 8, ρ .1", (99, 1), (4, 4), clusters=20, alike=0.1),
    SimulatedDesign(
        "two stages, 4 strata of 10 × 5, ρ .1", (4, 3, 2, 1), (5,) * 4, clusters=10, alike=0.1, nested=True
    ),
)


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Simulates all designs; some two minutes on one core."""
    runs, rarity = (20, RARITY[::4]) if imagery.scale.quick else (RUNS, RARITY)
    rng = np.random.default_rng(2022)
    table = []
    for design in DESIGNS:
        found = simulate(design, rarity, runs=runs, rng=rng)
        table.append({"design": design.name, "methods": found})
        own = found["ours"]
        on_message(f"coverage: {design.name}: least {min(own['covered']):.3f}, mean {np.mean(own['covered']):.3f}")
    return BenchReport(_figures(table), {"runs": runs, "shares": rarity, "designs": table}, _chart(table))


def _figures(table: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    ours, exact = ([row["methods"][name] for row in table] for name in ("ours", "exact"))
    means = [float(np.mean(one["covered"])) for one in ours]
    widths = [np.mean(a["width"]) / np.mean(b["width"]) for a, b in zip(ours, exact, strict=True)]
    return {
        "coverage.least": min(min(one["covered"]) for one in ours),
        "coverage.least_mean": min(means),
        "coverage.most_mean": max(means),
        "coverage.mean": float(np.mean(means)),
        "coverage.width_of_exact": float(np.mean(widths)),
    }


def _chart(table: Sequence[Mapping[str, Any]]) -> bytes:
    """A row for each design: the range of coverage over true shares, and its mean."""
    figure = Figure(figsize=(9, 1.5 + 0.36 * len(table)), dpi=110, layout="constrained")
    axes = figure.add_subplot(xlabel="coverage over true shares: range and mean")
    for row, one in enumerate(table):
        for shift, name, colour in ((-0.15, "wald", "0.7"), (0.15, "ours", "#3b6ea5")):
            covered = one["methods"][name]["covered"] if name in one["methods"] else []
            if covered:
                axes.plot((min(covered), max(covered)), (row + shift,) * 2, color=colour, linewidth=2)
                axes.plot(np.mean(covered), row + shift, "o", color=colour, label=name if row == 0 else None)
    axes.axvline(0.93, color="0.5", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(table)), [one["design"] for one in table])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.legend(loc="lower left")
    return as_png(figure)


def simulate(
    design: SimulatedDesign, rarity: Sequence[float], *, runs: int, rng: np.random.Generator
) -> dict[str, dict[str, list[float]]]:
    """Coverage and mean width of each method.

    Args:
        design: what is drawn.
        rarity: true shares.
        runs: samples of each.
        rng: random numbers.

    Returns:
        Method → `covered` and `width`, a value for each true share; samples in which the figure does not exist are left
        out.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for p in rarity:
        truth, limits = (_producers if design.producers else _share)(design, p, runs, rng)
        for name, (low, high) in limits.items():
            known = ~np.isnan(low)
            inside = (low <= truth + 1e-12) & (truth <= high + 1e-12)
            one = found.setdefault(name, {"covered": [], "width": []})
            one["covered"].append(float(inside[known].mean()))
            one["width"].append(float((high - low)[known].mean()))
    return found


def _true_shares(design: SimulatedDesign, p: float) -> tuple[Floats, Floats]:
    """Weights that sum to 1, and true shares of the strata."""
    weights = np.array(design.weights, np.float64)
    given = design.others or (None,) * len(weights)
    return weights / weights.sum(), np.array([p if own is None else own for own in given])


def _share(design: SimulatedDesign, p: float, runs: int, rng: np.random.Generator) -> tuple[float, _LIMITS]:
    weights, true = _true_shares(design, p)
    if design.clusters:
        hits, by_cluster = _clustered(design, true, runs, rng)
        shares = two_stage_shares(hits, by_cluster, weights)
        freedom = len(by_cluster) - (len(weights) if design.nested else 1)
        simple, points = hits.sum(axis=-2), by_cluster.sum(axis=0)
    else:
        points, freedom = np.array(design.points), 0
        simple = rng.binomial(points, true, (runs, len(points)))
        shares = simple_shares(simple, points, weights)
    return float(weights @ true), _limits(shares, simple, points, weights, freedom)


def _clustered(design: SimulatedDesign, true: Floats, runs: int, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """Hits (run, cluster, stratum) and points (cluster, stratum); hits of a cluster are beta-binomial."""
    strata, size = len(true), (1 - design.alike) / design.alike
    points = np.tile(np.array(design.points), (design.clusters, 1))
    if design.nested:
        points = np.concatenate([points * (np.arange(strata) == k) for k in range(strata)])
    # One chance for all strata of a cluster: its points are alike whatever their stratum.
    chance = rng.beta(true[0] * size, (1 - true[0]) * size, (runs, len(points), 1))
    return rng.binomial(points, chance), points


def _limits(shares: Shares, hits: Counts, points: Counts, weights: Floats, freedom: int) -> _LIMITS:
    value, t = shares.value, float(stdtrit(freedom, 0.975)) if freedom else Z_95
    half = t * np.sqrt(shares.variance)
    all_points = int(points.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        effective = np.where(shares.variance > 0, value * (1 - value) / shares.variance, all_points)
    effective = np.minimum(effective, all_points)
    limits = {
        "ours": shares.interval(),
        "exact": _exact(shares),
        "wald": (value - half, value + half),
        "wilson": _wilson(value, effective, t),
        "korn": _korn(value, effective * (float(stdtrit(all_points - 1, 0.975)) / t) ** 2),
    }
    if not freedom:
        own = hits / points
        low, high = _wilson(own, points, Z_95)
        below, above = (np.sqrt((weights**2 * (own - x) ** 2).sum(axis=-1)) for x in (low, high))
        limits["mover"] = (value - below, value + above)
    return limits


def _wilson(share: Floats, points: Floats | Counts, z: float) -> tuple[Floats, Floats]:
    middle = share + z**2 / (2 * points)
    half = z * np.sqrt(share * (1 - share) / points + (z / (2 * points)) ** 2)
    return (middle - half) / (1 + z**2 / points), (middle + half) / (1 + z**2 / points)


def _korn(share: Floats, points: Floats) -> tuple[Floats, Floats]:
    hits = share * points
    with np.errstate(invalid="ignore"):
        low, high = betaincinv(hits, points - hits + 1, 0.025), betaincinv(hits + 1, points - hits, 0.975)
    return np.where(share > 0, low, 0), np.where(share < 1, high, 1)


def _producers(design: SimulatedDesign, p: float, runs: int, rng: np.random.Generator) -> tuple[float, _LIMITS]:
    weights, true = _true_shares(design, p)
    true[0] = 0.8
    points = np.array(design.points)
    hits = rng.binomial(points, true, (runs, len(points)))
    own, rest = np.eye(1, len(points))[0], float(weights[1:].sum())
    part = simple_shares(hits, points, own)
    missed = simple_shares(hits, points, weights * (1 - own) / rest)

    def limits(interval: Callable[[Shares], tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
        first = tuple(weights[0] * x for x in (part.value, *interval(part)))
        other = tuple(rest * x for x in (missed.value, *interval(missed)))
        return part_interval(first, other)[1:]  # type: ignore[arg-type]  # three each

    with np.errstate(invalid="ignore", divide="ignore"):
        whole = weights[0] * part.value + rest * missed.value
        share = weights[0] * part.value / whole
        spread = (weights[0] * (1 - share)) ** 2 * part.variance + (share * rest) ** 2 * missed.variance
        half = Z_95 * np.sqrt(spread) / whole
    true_parts = weights * true
    return float(true_parts[0] / true_parts.sum()), {
        "ours": limits(Shares.interval),
        "exact": limits(_exact),
        "wald": (share - half, share + half),
    }


def _exact(shares: Shares) -> tuple[Floats, Floats]:
    return share_interval(shares.value, shares.spread, shares.unit, further=1)
