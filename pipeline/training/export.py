"""Exports a trained network: weights in two formats, the recipe, figures, and a model card with what was measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import safetensors.torch
import torch
from huggingface_hub import EvalResult, ModelCardData
from torch import nn

from pipeline import legend
from pipeline.config import Recipe
from pipeline.durable import write_bytes, write_json, write_text
from pipeline.evaluation import figures
from pipeline.evaluation.evaluation_report import Evaluation
from pipeline.evaluation.metrics import BY_CLASS, MEANS, as_ign
from pipeline.html_page import render
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
    write_bytes(files.safetensors, safetensors.torch.save(tensors))
    save_recipe(files.recipe, recipe)
    for by in figures.BY:
        write_bytes(out / f"confusion-{by}.png", figures.confusion(evaluation.kept, evaluation.names, by=by))
    write_json(out / "metrics.json", as_ign(evaluation.scored(evaluation.mode), live=evaluation.live))
    write_text(files.card, model_card(trained, config=config))
    return files


def model_card(trained: TrainedNetwork, *, config: TrainingConfig) -> str:
    """The model card: a YAML header with the metrics, then use, training and evaluation."""
    recipe, evaluation = trained.recipe, trained.evaluation
    scores = evaluation.scored(evaluation.mode)
    header = ModelCardData(
        license=recipe.licence,
        pipeline_tag="image-segmentation",
        tags=["semantic segmentation", "land cover", "pytorch", "landcover-pipeline"],
        model_name=recipe.name,
        eval_results=[
            EvalResult(
                task_type="semantic-segmentation",
                dataset_type="own",
                dataset_name="validation patches",
                metric_type=name,
                metric_name=title,
                metric_value=round(100 * scores[name], 3),
            )
            for name, title in MEANS.items()
        ],
    )
    return render(
        "model_card.md",
        header=header.to_yaml(),
        recipe=recipe,
        trained=trained,
        config=config,
        class_weights={legend.BY_VALUE[v].name: w for v, w in sorted(config.class_weights.items())},
        scores=scores,
        means=MEANS,
        by_class=BY_CLASS,
    )
