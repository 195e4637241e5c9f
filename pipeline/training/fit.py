"""One training run: patches → split → network → Lightning → export. Killed, it is run again and goes on.

`checkpoints/last.ckpt` is written at each epoch's end and is all that a later call needs.
"""

import csv
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.utils.data import DataLoader

from pipeline.config import Recipe, load_recipe
from pipeline.durable import replacing
from pipeline.errors import ConfigError, StorageError
from pipeline.evaluation import figures
from pipeline.evaluation.evaluation_report import Evaluation
from pipeline.model import build
from pipeline.model.checkpoint import fit_tensors
from pipeline.model.weights import read_weights
from pipeline.sources.labels.patches import channel_statistics
from pipeline.training.dataset import Dealt, Patches, Sample, Split, split_patches
from pipeline.training.export import Exported, Trained, export
from pipeline.training.lightning_module import Segmentation
from pipeline.training.run_config import Training

_HEAD = "segmentation_head."
_PANELS = {
    "loss": ("train_loss", "val_loss"),
    "validation, present classes": ("val_miou", "val_oa"),
    "learning rate": ("learning_rate",),
}

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a run left."""

    trained: Trained
    exported: Exported
    """Written by the first process."""
    first: bool
    """True in that process."""


class _Loaders(lightning.LightningDataModule):
    """Made when processes know their rank."""

    def __init__(self, split: Split, recipe: Recipe, config: Training) -> None:
        super().__init__()
        self.split, self.recipe, self.config = split, recipe, config

    def train_dataloader(self) -> DataLoader[Sample]:
        return self._loader(training=True)

    def val_dataloader(self) -> DataLoader[Sample]:
        return self._loader(training=False)

    def _loader(self, *, training: bool) -> DataLoader[Sample]:
        patches = self.split.training if training else self.split.validation
        augment, seed = (self.config.augment if training else None), self.config.seed
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        dealt = Dealt(len(patches), seed=seed, shuffle=training, rank=rank, world=world)
        return DataLoader(
            Patches(patches, self.recipe, augment=augment, seed=seed),
            batch_size=self.config.batch,
            sampler=dealt,
            num_workers=self.config.loaders,
            persistent_workers=self.config.loaders > 0,
            pin_memory=torch.cuda.is_available(),
        )


def fit(
    config: Training, out: Path, *, restart: bool = False, progress_bar: bool = True, say: Say = lambda _: None
) -> Fitted:
    """Trains, or goes on where an earlier call was killed, and exports the epoch with the lowest val_loss.

    Args:
        config: all that the weights depend on.
        out: folder of checkpoints, logs, figures and what is exported.
        restart: begin anew although there is a checkpoint.
        progress_bar: draw one.
        say: told a line after each step.

    Raises:
        DeliveryError, SourceError: patches that are missing, cannot be read or are none.
        WeightsError, ConfigError: weights to start from that cannot be had or do not fit; a run that cannot be.
        StorageError: `out` cannot be written.
    """
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)  # its tips are about its makers' services
    say = rank_zero_only(say)
    split = split_patches(config.data, seed=config.seed)
    say(f"{len(split.training)} patches to train on, {len(split.validation)} to validate")
    recipe = _recipe(config, split)
    last = out / "checkpoints" / "last.ckpt"
    resume = last.is_file() and not restart
    if resume:
        say(f"goes on from {last}")
    # The first epoch's random weights follow from the seed alone, on every process alike.
    torch.manual_seed(config.seed)
    # What is restored from a checkpoint needs no weights to start from.
    network = build(recipe) if resume else _started(recipe, config)
    module, data = Segmentation(network, recipe, config), _Loaders(split, recipe, config)
    each: dict[str, Any] = {
        "dirpath": out / "checkpoints",
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    best = ModelCheckpoint(filename="best", monitor="val_loss", **each)
    # Not `save_last` of the other: that writes only when an epoch was the best.
    newest = ModelCheckpoint(filename="last", **each)
    stop = EarlyStopping("val_loss", patience=config.early_stopping, check_on_train_epoch_end=False)
    with warnings.catch_warnings():
        _silence()
        trainer = _trainer(config, out, callbacks=[stop, best, newest], progress_bar=progress_bar)
        trainer.fit(module, data, ckpt_path=str(last) if resume else None, weights_only=False)
        epochs = trainer.current_epoch
        trained = _measured(trainer, module, data, best=best, split=split, epochs=epochs)
    if trainer.is_global_zero:
        _draw_curves(out)
        export(out, network, module.criterion.weight, trained, config=config)  # type: ignore[arg-type]  # a Tensor
    return Fitted(trained, Exported.at(out, recipe.name), trainer.is_global_zero)


def _recipe(config: Training, split: Split) -> Recipe:
    recipe = load_recipe(config.recipe, base=config.base).model_copy(update={"name": config.name, "temperature": 1.0})
    if config.data.normalise == "recipe":
        return recipe
    found = channel_statistics(split.training, bands=recipe.bands)
    mean = tuple(round(m, 2) for m in found.mean)
    return recipe.model_copy(update={"mean": mean, "std": tuple(round(max(s, 0.01), 2) for s in found.std)})


def _started(recipe: Recipe, config: Training) -> nn.Module:
    """The network before the first step."""
    start = config.start_weights
    network = build(recipe, imagenet=start == "imagenet")
    if start not in ("random", "imagenet"):
        tensors = read_weights(start)
        if config.start.head == "replace":
            own = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(_HEAD)}
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_HEAD)} | own
        fit_tensors(tensors, network, recipe, where=start)
    return network


def _trainer(config: Training, out: Path, *, callbacks: list[Callback], progress_bar: bool) -> lightning.Trainer:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error.strerror}") from error
    many = config.devices * config.nodes > 1
    bar = [RichProgressBar(leave=True)] if progress_bar else []
    # Each start has a folder of its own: a logger empties the one that it is given.
    start = f"start-{len(list(out.glob('logs/start-*'))):03d}"
    # Our own script requeues a job; the checkpoint is there after every epoch.
    slurm: Any = SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None
    return lightning.Trainer(
        accelerator="auto",
        strategy="ddp" if many else "auto",
        devices=config.devices,
        num_nodes=config.nodes,
        precision=config.precision,
        max_epochs=config.epochs,
        callbacks=[*callbacks, *bar],
        logger=[CSVLogger(out, name="logs", version=start), TensorBoardLogger(out, name="logs", version=start)],
        plugins=slurm,
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        gradient_clip_val=config.optimizer.clip,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        deterministic="warn" if torch.cuda.is_available() else None,
        benchmark=False,
    )


def _silence() -> None:
    """Lightning's advice that does not fit here; within a `catch_warnings` block."""
    for advice in (
        ".*srun. command is available.*",  # nor need it be used
        ".*does not have many workers.*",  # the YAML says how many
        ".*exists and is not empty.*",  # a run goes on
        ".*sync_dist=True.*",  # figures are summed over processes before they are logged
        ".*LeafSpec.*",  # of torch, its makers' to mend
    ):
        warnings.filterwarnings("ignore", advice)


def _measured(
    trainer: lightning.Trainer,
    module: Segmentation,
    data: _Loaders,
    *,
    best: ModelCheckpoint,
    split: Split,
    epochs: int,
) -> Trained:
    """The best epoch's figures, measured again: they are of the very weights that are exported."""
    state: dict[str, Any] = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    # The logs tell of epochs, and this is none.
    trainer.loggers = []
    (found,) = trainer.validate(module, data, verbose=False)
    recipe = module.recipe
    if not module.confusion.any():
        raise ConfigError("no validation patch has a label of a live class: nothing could be measured")
    evaluation = Evaluation(recipe.name, module.confusion, tuple(v - 1 for v in recipe.live), mode="present")
    return Trained(
        recipe, evaluation, found["val_loss"], int(state["epoch"]), epochs, len(split.training), len(split.validation)
    )


def _draw_curves(out: Path) -> None:
    """`curves.png` from the logged figures; an epoch that was begun twice counts as it was the last time."""
    history: dict[str, dict[float, float]] = {}
    for path in sorted(out.glob("logs/start-*/metrics.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and name not in ("epoch", "step"):
                        history.setdefault(name, {})[float(row["epoch"])] = float(value)
    points = {name: sorted(values.items()) for name, values in history.items()}
    with replacing(out / "curves.png") as temporary:
        temporary.write_bytes(figures.curves(points, _PANELS))
