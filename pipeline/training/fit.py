"""A training run: patches → split → network → Lightning → export. The same call resumes a run that was killed.

Each epoch ends by writing `checkpoints/last.ckpt`, which is all that a later call needs.
"""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pandas as pd
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.utils.data import DataLoader

from pipeline.config import Recipe, load_recipe
from pipeline.durable import write_bytes
from pipeline.errors import ConfigError, StorageError, WeightsError
from pipeline.evaluation import figures
from pipeline.evaluation.evaluation_report import Evaluation
from pipeline.model import build_network
from pipeline.model.checkpoint import Checkpoint, load_tensors, read_plain
from pipeline.model.weights import read_weights
from pipeline.progress import SILENT, OnMessage, Progress
from pipeline.sources.labels.patches import channel_statistics
from pipeline.training.dataset import PatchDataset, PatchSampler, Sample, Split, split_patches
from pipeline.training.export import ExportedFiles, TrainedNetwork, export
from pipeline.training.lightning_module import SegmentationModule
from pipeline.training.run_config import TrainingConfig

_HEAD = "segmentation_head."
_RESUMED = {"state_dict", "epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers"}
"""What Lightning needs of a checkpoint to resume from it."""
_PANELS = {
    "loss": ("train_loss", "val_loss"),
    "validation, present classes": ("val_miou", "val_oa"),
    "learning rate": ("learning_rate",),
}


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """The figures and files of a training run."""

    trained: TrainedNetwork
    files: ExportedFiles
    """Written by the first process."""
    first_process: bool
    """True in the process that wrote the files."""


class _PatchLoaders(lightning.LightningDataModule):
    """Makes the data loaders, once processes know their rank."""

    def __init__(self, split: Split, recipe: Recipe, config: TrainingConfig) -> None:
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
        sampler = PatchSampler(len(patches), seed=seed, shuffle=training, rank=rank, world=world)
        return DataLoader(
            PatchDataset(patches, self.recipe, augment=augment, seed=seed),
            batch_size=self.config.batch,
            sampler=sampler,
            num_workers=self.config.loaders,
            persistent_workers=self.config.loaders > 0,
            pin_memory=torch.cuda.is_available(),
        )


class _Reporter(Callback):
    """Reports batches as progress, and each epoch with its losses as a message, in the first process."""

    def __init__(self, progress: Progress, on_message: OnMessage) -> None:
        self._progress, self._on_message = progress, on_message

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        epochs = (trainer.max_epochs or 0) - trainer.current_epoch
        self._progress.start(epochs * int(trainer.num_training_batches))

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self._progress.advance()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        found = trainer.callback_metrics
        named = {"train_loss": "training loss", "val_loss": "validation loss"}
        losses = ", ".join(f"{text} {found[name]:.4f}" for name, text in named.items() if name in found)
        self._on_message(f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {losses}")


def is_first_process() -> bool:
    """True in the process that reports; others train beside it."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def fit(
    config: TrainingConfig,
    out: Path,
    *,
    restart: bool = False,
    progress: Progress = SILENT,
    on_message: OnMessage = lambda _: None,
) -> TrainingResult:
    """Trains a network, or resumes training from the last epoch, and exports the epoch with the lowest val_loss.

    Args:
        config: everything that the weights depend on.
        out: folder for checkpoints, logs, figures and exported files.
        restart: start again even if there is a checkpoint.
        progress: counts batches up to the last epoch; training may stop before it.
        on_message: called with a line after each step and epoch.

    Raises:
        DeliveryError, SourceError: patches are missing, or cannot be read.
        WeightsError: the weights to start from, or the checkpoint to resume, cannot be loaded or do not fit.
        ConfigError: the configuration is not consistent.
        StorageError: `out` cannot be written.
    """
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)  # hides advertisements for services
    on_message = rank_zero_only(on_message)
    split = split_patches(config.data, seed=config.seed)
    on_message(f"{len(split.training)} patches for training, {len(split.validation)} for validation")
    recipe = _recipe(config, split)
    last = out / "checkpoints" / "last.ckpt"
    _refuse_links(last, last.with_name("best.ckpt"))
    resume = last.is_file() and not restart
    if resume:
        on_message(f"resuming from {last}")
    # Random first weights follow from the seed, so they are the same in every process.
    torch.manual_seed(config.seed)
    # A checkpoint to resume from replaces the first weights.
    network = build_network(recipe) if resume else _initial_network(recipe, config)
    module, data = SegmentationModule(network, recipe, config), _PatchLoaders(split, recipe, config)
    if resume:
        _check_checkpoint(last, module)
    each: dict[str, Any] = {
        "dirpath": out / "checkpoints",
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    best = ModelCheckpoint(filename="best", monitor="val_loss", **each)
    # `save_last` of the other callback would write only after an epoch that is the best.
    newest = ModelCheckpoint(filename="last", **each)
    stop = EarlyStopping("val_loss", patience=config.early_stopping, check_on_train_epoch_end=False)
    with warnings.catch_warnings():
        _ignore_lightning_advice()
        trainer = _trainer(config, out, callbacks=[stop, best, newest, _Reporter(progress, on_message)])
        trainer.fit(module, data, ckpt_path=str(last) if resume else None, weights_only=True)
        epochs = trainer.current_epoch
        trained = _evaluate_best(trainer, module, data, best=best, split=split, epochs=epochs)
    if trainer.is_global_zero:
        _draw_curves(out)
        export(out, network, module.criterion.weight, trained, config=config)  # type: ignore[arg-type]  # a Tensor
    return TrainingResult(trained, ExportedFiles.at(out, recipe.name), trainer.is_global_zero)


def _refuse_links(*checkpoints: Path) -> None:
    """Raises StorageError where Lightning would write through a link."""
    for path in checkpoints:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise StorageError(
                f"{path}: expected a file or nothing, found a link or a folder; delete it, then run again"
            )


def _check_checkpoint(last: Path, module: nn.Module) -> None:
    """Raises WeightsError where Lightning cannot resume from a checkpoint without running code from the file."""
    restart = "; `landcover train --restart` starts again without it"
    try:
        found = read_plain(last)
    except WeightsError as error:
        raise WeightsError(f"{error}{restart}") from error
    if not isinstance(found, dict) or not found.keys() >= _RESUMED or not isinstance(found["state_dict"], dict):
        raise WeightsError(
            f"{last}: expected a checkpoint of a training run, with {', '.join(sorted(_RESUMED))}{restart}"
        )
    if _shapes(found["state_dict"]) != _shapes(module.state_dict()):
        raise WeightsError(f"{last}: is of another network than the recipe of this run describes{restart}")


def _shapes(state: Mapping[str, Any]) -> dict[str, object]:
    return {name: getattr(tensor, "shape", None) for name, tensor in state.items()}


def _recipe(config: TrainingConfig, split: Split) -> Recipe:
    recipe = load_recipe(config.recipe, base=config.base).model_copy(update={"name": config.name, "temperature": 1.0})
    if config.data.normalise == "recipe":
        return recipe
    found = channel_statistics(split.training, bands=recipe.bands)
    mean = tuple(round(m, 2) for m in found.mean)
    return recipe.model_copy(update={"mean": mean, "std": tuple(round(max(s, 0.01), 2) for s in found.std)})


def _initial_network(recipe: Recipe, config: TrainingConfig) -> nn.Module:
    """The network before the first step."""
    start = config.start_weights
    network = build_network(recipe, imagenet=start == "imagenet")
    if start not in ("random", "imagenet"):
        tensors = read_weights(start, sha256=config.start.sha256)
        if config.start.head == "replace":
            own = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(_HEAD)}
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_HEAD)} | own
        load_tensors(Checkpoint(tensors), network, recipe, source=start)
    return network


def _trainer(config: TrainingConfig, out: Path, *, callbacks: list[Callback]) -> lightning.Trainer:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error.strerror}") from error
    many = config.devices * config.nodes > 1
    # Each start gets a new folder, because a logger empties its folder.
    start = f"start-{len(list(out.glob('logs/start-*'))):03d}"
    # The job script requeues the job, and there is a checkpoint after every epoch.
    slurm: Any = SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None
    return lightning.Trainer(
        accelerator="auto",
        strategy="ddp" if many else "auto",
        devices=config.devices,
        num_nodes=config.nodes,
        precision=config.precision,
        max_epochs=config.epochs,
        callbacks=callbacks,
        logger=[CSVLogger(out, name="logs", version=start), TensorBoardLogger(out, name="logs", version=start)],
        plugins=slurm,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=config.optimizer.clip,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        deterministic="warn" if torch.cuda.is_available() else None,
        benchmark=False,
    )


def _ignore_lightning_advice() -> None:
    """Ignores warnings of Lightning that do not apply here; call it inside `catch_warnings`."""
    for advice in (
        ".*srun. command is available.*",  # and is not needed
        ".*does not have many workers.*",  # their number is in the YAML
        ".*exists and is not empty.*",  # the run is resumed
        ".*sync_dist=True.*",  # figures are already summed over processes
        ".*LeafSpec.*",  # a deprecation inside torch
    ):
        warnings.filterwarnings("ignore", advice)


def _evaluate_best(
    trainer: lightning.Trainer,
    module: SegmentationModule,
    data: _PatchLoaders,
    *,
    best: ModelCheckpoint,
    split: Split,
    epochs: int,
) -> TrainedNetwork:
    """Loads the best epoch and measures its figures again, with the weights that are exported."""
    state: dict[str, Any] = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    # The logs are by epoch, and this validation is not part of one.
    trainer.loggers = []
    (found,) = trainer.validate(module, data, verbose=False)
    recipe = module.recipe
    if not module.confusion.any():
        raise ConfigError("no validation patch has a label of a live class, so nothing can be measured")
    evaluation = Evaluation(recipe.name, module.confusion, tuple(v - 1 for v in recipe.live), mode="present")
    return TrainedNetwork(
        recipe, evaluation, found["val_loss"], int(state["epoch"]), epochs, len(split.training), len(split.validation)
    )


def _draw_curves(out: Path) -> None:
    """Draws `curves.png` from the logged figures; of an epoch that was started twice, the last ones count."""
    # A start that was killed before its first epoch ended leaves an empty file.
    logs = [pd.read_csv(path) for path in sorted(out.glob("logs/start-*/metrics.csv")) if path.stat().st_size]
    by_epoch = pd.concat(logs).groupby("epoch").last()
    points = {name: list(by_epoch[name].dropna().items()) for name in by_epoch}
    write_bytes(out / "curves.png", figures.curves(points, _PANELS))
