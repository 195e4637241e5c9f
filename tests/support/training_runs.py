"""Training runs small enough to be run again and again."""

import csv
from pathlib import Path
from typing import Any

import yaml

from pipeline.training.run_config import TrainingConfig, load_training_config
from tests.support.campaigns import RECIPE
from tests.support.flair_dataset import random_set


def write_run(folder: Path, **changed: Any) -> Path:
    """A YAML with its recipe and patches beside it; made where missing."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "set").exists():
        random_set(folder / "set", zones=5)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    content: dict[str, Any] = {
        "name": "t",
        "recipe": "tiny.yaml",
        "data": {"places": ["set"], "normalise": "data"},
        "epochs": 2,
        "batch": 4,
        "loaders": 0,
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(content | changed))
    return path


def a_run(folder: Path, **changed: Any) -> TrainingConfig:
    return load_training_config(write_run(folder, **changed))


def curve(out: Path, name: str) -> list[float]:
    """A logged figure by epoch."""
    found: dict[int, float] = {}
    for path in sorted(out.glob("logs/start-*/metrics.csv")):
        with path.open(newline="") as file:
            found |= {int(row["epoch"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}
    return [found[epoch] for epoch in sorted(found)]
