"""What a training run leaves: weights in two formats, the recipe, and a model card filled from what was measured."""

from collections import OrderedDict
from collections.abc import Mapping
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
from pipeline.model.checkpoint import IGNORED, PREFIX
from pipeline.training.run_config import Training


@dataclass(frozen=True)
class Exported:
    """Files of a trained network."""

    weights: Path
    """`<name>_weights.pth`, with the keys of the FLAIR-INC files."""
    safetensors: Path
    """The same tensors under plain names."""
    recipe: Path
    card: Path
    """`README.md`."""

    @classmethod
    def at(cls, out: Path, name: str) -> Self:
        """The names of the files in a folder."""
        stems = (f"{name}_weights.pth", f"{name}.safetensors", f"{name}.yaml", "README.md")
        return cls(*(out / stem for stem in stems))


@dataclass(frozen=True, eq=False)
class Trained:
    """What was measured of the network that is exported."""

    recipe: Recipe
    evaluation: Evaluation
    val_loss: float
    epoch: int
    """In which it was found, counted from 0."""
    epochs: int
    """That were trained."""
    training_patches: int
    validation_patches: int


def export(
    out: Path, network: nn.Module, class_weights: torch.Tensor, trained: Trained, *, config: Training
) -> Exported:
    """Writes weights, recipe, figures and card.

    Args:
        out: folder.
        network: as `model.build` makes it.
        class_weights: float32 (logits,), of the cross-entropy.
        trained: what was measured.
        config: how it was trained.

    Raises:
        StorageError: `out` cannot be written.
    """
    recipe = trained.recipe
    files = Exported.at(out, recipe.name)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    nested = OrderedDict((PREFIX + name, tensor) for name, tensor in plain.items())
    nested[f"{IGNORED}weight"] = class_weights.detach().cpu().clone()
    with replacing(files.weights) as temporary:
        torch.save(nested, temporary)
    with replacing(files.safetensors) as temporary:
        temporary.write_bytes(safetensors.torch.save(plain))
    with replacing(files.recipe) as temporary:
        temporary.write_text(
            yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
    given = trained.evaluation
    for by in ("precision", "recall"):
        with replacing(out / f"confusion-{by}.png") as temporary:
            temporary.write_bytes(figures.confusion(given.kept, given.names, by=by))
    write_json(out / "metrics.json", as_ign(given.scored(given.mode), live=given.live))
    with replacing(files.card) as temporary:
        temporary.write_text(card(trained, config=config), encoding="utf-8")
    return files


def card(trained: Trained, *, config: Training) -> str:
    """The model card: YAML header with the metrics, then use, training and evaluation."""
    recipe, given = trained.recipe, trained.evaluation
    found = given.scored(given.mode)
    header = {
        "license": recipe.licence,
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic segmentation", "land cover", "pytorch", "landcover-pipeline"],
        "model-index": [
            {
                "name": recipe.name,
                "results": [
                    {
                        "task": {"type": "semantic-segmentation"},
                        "dataset": {"name": "validation patches", "type": "own"},
                        "metrics": [
                            {"name": called, "type": name, "value": round(100 * found[name], 3)}
                            for name, called in MEANS.items()
                        ],
                    }
                ],
            }
        ],
    }
    means = "".join(f"| {called} | {100 * found[name]:.3f} |\n" for name, called in MEANS.items())
    return f"""---
{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---

# {recipe.name}

{recipe.architecture} with encoder {recipe.encoder}; {len(recipe.bands)} input channels
({", ".join(recipe.bands)}, uint8), {recipe.logits} logits of which {len(recipe.live)} are used.

```sh
landcover predict IN.tif --weights {recipe.name}_weights.pth --recipe {recipe.name}.yaml --out maps
```

It was measured on nothing but the patches below: imagery of another sensor, resolution, season or processing wants a
measurement of its own.

## Input

| channel | mean | standard deviation |
|---|---|---|
{_rows((b, f"{m:.2f}", f"{s:.2f}") for b, m, s in zip(recipe.bands, recipe.mean, recipe.std, strict=True))}
## Training

| what | value |
|---|---|
{_rows(_recipe_rows(trained, config))}
## Evaluation

On {trained.validation_patches} patches that nothing was trained on, {int(given.kept.sum()):,} labelled pixels, in
percent. Means are over the classes that occur; these are the patches by which the best epoch was chosen.

| mean | value |
|---|---|
{means}
| class | IoU | F-score | precision | recall |
|---|---|---|---|---|
{_rows(_class_rows(given, found))}
Columns sum to 100 %, precision on the diagonal; rows sum to 100 %, recall on the diagonal:

![precision](confusion-precision.png)
![recall](confusion-recall.png)

Loss, figures of validation, and learning rate over the epochs:

![curves](curves.png)
"""


def _rows(rows: Any) -> str:
    return "".join("| " + " | ".join(str(cell) for cell in row) + " |\n" for row in rows)


def _class_rows(given: Evaluation, found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{100 * found[what][k]:.3f}" if found["present"][k] else "absent" for what in BY_CLASS))
        for k, name in enumerate(given.names)
    ]


def _recipe_rows(trained: Trained, config: Training) -> list[tuple[str, str]]:
    weights = {legend.BY_VALUE[v].name: w for v, w in sorted(config.class_weights.items())}
    how, rule, augment = config.optimizer, config.plateau, config.augment
    crop = f", crops of {augment.crop} px" if augment.crop else ""
    momentum = f", momentum {how.momentum:g}" if how.name == "sgd" and how.momentum else ""
    turned = f"vertical flip {augment.vertical_flip:g}, horizontal flip {augment.horizontal_flip:g}, rotation by 90°"
    falls = f"× {rule.factor:g} after {rule.patience} epochs without a better val_loss, cooldown {rule.cooldown}"
    return [
        ("patches to train, to validate", f"{trained.training_patches}, {trained.validation_patches}"),
        ("split", f"by {config.data.split.by}"),
        ("started from", config.start.weights),
        ("augmentation", f"{turned} {augment.rotate_90:g}{crop}"),
        ("loss", "cross-entropy" + (f", class weights {weights}" if weights else "")),
        ("optimiser", f"{how.name}, learning rate {how.learning_rate:g}{momentum}, weight decay {how.weight_decay:g}"),
        ("schedule", f"{falls}, at least {rule.min_lr:g}" if how.schedule == "plateau" else "one cycle"),
        ("batch", f"{config.batch} a process, {config.devices * config.nodes} processes, {config.precision}"),
        ("seed", str(config.seed)),
        ("epochs", f"{trained.epochs}; best {trained.epoch} with val_loss {trained.val_loss:.4f}"),
    ]
