"""`train`: a light network trained on patches of the demo's country, then evaluated and calibrated on other tiles."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.bench.development.train_loader import measure_loader
from pipeline.bench.imagery import Imagery
from pipeline.bench.machine import measure
from pipeline.bench.report import BenchReport
from pipeline.config import Recipe
from pipeline.demo.country import Country, DeliveredDomain, make_country
from pipeline.demo.landscape import CLASSES
from pipeline.demo.network import DECODER_CHANNELS, ENCODER
from pipeline.grid import PIXELS_PER_M
from pipeline.model import load_model
from pipeline.model.saving import save_recipe
from pipeline.progress import OnMessage
from pipeline.runs.accuracy.evaluate import evaluate_set
from pipeline.runs.accuracy.temperature import calibrate
from pipeline.sources.catalog.index import index
from pipeline.sources.labels.patches import Patch
from pipeline.sources.labels.reference import Reference
from pipeline.training.fit import fit
from pipeline.training.patch_cutting import cut_patches
from pipeline.training.run_config import DataSection, OptimizerSection, SplitSection, TrainingConfig

_FULL = (3, 5, 1000, 192, 18)
_QUICK = (2, 3, 500, 128, 1)
"""Rows and columns of tiles, pixels of a tile, pixels of a patch, epochs."""


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Trains with the code of `landcover train`, or measures its loader and its step (`--loader`).

    The tiles that choose the best epoch are not used for evaluation.
    """
    rows, columns, tile, size, epochs = _QUICK if imagery.scale.quick else _FULL
    with tempfile.TemporaryDirectory(prefix="train-", dir=imagery.folder) as folder:
        scratch = Path(folder)
        if imagery.scale.loader:
            return measure_loader(imagery, scratch, on_message=on_message)
        country = make_country(scratch / "country", rows=rows, columns=columns, tile_size=tile)
        on_message(f"train: {sum(len(d.tiles) for d in country.domains)} tiles delivered")
        config = _config(scratch, country, size=size, epochs=epochs)
        result, usage = measure(lambda: fit(config, scratch / "out", on_message=on_message))
        model = load_model(result.files.weights, str(result.files.recipe))
        held_out = [scratch / "held_out.csv"]
        evaluated = evaluate_set(held_out, model=model, out=scratch / "evaluated", engine="torch")
        calibrated = calibrate(held_out, model=model, out=scratch / "calibrated")
        chart = (scratch / "out" / "curves.png").read_bytes()
    scores = evaluated.evaluation.scored("present")
    return BenchReport(
        {
            "train.oa_held_out": scores["oa"],
            "train.minutes": usage.wall_s / 60,
            "train.ece_before": calibrated.before.ece,
            "train.ece_after": calibrated.after.ece,
        },
        {
            "miou": scores["miou"],
            "epochs": result.trained.epochs,
            "best_epoch": result.trained.epoch,
            "training_patches": result.trained.training_patches,
            "validation_patches": result.trained.validation_patches,
            "held_out_pixels": int(evaluated.evaluation.matrix.sum()),
            "temperature": calibrated.temperature,
        },
        chart,
        ("the demo's country: synthetic imagery that says nothing about France",),
    )


def _config(scratch: Path, country: Country, *, size: int, epochs: int) -> TrainingConfig:
    """Writes a light recipe, the patches of both domains and lists of them, and configures a run over these."""
    recipe = Recipe(
        name="bench",
        encoder=ENCODER,
        decoder_channels=DECODER_CHANNELS,
        mean=(0.0,) * 5,
        std=(1.0,) * 5,
        live=CLASSES,
        licence="apache-2.0",
    )
    path = scratch / "recipe.yaml"
    save_recipe(path, recipe)
    lists: dict[str, list[Patch]] = {"train": [], "validation": [], "held_out": []}
    for domain in country.domains:
        validation = domain.held_out[::3]
        for patch in _cut(scratch, domain, country.tile_size, size=size, recipe=path):
            zone = patch.zone
            name = "train" if zone in domain.training else "validation" if zone in validation else "held_out"
            lists[name].append(patch)
    files = {name: _write_list(scratch / f"{name}.csv", patches) for name, patches in lists.items()}
    return TrainingConfig(
        name="bench",
        recipe=str(path),
        data=DataSection(
            places=(files["train"],),
            split=SplitSection(by="given", validation=(files["validation"],)),
            normalise="data",
        ),
        optimizer=OptimizerSection(name="adamw", learning_rate=8e-3, weight_decay=0.01, clip=5.0, schedule="one_cycle"),
        epochs=epochs,
        batch=4,
        loaders=0,
    )


def _cut(scratch: Path, domain: DeliveredDomain, tile: int, *, size: int, recipe: Path) -> Sequence[Patch]:
    catalog = scratch / "catalog"
    index([domain.delivery], domain=domain.name, catalog=catalog, tile_size=tile)
    return cut_patches(
        replace(Reference.open(domain.truth), nomenclature="flair12"),
        catalog=catalog,
        domain=domain.name,
        out=scratch / "patches" / domain.name,
        recipe=str(recipe),
        tile_m=tile // PIXELS_PER_M,
        size=size,
    )


def _write_list(path: Path, patches: Sequence[Patch]) -> Path:
    path.write_text("".join(f"{p.image},{p.mask}\n" for p in patches), encoding="utf-8")
    return path
