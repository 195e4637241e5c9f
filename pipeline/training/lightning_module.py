"""The network while it learns: loss, optimiser, and a validation whose figures are those of `landcover evaluate`."""

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
from pipeline.training.dataset import IGNORE, Sample
from pipeline.training.run_config import Training

CLASSES = len(legend.FLAIR)


class _Nested(nn.Module):
    """Gives the network's tensors the names that FLAIR-INC files have: `model.seg_model.…`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.seg_model = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.seg_model(images))


class Segmentation(lightning.LightningModule):
    """A network under training; takes uint8 patches and normalises them itself.

    The loss is that of the whole step: its sum is divided by the labels' weights over all processes, so that gradients
    do not depend on how patches are dealt to processes.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, config: Training) -> None:
        super().__init__()
        self.recipe, self.config = recipe, config
        # Convolutions are a third faster in it, and maps are computed in it too.
        self.model = _Nested(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks it
        weights = torch.zeros(recipe.logits)
        for value in recipe.live:
            weights[value - 1] = config.class_weights.get(value, 1.0)
        self.criterion = nn.CrossEntropyLoss(weight=weights, ignore_index=IGNORE, reduction="sum")
        self.register_buffer("mean", torch.tensor(recipe.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(recipe.std).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("live", torch.tensor([v - 1 for v in recipe.live]), persistent=False)
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
        """(weighted sum of the cross-entropy, sum of the labels' weights), of this process."""
        counted = labels[labels != IGNORE]
        return self.criterion(logits.float(), labels), cast(torch.Tensor, self.criterion.weight)[counted].sum()

    def on_train_epoch_start(self) -> None:
        """Dropout, where there is any, follows from seed, epoch and process; batch normalisation stays frozen."""
        torch.manual_seed(
            int(np.random.SeedSequence((self.config.seed, self.current_epoch, self.global_rank)).generate_state(1)[0])
        )
        if self.config.freeze_batchnorm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001  # what all of them derive from
                    module.eval()

    def training_step(self, batch: Sample, _index: int) -> torch.Tensor:
        """The step's loss: the mean over all processes' labels."""
        pixels, labels = batch
        total, weight = self._loss(self(pixels), labels)
        everywhere = self._over_all(weight.detach()) / self.trainer.world_size
        # A step without a label has nothing to learn from, and must not divide by 0.
        loss = total / everywhere.clamp(min=torch.finfo(torch.float32).tiny)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(pixels))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begins a new count."""
        self._confusion.zero_()
        self._sums.zero_()

    def validation_step(self, batch: Sample, _index: int) -> None:
        """Adds to the confusion matrix and to the loss's sums; classes are of the live logits alone, as in maps."""
        pixels, labels = batch
        logits = self(pixels)
        total, weight = self._loss(logits, labels)
        self._sums += torch.stack([total, weight]).double()
        live = cast(torch.Tensor, self.live)
        predicted = live[logits.index_select(1, live).argmax(dim=1)]
        counted = labels != IGNORE
        pairs = labels[counted] * CLASSES + predicted[counted]
        self._confusion += torch.bincount(pairs, minlength=CLASSES**2).view(CLASSES, CLASSES)

    def on_validation_epoch_end(self) -> None:
        """Figures over all processes; the learning rate follows the loss before the checkpoint is written."""
        total, weight = self._over_all(self._sums)
        loss = (total / weight.clamp(min=1e-12)).float()
        self._confusion = self._over_all(self._confusion)
        found = scores(self.confusion, live=[v - 1 for v in self.recipe.live], mode="present")
        self.log("val_loss", loss, prog_bar=True)
        self.log("val_miou", torch.tensor(found["miou"]), prog_bar=True)
        self.log("val_oa", torch.tensor(found["oa"]))
        if self._schedule is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.log("learning_rate", torch.tensor(self._schedule.optimizer.param_groups[0]["lr"]))
            if isinstance(self._schedule, ReduceLROnPlateau):
                self._schedule.step(float(loss))

    def on_train_batch_end(self, *_: Any) -> None:
        """One cycle goes by steps."""
        if isinstance(self._schedule, OneCycleLR):
            self._schedule.step()

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Of the last validation: int64 (19, 19), rows truth."""
        matrix: NDArray[np.int64] = self._confusion.cpu().numpy()
        return matrix

    def _over_all(self, values: torch.Tensor) -> torch.Tensor:
        if self.trainer.world_size == 1:
            return values
        return cast(torch.Tensor, self.trainer.strategy.reduce(values.clone(), reduce_op="sum"))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser; the schedule is stepped here and not by Lightning, which would step it after saving."""
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
            # One step more than there are: it is asked for the rate after the last one too.
            steps = int(self.trainer.estimated_stepping_batches) + 1
            self._schedule = OneCycleLR(optimizer, max_lr=how.learning_rate, total_steps=steps, pct_start=0.2)
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The schedule's state goes with the weights."""
        if self._schedule is not None:
            checkpoint["schedule"] = self._schedule.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Kept until there is a schedule again."""
        self._restored = checkpoint.get("schedule")

    def on_fit_start(self) -> None:
        """The optimisers are there now."""
        if self._restored is not None and self._schedule is not None:
            self._schedule.load_state_dict(self._restored)
