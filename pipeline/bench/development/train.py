"""`train`: the demo's country in patches, a light network trained on some tiles, judged and calibrated on others."""

import io
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml
from PIL import Image

from pipeline.bench.imagery import Imagery, Say
from pipeline.bench.report import Report
from pipeline.config import Recipe
from pipeline.demo.country import Country, DeliveredDomain, make_country
from pipeline.demo.landscape import CLASSES
from pipeline.demo.network import DECODER_CHANNELS, ENCODER
from pipeline.grid import PIXELS_PER_M
from pipeline.runs.accuracy.evaluate import evaluate_set
from pipeline.runs.accuracy.temperature import calibrate
from pipeline.sources.catalog.index import index
from pipeline.sources.labels.patches import Patch
from pipeline.sources.labels.reference import Reference
from pipeline.training.fit import fit
from pipeline.training.patch_cutting import cut_patches
from pipeline.training.run_config import (
    DataSection,
    OptimizerSection,
    SplitSection,
    Training,
)

NAME = "train"
_FULL = (3, 5, 1000, 192, 18)
_QUICK = (2, 3, 500, 128, 1)
"""Rows and columns of tiles, pixels of a tile, pixels of a patch, epochs."""


def run(imagery: Imagery, *, say: Say) -> Report:
    """Trains by `landcover train`'s own code; the best epoch is chosen on tiles that judge nothing afterwards."""
    rows, columns, tile, size, epochs = _FULL if imagery.scale.apart else _QUICK
    scratch = imagery.folder / "run-train"
    shutil.rmtree(scratch, ignore_errors=True)
    country = make_country(scratch / "country", rows=rows, columns=columns, tile_size=tile)
    say(f"train: {sum(len(d.tiles) for d in country.domains)} tiles delivered")
    config = _config(scratch, country, size=size, epochs=epochs)
    started = time.perf_counter()
    fitted = fit(config, scratch / "out", progress_bar=False, say=say)
    minutes = (time.perf_counter() - started) / 60
    weights, recipe = str(fitted.exported.weights), str(fitted.exported.recipe)
    held_out = [scratch / "held_out.csv"]
    judged = evaluate_set(held_out, weights=weights, recipe=recipe, out=scratch / "judged", engine="torch")
    calibrated = calibrate(held_out, weights=weights, recipe=recipe, out=scratch / "calibrated")
    found = judged.evaluation.scored("present")
    picture = Image.open(io.BytesIO((scratch / "out" / "curves.png").read_bytes())).convert("RGB")
    report = Report(
        NAME,
        {
            "train.oa_held_out": found["oa"],
            "train.minutes": minutes,
            "train.ece_before": calibrated.before.ece,
            "train.ece_after": calibrated.after.ece,
        },
        {
            "miou": found["miou"],
            "epochs": fitted.trained.epochs,
            "best_epoch": fitted.trained.epoch,
            "training_patches": fitted.trained.training_patches,
            "validation_patches": fitted.trained.validation_patches,
            "held_out_pixels": int(judged.evaluation.matrix.sum()),
            "temperature": calibrated.temperature,
        },
        picture,
        ("the demo's country: made-up imagery, and nothing about France",),
    )
    shutil.rmtree(scratch)
    return report


def _config(scratch: Path, country: Country, *, size: int, epochs: int) -> Training:
    """Patches of both domains with lists of their sides, a light recipe, and the run over them."""
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
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    sides: dict[str, list[Patch]] = {"train": [], "validation": [], "held_out": []}
    for domain in country.domains:
        validates = domain.held_out[::3]
        for patch in _cut(scratch, domain, country.tile_size, size=size, recipe=path):
            side = "train" if patch.zone in domain.training else "validation" if patch.zone in validates else "held_out"
            sides[side].append(patch)
    lists = {name: _list(scratch / f"{name}.csv", side) for name, side in sides.items()}
    return Training(
        name="bench",
        recipe=str(path),
        data=DataSection(
            places=(lists["train"],),
            split=SplitSection(by="given", validation=(lists["validation"],)),
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


def _list(path: Path, patches: Sequence[Patch]) -> Path:
    path.write_text("".join(f"{p.image},{p.mask}\n" for p in patches), encoding="utf-8")
    return path
