"""The Lightning module: loss, optimizer, and a validation with the figures of `landcover evaluate`."""

from collections import OrderedDict
from typing import Any, cast

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from pipeline import legend
from pipeline.config import Recipe
from pipeline.evaluation import scores
from pipeline.training.dataset import IGNORED_LABEL, Sample
from pipeline.training.run_config import TrainingConfig

CLASSES = len(legend.FLAIR)


class SegmentationModule(lightning.LightningModule):
    """A network in training, which takes uint8 patches and normalises them.

    The loss is the mean over the whole step: its sum is divided by the weights of the labels of all processes, so the
    gradients do not depend on how patches are distributed.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, config: TrainingConfig) -> None:
        super().__init__()
        self.recipe, self.config = recipe, config
        # Tensors get the names in FLAIR-INC files: `model.seg_model.…`. Convolutions are a third faster in this layout,
        # which inference uses too.
        self.model = nn.Sequential(OrderedDict(seg_model=network)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks it
        weights = torch.zeros(recipe.logits)
        for value, logit in zip(recipe.live, recipe.live_logits, strict=True):
            weights[logit] = config.class_weights.get(value, 1.0)
        self.criterion = nn.CrossEntropyLoss(weight=weights, ignore_index=IGNORED_LABEL, reduction="sum")
        self.register_buffer("mean", torch.tensor(recipe.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(recipe.std).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("live", torch.tensor(recipe.live_logits), persistent=False)
        # Rows and columns of confusion matrices are FLAIR values from 1 on, whatever the order of the logits.
        self.register_buffer("rows", torch.tensor(recipe.flair_values) - 1, persistent=False)
        self._confusion: torch.Tensor
        self.register_buffer("_confusion", torch.zeros(CLASSES, CLASSES, dtype=torch.int64), persistent=False)
        self._sums: torch.Tensor
        self.register_buffer("_sums", torch.zeros(2, dtype=torch.float64), persistent=False)
        self._schedule: OneCycleLR | ReduceLROnPlateau | None = None
        self._restored: dict[str, Any] | None = None

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits (n, logits, y, x) of uint8 (n, band, y, x)."""
        mean, std = cast(torch.Tensor, self.mean), cast(torch.Tensor, self.std)
        images = ((pixels.float() - mean) / std).contiguous(memory_format=torch.channels_last)
        return cast(torch.Tensor, self.model(images))

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted sum of the cross-entropy, and sum of the labels' weights, in this process."""
        counted = labels[labels != IGNORED_LABEL]
        return self.criterion(logits.float(), labels), cast(torch.Tensor, self.criterion.weight)[counted].sum()

    def on_train_epoch_start(self) -> None:
        """Seeds dropout by seed, epoch and process, and freezes batch normalisation again."""
        torch.manual_seed(
            int(np.random.SeedSequence((self.config.seed, self.current_epoch, self.global_rank)).generate_state(1)[0])
        )
        if self.config.freeze_batchnorm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001  # the base class of all batch normalisations
                    module.eval()

    def training_step(self, batch: Sample, _index: int) -> torch.Tensor:
        """The loss of the step, averaged over the labels of all processes."""
        pixels, labels = batch
        total, weight = self._loss(self(pixels), labels)
        everywhere = self._sum_over_processes(weight.detach()) / self.trainer.world_size
        # In a step without labels the weight is 0.
        loss = total / everywhere.clamp(min=torch.finfo(torch.float32).tiny)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(pixels))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Resets the confusion matrix and the sums of the loss."""
        self._confusion.zero_()
        self._sums.zero_()

    def validation_step(self, batch: Sample, _index: int) -> None:
        """Adds a batch to the confusion matrix and to the sums of the loss; only live logits count, as in maps."""
        pixels, labels = batch
        logits = self(pixels)
        total, weight = self._loss(logits, labels)
        self._sums += torch.stack([total, weight]).double()
        live, rows = cast(torch.Tensor, self.live), cast(torch.Tensor, self.rows)
        predicted = live[logits.index_select(1, live).argmax(dim=1)]
        counted = labels != IGNORED_LABEL
        pairs = rows[labels[counted]] * CLASSES + rows[predicted[counted]]
        self._confusion += torch.bincount(pairs, minlength=CLASSES**2).view(CLASSES, CLASSES)

    def on_validation_epoch_end(self) -> None:
        """Logs the figures over all processes, and steps the learning rate before the checkpoint is written."""
        total, weight = self._sum_over_processes(self._sums)
        loss = (total / weight.clamp(min=1e-12)).float()
        self._confusion = self._sum_over_processes(self._confusion)
        found = scores(self.confusion, live=[v - 1 for v in self.recipe.live], mode="present")
        self.log("val_loss", loss, prog_bar=True)
        self.log("val_miou", torch.tensor(found["miou"]), prog_bar=True)
        self.log("val_oa", torch.tensor(found["oa"]))
        if self._schedule is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.log("learning_rate", torch.tensor(self._schedule.optimizer.param_groups[0]["lr"]))
            if isinstance(self._schedule, ReduceLROnPlateau):
                self._schedule.step(float(loss))

    def on_train_batch_end(self, *_: Any) -> None:
        """Steps the one-cycle schedule, which has a value for each step."""
        if isinstance(self._schedule, OneCycleLR):
            self._schedule.step()

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Confusion matrix of the last validation: int64 (truth, prediction), 19 × 19."""
        matrix: NDArray[np.int64] = self._confusion.cpu().numpy()
        return matrix

    def _sum_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.trainer.strategy.reduce(values.clone(), reduce_op="sum"))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Makes the optimizer, and a schedule that Lightning must not step: it would step it after a checkpoint."""
        how, parameters = self.config.optimizer, [p for p in self.parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer
        if how.name == "sgd":
            optimizer = torch.optim.SGD(
                parameters, lr=how.learning_rate, momentum=how.momentum, weight_decay=how.weight_decay
            )
        else:
            optimizer = torch.optim.AdamW(parameters, lr=how.learning_rate, weight_decay=how.weight_decay)
        if how.schedule == "plateau":
            rule = self.config.plateau.model_dump()
            self._schedule = ReduceLROnPlateau(optimizer, mode="min", **rule)
        else:
            # One more than there are, because the schedule is also stepped after the last step.
            steps = int(self.trainer.estimated_stepping_batches) + 1
            self._schedule = OneCycleLR(optimizer, max_lr=how.learning_rate, total_steps=steps, pct_start=0.2)
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves the state of the schedule."""
        if self._schedule is not None:
            checkpoint["schedule"] = self._schedule.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the saved state until the schedule exists."""
        self._restored = checkpoint.get("schedule")

    def on_fit_start(self) -> None:
        """Restores the state of the schedule, which exists now."""
        if self._restored is not None and self._schedule is not None:
            self._schedule.load_state_dict(self._restored)
