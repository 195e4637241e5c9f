"""Fits the temperature of a network's confidence on half of a set's zones, and measures it on the other half.

That of an average is fitted to the averaged probabilities, after the temperatures of its members: Rahaman and Thiery,
"Uncertainty Quantification and Deep Ensembles", NeurIPS 2021, who found averages of calibrated networks underconfident.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from pipeline.config import Recipe
from pipeline.durable import write_bytes, write_json
from pipeline.errors import EvaluationError
from pipeline.evaluation import figures
from pipeline.evaluation.calibration import Reliability, TemperatureSpread, fit_temperature, temperature_spread
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.model import Ensemble, Model
from pipeline.model.saving import save_recipe
from pipeline.progress import SILENT, Progress
from pipeline.sources.labels.patches import Patch, find_patches, read_image, read_mask

_A_PATCH = 2_000
"""Pixels of a patch to fit on: neighbours are alike, and only one number is fitted."""
_IN_ALL = 1_000_000
_SEED = 2022
"""Of the split by zones and of the choice of pixels."""
_Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Logits (pixel, class) and truth (pixel,)."""


@dataclass(frozen=True, eq=False)
class TemperatureFit:
    """A fitted temperature; its reliabilities are of zones that it was not fitted on."""

    temperature: float
    spread: TemperatureSpread
    """Over zones, of both halves."""
    before: Reliability
    after: Reliability
    recipe: Path | None
    """The recipe with this temperature; None of an average, whose temperature is `model.temperature` of a campaign."""
    figure: Path


def calibrate(
    places: Sequence[Path],
    *,
    model: Model | Ensemble,
    out: Path,
    metadata: Path | None = None,
    progress: Progress = SILENT,
) -> TemperatureFit:
    """Fits a temperature and writes `calibration.json`, `reliability.png` and, for one network, its recipe into `out`.

    Args:
        places: folders and CSV lists of labelled patches that the network was not trained on.
        model: a network, or an average of several forwards; its own temperature does not matter.
        out: folder of the results.
        metadata: JSON with domain and zone of patches whose paths do not name them.
        progress: counts patches.

    Raises:
        DeliveryError, SourceError: patches that are missing, unreadable or not patches.
        EvaluationError: fewer than two zones, or no label of a live class in one of the halves, or no temperature fits.
        StorageError: `out` cannot be written.
    """
    rules, predictor = model.recipe, TorchPredictor(model)
    fitting, held_out = _halves(find_patches(places, metadata=metadata))
    progress.start(len(fitting) + len(held_out))
    rng = np.random.default_rng(_SEED)
    limit = min(_A_PATCH, max(1, _IN_ALL // len(fitting)))
    zones: defaultdict[str, list[_Labelled]] = defaultdict(list)
    for patch, one, labels in progress.track(_labelled(predictor, rules, fitting)):
        chosen = rng.permutation(len(labels))[:limit]
        zones[patch.unit].append((one[chosen], labels[chosen]))
    drawn, fitted = len(zones), [pair for own in zones.values() for pair in own]
    temperature = round(fit_temperature(*_joined(fitted)), 4)
    before, after = Reliability(), Reliability()
    for patch, one, labels in progress.track(_labelled(predictor, rules, held_out)):
        before, after = before + _reliability(one, labels, 1.0), after + _reliability(one, labels, temperature)
        chosen = rng.permutation(len(labels))[:limit]
        zones[patch.unit].append((one[chosen], labels[chosen]))
    labelled = [pair for pair in map(_joined, zones.values()) if len(pair[1])]
    spread = temperature_spread(labelled, drawn=drawn)
    recipe_file = None if isinstance(model, Ensemble) else out / f"{rules.name}.yaml"
    calibrated = TemperatureFit(temperature, spread, before, after, recipe_file, out / "reliability.png")
    _write(calibrated, model)
    return calibrated


def _joined(pairs: Sequence[_Labelled]) -> _Labelled:
    logits, truth = zip(*pairs, strict=True)
    return np.concatenate(logits), np.concatenate(truth)


def _halves(patches: Sequence[Patch]) -> tuple[list[Patch], list[Patch]]:
    units = sorted({p.unit for p in patches})
    if len(units) < 2:
        raise EvaluationError(
            f"expected labelled patches of two or more zones, to fit on some and measure on others; found {units}"
        )
    chosen = set(np.random.default_rng(_SEED).permutation(units)[: len(units) // 2].tolist())
    return [p for p in patches if p.unit in chosen], [p for p in patches if p.unit not in chosen]


def _labelled(
    predictor: TorchPredictor, recipe: Recipe, patches: Sequence[Patch]
) -> Iterator[tuple[Patch, NDArray[np.float32], NDArray[np.int64]]]:
    """Yields each patch with logits (pixel, class) and truth (pixel,), where the truth is a live class."""
    live = np.array(recipe.live)
    for patch in patches:
        mask = read_mask(patch)
        counted = np.isin(mask, live)
        logits = predictor.logits(read_image(patch, bands=recipe.bands)[None])[0]
        yield patch, logits[:, counted].T, np.searchsorted(live, mask[counted])


def _reliability(logits: NDArray[np.float32], truth: NDArray[np.int64], temperature: float) -> Reliability:
    share = softmax(logits.astype(np.float64) / temperature, axis=1)
    return Reliability.of(share.max(axis=1), logits.argmax(axis=1) == truth)


def _write(done: TemperatureFit, model: Model | Ensemble) -> None:
    curves = {"temperature 1": done.before, f"temperature {done.temperature:g}": done.after}
    write_bytes(done.figure, figures.reliability(curves))
    content = {
        "weights_sha256": model.weights_hash,
        "temperature": done.temperature,
        "temperature_interval_95": [done.spread.low, done.spread.high],
        "temperature_interval_zones": {"drawn": done.spread.drawn, "of": done.spread.zones},
        "warning": done.spread.warning or None,
        "held_out_pixels": int(done.after.pixels.sum()),
        "expected_calibration_error": {"before": done.before.ece, "after": done.after.ece},
    }
    write_json(done.figure.with_name("calibration.json"), content)
    if done.recipe is not None:
        save_recipe(done.recipe, model.recipe.model_copy(update={"temperature": done.temperature}))
