"""Exports a trained network: weights in two formats, the recipe, figures, and a model card with what was measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
import yaml
from torch import nn

from pipeline import legend
from pipeline.config import Recipe
from pipeline.durable import replacing, write_json
from pipeline.evaluation import figures
from pipeline.evaluation.evaluation_report import Evaluation
from pipeline.evaluation.metrics import BY_CLASS, MEANS, as_ign
from pipeline.model.saving import save_recipe, save_weights
from pipeline.training.run_config import TrainingConfig


@dataclass(frozen=True)
class ExportedFiles:
    """The files of a trained network."""

    weights: Path
    """`<name>_weights.pth`, with the names of FLAIR-INC files."""
    safetensors: Path
    """The same tensors, with the names of segmentation-models-pytorch."""
    recipe: Path
    card: Path
    """The model card, `README.md`."""

    @classmethod
    def at(cls, out: Path, name: str) -> Self:
        """The files in a folder, by their names."""
        stems = (f"{name}_weights.pth", f"{name}.safetensors", f"{name}.yaml", "README.md")
        return cls(*(out / stem for stem in stems))


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """What was measured of the network that is exported."""

    recipe: Recipe
    evaluation: Evaluation
    val_loss: float
    epoch: int
    """The epoch of the weights, counted from 0."""
    epochs: int
    """Number of epochs that were trained."""
    training_patches: int
    validation_patches: int


def export(
    out: Path, network: nn.Module, class_weights: torch.Tensor, trained: TrainedNetwork, *, config: TrainingConfig
) -> ExportedFiles:
    """Writes weights, recipe, figures and model card.

    Args:
        out: folder.
        network: from `model.build_network`, with trained weights.
        class_weights: float32 (logit), of the cross-entropy.
        trained: what was measured.
        config: how the network was trained.

    Raises:
        StorageError: `out` cannot be written.
    """
    recipe, evaluation = trained.recipe, trained.evaluation
    files = ExportedFiles.at(out, recipe.name)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    save_weights(files.weights, tensors, class_weights=class_weights)
    with replacing(files.safetensors) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors))
    save_recipe(files.recipe, recipe)
    for by in ("precision", "recall"):
        with replacing(out / f"confusion-{by}.png") as temporary:
            temporary.write_bytes(figures.confusion(evaluation.kept, evaluation.names, by=by))
    write_json(out / "metrics.json", as_ign(evaluation.scored(evaluation.mode), live=evaluation.live))
    with replacing(files.card) as temporary:
        temporary.write_text(model_card(trained, config=config), encoding="utf-8")
    return files


_CARD = """---
{header}---

# {name}

{architecture} with encoder {encoder}; {channels} input channels ({bands}, uint8), {logits} logits of which {live} are
used.

```sh
landcover predict IN.tif --weights {name}_weights.pth --recipe {name}.yaml --out maps
```

The figures below hold for imagery like these patches. Measure again for another sensor, resolution, season or
processing.

## Input

| channel | mean | standard deviation |
|---|---|---|
{input_rows}
## Training

| setting | value |
|---|---|
{training_rows}
## Evaluation

On {validation_patches} patches that were not used for training, with {pixels:,} labelled pixels, in percent. Means are
over the classes that occur. The best epoch was chosen on the same patches.

| mean | value |
|---|---|
{mean_rows}
| class | IoU | F-score | precision | recall |
|---|---|---|---|---|
{class_rows}
Columns sum to 100 %, with precision on the diagonal; rows sum to 100 %, with recall on the diagonal:

![precision](confusion-precision.png)
![recall](confusion-recall.png)

Loss, figures of validation, and learning rate by epoch:

![curves](curves.png)
"""


def model_card(trained: TrainedNetwork, *, config: TrainingConfig) -> str:
    """The model card: a YAML header with the metrics, then use, training and evaluation."""
    recipe, evaluation = trained.recipe, trained.evaluation
    scores = evaluation.scored(evaluation.mode)
    return _CARD.format(
        header=yaml.safe_dump(_header(recipe, scores), sort_keys=False, allow_unicode=True),
        name=recipe.name,
        architecture=recipe.architecture,
        encoder=recipe.encoder,
        channels=len(recipe.bands),
        bands=", ".join(recipe.bands),
        logits=recipe.logits,
        live=len(recipe.live),
        input_rows=_rows(
            (b, f"{m:.2f}", f"{s:.2f}") for b, m, s in zip(recipe.bands, recipe.mean, recipe.std, strict=True)
        ),
        training_rows=_rows(_training_rows(trained, config)),
        validation_patches=trained.validation_patches,
        pixels=int(evaluation.kept.sum()),
        mean_rows=_rows((title, f"{100 * scores[name]:.3f}") for name, title in MEANS.items()),
        class_rows=_rows(_class_rows(evaluation, scores)),
    )


def _header(recipe: Recipe, scores: Mapping[str, Any]) -> dict[str, Any]:
    metrics = [{"name": title, "type": name, "value": round(100 * scores[name], 3)} for name, title in MEANS.items()]
    result = {
        "task": {"type": "semantic-segmentation"},
        "dataset": {"name": "validation patches", "type": "own"},
        "metrics": metrics,
    }
    return {
        "license": recipe.licence,
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic segmentation", "land cover", "pytorch", "landcover-pipeline"],
        "model-index": [{"name": recipe.name, "results": [result]}],
    }


def _rows(rows: Iterable[Iterable[str]]) -> str:
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _class_rows(evaluation: Evaluation, scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{100 * scores[score][k]:.3f}" if scores["present"][k] else "absent" for score in BY_CLASS))
        for k, name in enumerate(evaluation.names)
    ]


def _training_rows(trained: TrainedNetwork, config: TrainingConfig) -> list[tuple[str, str]]:
    weights = {legend.BY_VALUE[v].name: w for v, w in sorted(config.class_weights.items())}
    optimizer, rule, augment = config.optimizer, config.plateau, config.augment
    crop = f", crops of {augment.crop} px" if augment.crop else ""
    momentum = f", momentum {optimizer.momentum:g}" if optimizer.name == "sgd" and optimizer.momentum else ""
    steps = f"{optimizer.name}, learning rate {optimizer.learning_rate:g}{momentum}"
    flips = f"vertical flip {augment.vertical_flip:g}, horizontal flip {augment.horizontal_flip:g}, rotation by 90°"
    falls = f"× {rule.factor:g} after {rule.patience} epochs without a better val_loss, cooldown {rule.cooldown}"
    return [
        ("patches for training, for validation", f"{trained.training_patches}, {trained.validation_patches}"),
        ("split", f"by {config.data.split.by}"),
        ("started from", config.start.weights),
        ("augmentation", f"{flips} {augment.rotate_90:g}{crop}"),
        ("loss", "cross-entropy" + (f", class weights {weights}" if weights else "")),
        ("optimizer", f"{steps}, weight decay {optimizer.weight_decay:g}"),
        ("schedule", f"{falls}, at least {rule.min_lr:g}" if optimizer.schedule == "plateau" else "one cycle"),
        ("batch", f"{config.batch} a process, {config.devices * config.nodes} processes, {config.precision}"),
        ("seed", str(config.seed)),
        ("epochs", f"{trained.epochs}; best {trained.epoch} with val_loss {trained.val_loss:.4f}"),
    ]
