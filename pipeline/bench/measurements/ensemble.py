"""`ensemble`: what averaging gains and costs, on the demo's country: single networks, turned windows, three networks.

The networks differ by the seed of their fit. Each tile that was not for fitting is mapped by all variants in turn, so
that other load on the machine slows all alike.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from pipeline.bench.chart import bar_chart
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import cores
from pipeline.bench.report import BenchReport
from pipeline.bench.scale import FULL, QUICK
from pipeline.demo.country import Country
from pipeline.demo.network import FitSettings, fit
from pipeline.demo.walkthrough import domain_mosaic, prepare, training_tiles
from pipeline.errors import EvaluationError
from pipeline.evaluation import scores
from pipeline.evaluation.calibration import Reliability, fit_temperature
from pipeline.evaluation.intervals import bootstrap, bootstrap_gains
from pipeline.evaluation.metrics import auroc
from pipeline.grid import Tile, Window
from pipeline.halo import Layout
from pipeline.inference import Method, predictor_for, resolve_engine
from pipeline.inference.block_mapping import map_and_count
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.legend import LAYERS, OptionalLayer
from pipeline.model import Ensemble, Model, load_model
from pipeline.progress import OnMessage
from pipeline.runs.accuracy.scoring import compare
from pipeline.sources.reading.raster import Source

SEEDS = (2022, 2023, 2024)
"""Of the fits; the first is that of `landcover demo`."""
_CORE, _HALO = 1000, 96
_MIDDLE, _EVERY = 512, 37
"""Side in pixels of a zone's middle on which temperatures are fitted, and of which only one pixel of so many counts."""
_Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Logits (pixel, class) and truth (pixel,)."""


@dataclass
class _Found:
    """What was counted of one variant."""

    matrices: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Zone → its confusion matrix; a zone is a tile of a domain."""
    reliability: Reliability = field(default_factory=Reliability)
    by_score: dict[str, NDArray[np.int64]] = field(default_factory=lambda: defaultdict(lambda: np.zeros((2, 256), int)))
    """Score → (right, byte): pixels that are wrong and right."""
    labelled: list[_Labelled] = field(default_factory=list)
    """Of each zone, some pixels of its middle."""
    seconds: float = 0.0
    pixels: int = 0

    @property
    def stacked(self) -> NDArray[np.int64]:
        return np.stack([self.matrices[zone] for zone in sorted(self.matrices)])


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Fits three networks to the demo's country, and compares their maps of the other tiles with the truth."""
    scale = QUICK if imagery.scale.quick else FULL
    with TemporaryDirectory(prefix="ensemble-", dir=imagery.folder) as folder:
        return compare_variants(
            Path(folder),
            shape=scale.country,
            tile_size=min(scale.tile, 1000),
            settings=scale.fit,
            on_message=on_message,
        )


def compare_variants(
    folder: Path,
    *,
    shape: tuple[int, int],
    tile_size: int,
    settings: FitSettings,
    on_message: OnMessage,
) -> BenchReport:
    """Makes the country and its networks, and measures all variants.

    Args:
        folder: empty and absolute.
        shape: (rows, columns) of the country's tiles.
        tile_size: their side in pixels.
        settings: of the fits.
        on_message: gets a line after each step.
    """
    rows, columns = shape
    country, campaign = prepare(
        folder, on_message=on_message, rows=rows, columns=columns, tile_size=tile_size, settings=settings
    )
    recipe = folder / campaign.model.recipe
    tiles, weights = training_tiles(country, campaign.catalog), [Path(campaign.weights)]
    for seed in SEEDS[1:]:
        weights.append(fit(tiles, folder / f"model-{seed}", seed=seed, settings=settings, threads=cores()).weights)
        on_message(f"fitted: {weights[-1]}")
    models = tuple(load_model(path, str(recipe)) for path in weights)
    variants: dict[str, Model | Ensemble] = {f"network {i}": model for i, model in enumerate(models, 1)}
    variants |= {
        "network 1, flips": Ensemble(models[:1], "flips"),
        "network 1, d4": Ensemble(models[:1], "d4"),
        "three networks": Ensemble(models),
    }
    found = _map_all(country, campaign.catalog, variants, on_message)
    table = _table(found, live=[value - 1 for value in models[0].recipe.live])
    for line in as_lines(table):
        on_message(line)
    best = max(table, key=lambda row: row["miou"])
    figures = {f"ensemble.{key}": table[-1][key] for key in ("miou", "cost", "auroc_disagreement")}
    raw = {"zones": len(next(iter(found.values())).matrices), "fit_steps": settings.steps, "variants": table}
    chart = bar_chart(f"mIoU; the best is {best['name']}", [(r["name"], 100 * r["miou"]) for r in table], unit="%")
    return BenchReport(figures, raw, chart, ("made from the demo's country with networks of its own",))


def _map_all(
    country: Country, catalog: Path, variants: Mapping[str, Model | Ensemble], on_message: OnMessage
) -> dict[str, _Found]:
    """Maps each held-out tile by all variants in turn."""
    found = {name: _Found() for name in variants}
    layout, engine = Layout.for_core(_CORE, _HALO), resolve_engine("auto")
    layers: dict[str, tuple[OptionalLayer, ...]] = {
        name: ("disagreement",) if isinstance(model, Ensemble) else () for name, model in variants.items()
    }
    # Kept here, because a process keeps only two of them.
    predictors = {
        name: predictor_for(model, engine, layers=layers[name], threads=cores()) for name, model in variants.items()
    }
    for domain in country.domains:
        mosaic = domain_mosaic(catalog, domain, country.tile_size)
        for name in domain.held_out:
            window = Tile.named(name, country.tile_size).window
            truth = domain.read_truth(window)
            for variant, model in variants.items():
                method = Method(model, layout, _CORE, engine, layers[variant])
                given = partial(map_and_count, mosaic, window, layout=layout, predictor=predictors[variant])
                one = found[variant]
                if not one.pixels:
                    given(planes=method.planes)  # compiles the graph
                started = time.monotonic()
                mapped = given(planes=method.planes).layers
                one.seconds += time.monotonic() - started
                one.labelled.append(_middle(model, mosaic, window, truth))
                _count(one, mapped, truth, live=model.recipe.live, zone=f"{domain.name} {name}")
            on_message(f"mapped: {domain.name} {name}")
    return found


def _middle(model: Model | Ensemble, source: Source, window: Window, truth: NDArray[np.uint8]) -> _Labelled:
    """Logits and truth in the middle of a tile, mapped as a labelled patch is."""
    side = min(_MIDDLE, *window.shape) // model.recipe.side_step * model.recipe.side_step
    part = Window(window.row + (window.height - side) // 2, window.col + (window.width - side) // 2, side, side)
    (logits,) = TorchPredictor(model).logits(source.read(part).bands[None])
    labels, live = truth[part.slices_in(window)], np.array(model.recipe.live)
    counted = np.isin(labels, live)
    return logits[:, counted].T[::_EVERY], np.searchsorted(live, labels[counted][::_EVERY])


def _calibrated_ece(zones: Sequence[_Labelled]) -> float | None:
    """Expected calibration error of each half of the zones, with the temperature that fits the other half.

    None where none fits, as for a network that is hardly trained.
    """
    halves = [[np.concatenate(part) for part in zip(*zones[start::2], strict=True)] for start in (0, 1)]
    found = Reliability()
    for fitted, (logits, truth) in zip(reversed(halves), halves, strict=True):
        try:
            temperature = fit_temperature(*fitted)
        except EvaluationError:
            return None
        shares = softmax(logits.astype(np.float64) / temperature, axis=1)
        found = found + Reliability.of(shares.max(axis=1), logits.argmax(axis=1) == truth)
    return found.ece


def _count(
    found: _Found, mapped: NDArray[np.uint8], truth: NDArray[np.uint8], *, live: Sequence[int], zone: str
) -> None:
    """Counts a mapped tile, uint8 (layer, y, x)."""
    found.pixels += truth.size
    classes, confidence = mapped[: len(LAYERS)]
    compared = compare(truth, classes, confidence, live=live, unit=zone)
    found.matrices[zone] = compared.matrix
    found.reliability = found.reliability + compared.reliability
    counted = (truth > 0) & (classes > 0)
    scored = {"confidence": 255 - confidence} | ({"disagreement": mapped[-1]} if len(mapped) > len(LAYERS) else {})
    for score, values in scored.items():
        for row, which in enumerate((classes != truth, classes == truth)):
            found.by_score[score][row] += np.bincount(values[counted & which], minlength=256)


def _table(found: Mapping[str, _Found], *, live: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each variant; gains are over the first network."""
    base = next(iter(found.values()))
    several = len(base.matrices) > 1
    rows = []
    for name, own in found.items():
        now, before = (scores(one.stacked.sum(axis=0), live=live) for one in (own, base))
        row: dict[str, Any] = {"name": name, "mpx_per_s": own.pixels / own.seconds / 1e6}
        row |= {"cost": own.seconds / base.seconds, "ece": own.reliability.ece}
        row |= {"ece_calibrated": _calibrated_ece(own.labelled)} if several else {}
        row |= {f"auroc_{score}": auroc(*counts) for score, counts in own.by_score.items()}
        for mean in ("oa", "miou"):
            row |= {mean: now[mean], f"{mean}_gain": now[mean] - before[mean]}
            if several:
                row[f"{mean}_interval"] = bootstrap(own.stacked, live=live).means[mean]
                row[f"{mean}_gain_interval"] = bootstrap_gains(own.stacked, base.stacked, live=live)[mean]
        rows.append(row)
    return rows


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def as_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table for a screen of 80 columns: a line of figures for each variant, and one of its gains."""
    titles = ("OA %", 6), ("mIoU %", 7), ("ECE %", 6), ("calibr.", 7), ("Mpx/s", 6), ("cost", 5), ("AUROC", 6)
    lines = [" ".join(f"{title:>{width}}" for title, width in (("", 18), *titles, ("disagr.", 7)))]
    lines += [
        f"{row['name']:18} {100 * row['oa']:6.2f} {100 * row['miou']:7.2f} {100 * row['ece']:6.2f} "
        f"{_percent(row.get('ece_calibrated')):>7} "
        f"{row['mpx_per_s']:6.2f} {row['cost']:5.1f} {row['auroc_confidence']:6.3f} "
        f"{format(row['auroc_disagreement'], '.3f') if 'auroc_disagreement' in row else '–':>7}"
        for row in rows
    ]
    for row in rows[1:]:
        gains = []
        for mean, title in (("oa", "OA"), ("miou", "mIoU")):
            low, high = row.get(f"{mean}_gain_interval", (float("nan"),) * 2)
            gains.append(f"{title} {100 * row[f'{mean}_gain']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})")
        lines.append(f"{row['name']} over network 1, in points: {', '.join(gains)}")
    return lines
