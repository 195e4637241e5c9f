"""`novelty`: how well the novelty score finds imagery on which a network errs, and how often it is a false alarm.

A small network and the reference are made from tiles of one vintage of the demo's country. Scored and compared with the
truth are: other tiles of that vintage, the second vintage, the first with its colours shifted, and, without a truth,
two German images of 20 cm if they are there. A square is *bad* if it has more wrong pixels than 90 % of the squares of
the other tiles of the training's vintage.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata

from pipeline.bench.imagery import Imagery
from pipeline.bench.report import BenchReport
from pipeline.demo.country import DeliveredDomain, make_country
from pipeline.demo.network import FitSettings, TrainingTile, fit
from pipeline.evaluation.figures import as_png
from pipeline.grid import Tile, Window
from pipeline.halo import Layout
from pipeline.inference.array_source import ArraySource
from pipeline.inference.block_mapping import map_and_count
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.model import load_model
from pipeline.model.reference_features import ReferenceFeatures, fit_reference, pool_squares
from pipeline.progress import OnMessage
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.gdal_open import environment
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.reading.raster import open_raster_file

_LAYOUT = Layout(core=250, halo=96, window=480, stride=32)
_PATCH = 192
_TILE = 1000
_BANDS = ("red", "green", "blue", "nir", "elevation")
_GAIN, _OFFSET = (1.25, 0.95, 0.75, 1.1), (15, 0, -5, -10)
"""Of the shifted colours: warmer, as by another white balance."""
_BAD_SHARE = 0.9
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScoredSet:
    """Squares of some imagery."""

    name: str
    novelty: Floats
    """float64 (square,)."""
    wrong: Floats
    """float64 (square,): share of wrong pixels; NaN without a truth."""
    tiles: Floats
    """float64 (tile,): novelty of the tiles."""


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Fits a network to one vintage, which takes minutes, then scores."""
    quick = imagery.scale.quick
    columns, most = (3, 1) if quick else (5, 6)
    with tempfile.TemporaryDirectory(prefix="novelty-", dir=imagery.folder) as folder:
        scratch = Path(folder)
        country = make_country(scratch / "country", rows=3, columns=columns, tile_size=_TILE)
        west, east = (_tiles(scratch, domain) for domain in country.domains)
        training = [tile for tile in west if tile.name in country.domains[0].training]
        settings = FitSettings(steps=10, batch=2, crop=128) if quick else FitSettings(steps=120)
        # With one thread the weights do not depend on the machine's cores.
        fitted = fit(training, scratch / "model", settings=settings, threads=1)
        model = load_model(fitted.weights, str(fitted.recipe))
        predictor = TorchPredictor(model)
        reference = _reference(training, predictor, model.weights_hash, model.recipe)
        on_message(f"novelty: reference of {reference.squares} squares, {reference.zones} zones")
        others = [tile for tile in west if tile.name not in country.domains[0].training]
        shifted = [TrainingTile(t.name, _shifted(t.pixels), t.truth) for t in others[:3]]
        sets = [
            _scored(name, tiles[:most], predictor, reference)
            for name, tiles in (
                ("training tiles", training),
                ("other tiles of the vintage", others),
                ("second vintage", east),
                ("colours shifted", shifted),
                ("German images", _german(imagery.data)),
            )
            if tiles
        ]
    table = _table(sets)
    for row in table:
        shown = (f"{name} {value if isinstance(value, str) else format(value, '.3g')}" for name, value in row.items())
        on_message(f"novelty: {', '.join(shown)}")
    known = {str(row["set"]): row for row in table}
    figures = {
        "novelty.false_alarms": float(known["other tiles of the vintage"]["tiles above 1"]),
        "novelty.found": float(known["second vintage"]["tiles above 1"]),
        "novelty.auroc": float(known["second vintage"]["AUROC with the other tiles"]),
    }
    return BenchReport(figures, {"sets": table}, _chart(sets), ("the demo's country: synthetic imagery",))


def _tiles(scratch: Path, domain: DeliveredDomain) -> list[TrainingTile]:
    index([domain.delivery], domain=domain.name, catalog=scratch / "catalog", tile_size=_TILE)
    mosaic = Mosaic.of(read_domain(scratch / "catalog", domain.name, tile_size=_TILE), bands=_BANDS)
    windows = [(name, Tile.named(name, _TILE).window) for name in domain.tiles]
    return [TrainingTile(name, mosaic.read(w).bands, domain.read_truth(w)) for name, w in windows]


def _reference(
    tiles: Sequence[TrainingTile], predictor: TorchPredictor, weights: str, recipe: object
) -> ReferenceFeatures:
    """From patches of the tiles, each alone, as `landcover calibrate --reference` makes it."""
    squares, zones = [], []
    for tile in tiles:
        for part in Window(0, 0, *tile.truth.shape).split(_PATCH):
            if part.shape == (_PATCH, _PATCH):
                valid = np.ones((1, _PATCH, _PATCH), np.bool_)
                _, features = predictor.with_features(np.ascontiguousarray(tile.pixels[:, *part.slices])[None], valid)
                squares.append(pool_squares(features[0], valid[0], (slice(0, _PATCH), slice(0, _PATCH))))
                zones.append(tile.name)
    return fit_reference(np.concatenate(squares), zones, weights_sha256=weights, recipe=recipe)  # type: ignore[arg-type]


def _scored(
    name: str, tiles: Sequence[TrainingTile], predictor: TorchPredictor, reference: ReferenceFeatures
) -> ScoredSet:
    """Maps tiles core by core, as a run does, so that each square has its own error."""
    novelty, wrong, of_tiles = [], [], []
    for tile in tiles:
        whole = Window(0, 0, *tile.truth.shape)
        source, own = ArraySource.all_valid(tile.pixels, whole), []
        for core in whole.split(_LAYOUT.core):
            found = map_and_count(source, core, layout=_LAYOUT, predictor=predictor, reference=reference)
            if found.novelty is None or not len(found.novelty):
                continue
            truth = tile.truth[core.slices]
            own.append(float(found.novelty.mean()))
            known = truth > 0
            wrong.append(float((found.layers[0] != truth)[known].mean()) if known.any() else float("nan"))
        novelty += own
        of_tiles.append(float(np.mean(own)))
    return ScoredSet(name, np.array(novelty), np.array(wrong), np.array(of_tiles))


def _shifted(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    colours = pixels[:4] * np.array(_GAIN)[:, None, None] + np.array(_OFFSET)[:, None, None]
    return np.concatenate([colours.clip(0, 255).astype(np.uint8), pixels[4:]])


def _german(data: Path) -> list[TrainingTile]:
    """Near infrared, green, blue and red; without a height, which is 0, and without a truth."""
    found = []
    for path in sorted((data / "band_order").glob("nir_g_b_r_*.tif")):
        with environment(), open_raster_file(path) as file:
            nir, green, blue, red = file.read()
        pixels = np.stack([red, green, blue, nir, np.zeros_like(red)]).astype(np.uint8)
        found.append(TrainingTile(path.stem, pixels, np.zeros(red.shape, np.uint8)))
    return found


def _table(sets: Sequence[ScoredSet]) -> list[dict[str, float | str]]:
    others = next(one for one in sets if one.name.startswith("other"))
    bad = float(np.nanquantile(others.wrong, _BAD_SHARE))
    table = []
    for one in sets:
        row: dict[str, float | str] = {
            "set": one.name,
            "squares": len(one.novelty),
            "mean novelty": float(one.novelty.mean()),
            "squares above 1": float((one.novelty > 1).mean()),
            "tiles above 1": float((one.tiles > 1).mean()),
            "wrong pixels": float(np.mean(one.wrong)),
        }
        if not np.isnan(one.wrong).any():
            row["AUROC alone"] = auroc(one.novelty, one.wrong > bad)
            both = [(o.novelty, o.wrong > bad) for o in (one, others)]
            row["AUROC with the other tiles"] = auroc(*(np.concatenate(v) for v in zip(*both, strict=True)))
        table.append(row)
    return table


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Chance that a positive has a higher score than another (Mann and Whitney 1947); NaN where there is none."""
    n = int(positive.sum())
    if not 0 < n < len(scores):
        return float("nan")
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def _chart(sets: Sequence[ScoredSet]) -> bytes:
    """Novelty and wrong pixels of each square."""
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.add_subplot(xlabel="novelty", ylabel="share of wrong pixels", xscale="log")
    for one in sets:
        axes.plot(one.novelty, np.nan_to_num(one.wrong, nan=0.0), ".", label=one.name, alpha=0.6)
    axes.axvline(1, color="0.5", linestyle="--", linewidth=1)
    axes.legend()
    return as_png(figure)
