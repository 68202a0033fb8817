"""The LightningModule: one network, its loss, optimiser, schedule and metrics."""

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from lightning_modules.checkpoint import random_state, set_random_state
from lightning_modules.loaders import Batch
from lightning_modules.recipe import Recipe

Row = dict[str, float]


class TrainingFailed(RuntimeError):
    """Training came to a loss that is not finite; says where."""


class Classifier(pl.LightningModule):
    """Trains a network by a recipe and keeps the weights of the best epoch by validation accuracy.

    After each epoch `curves` has one more row: epoch (from 1), lr, train_loss, val_loss, val_accuracy (percent), and
    `on_epoch` is given all of them. What it raises ends the training.
    With an EMA it is the averaged network that is evaluated and kept.

    Raises TrainingFailed for a loss that is not finite: on the CPU at once, on a GPU at the end of the epoch,
    where asking costs no wait.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        num_classes: int,
        updates_per_epoch: int,
        on_epoch: Callable[[list[Row]], None] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe
        self.updates_per_epoch, self.on_epoch = updates_per_epoch, on_epoch
        self.ema = ModelEmaV3(network, decay=recipe.ema_decay) if recipe.ema_decay is not None else None
        # Not a submodule of its own, so that every weight has one name.
        self.call = torch.compile(network) if recipe.compile else network.__call__
        self.mixup = _mixup(recipe, num_classes)
        self.soft_loss = SoftTargetCrossEntropy()
        self.top1 = MulticlassAccuracy(num_classes, average="micro")
        self.top5 = MulticlassAccuracy(num_classes, average="micro", top_k=5) if num_classes > 5 else None
        self.curves: list[Row] = []
        self._random: dict[str, Any] | None = None
        self.best: dict[str, Any] = {"epoch": 0, "accuracy": -math.inf, "top5": None, "state": {}}
        self.train_loss, self.train_batches = torch.zeros(()), 0
        self.eval_loss, self.eval_images = torch.zeros(()), 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return timm's optimiser: norms, biases and layer scales get no weight decay."""
        recipe = self.recipe
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            self.network, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        if recipe.schedule == "cosine":
            self.schedule, _ = create_scheduler_v2(
                optimizer,
                sched="cosine",
                num_epochs=recipe.epochs,
                warmup_epochs=recipe.warmup_epochs,
                warmup_lr=recipe.warmup_lr,
                min_lr=recipe.min_lr,
                cooldown_epochs=recipe.cooldown_epochs,
                step_on_epochs=False,
                updates_per_epoch=self.updates_per_epoch,
            )
            self.schedule.step_update(0)
        return optimizer

    def on_train_epoch_start(self) -> None:
        self.train_loss, self.train_batches = torch.zeros((), device=self.device), 0

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        images, labels = batch
        if self.mixup is not None:
            images, soft = self.mixup(images, labels)
            loss: torch.Tensor = self.soft_loss(self.call(images), soft)
        else:
            loss = cross_entropy(self.call(images), labels, label_smoothing=self.recipe.label_smoothing)
        self.train_loss += loss.detach()
        self.train_batches += 1
        if self.device.type == "cpu":
            self._check_finite(f"step {index + 1}")
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        if (index + 1) % self.recipe.accumulate == 0 or index + 1 == self.trainer.num_training_batches:
            if self.recipe.schedule == "cosine":
                self.schedule.step_update(self.global_step)
            if self.ema is not None:
                self.ema.update(self.network, step=self.global_step)

    def validation_step(self, batch: Batch, index: int) -> None:
        self._score(batch)

    def on_test_epoch_start(self) -> None:
        self.correct: list[torch.Tensor] = []

    def test_step(self, batch: Batch, index: int) -> None:
        logits = self._score(batch)
        self.correct.append((logits.argmax(1) == batch[1]).cpu())

    def on_validation_epoch_end(self) -> None:
        self._check_finite("its end")
        accuracy, top5, loss = self.scores()
        row = {
            "epoch": float(self.current_epoch + 1),
            "lr": float(self.trainer.optimizers[0].param_groups[0]["lr"]),
            "train_loss": float(self.train_loss) / max(1, self.train_batches),
            "val_loss": loss,
            "val_accuracy": accuracy,
        }
        self.curves.append(row)
        if accuracy > self.best["accuracy"]:
            state = {name: value.detach().clone() for name, value in self.evaluated.state_dict().items()}
            self.best = {"epoch": self.current_epoch + 1, "accuracy": accuracy, "top5": top5, "state": state}
        if self.on_epoch is not None:
            self.on_epoch(self.curves)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["workbench"] = {"curves": self.curves, "best": self.best, "random": random_state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["workbench"]
        self.curves, self.best, self._random = kept["curves"], kept["best"], kept["random"]

    def on_fit_start(self) -> None:
        # Right before the first batches are drawn, as it was at the end of the epoch before.
        if self._random is not None:
            set_random_state(self._random)

    @property
    def evaluated(self) -> nn.Module:
        """The network whose accuracy counts: the averaged one where there is an EMA."""
        module: nn.Module = self.network if self.ema is None else self.ema.module
        return module

    def scores(self) -> tuple[float, float | None, float]:
        """Return top-1 and top-5 accuracy in percent and the mean loss of the batches scored, and start anew."""
        top1 = _percent(self.top1)
        top5 = _percent(self.top5) if self.top5 is not None else None
        loss = float(self.eval_loss) / self.eval_images
        self.top1.reset()
        if self.top5 is not None:
            self.top5.reset()
        self.eval_loss, self.eval_images = torch.zeros(()), 0
        return top1, top5, loss

    def _score(self, batch: Batch) -> torch.Tensor:
        images, labels = batch
        logits: torch.Tensor = self.call(images) if self.ema is None else self.ema.module(images)
        self.eval_loss = self.eval_loss.to(logits.device) + cross_entropy(logits, labels, reduction="sum").detach()
        self.eval_images += len(labels)
        self.top1.update(logits, labels)
        if self.top5 is not None:
            self.top5.update(logits, labels)
        return logits

    def _check_finite(self, where: str) -> None:
        if not math.isfinite(float(self.train_loss)):
            raise TrainingFailed(
                f"the loss is not finite ({float(self.train_loss)}) in epoch {self.current_epoch + 1} at {where}"
            )


def _percent(metric: MulticlassAccuracy) -> float:
    return round(100 * float(metric.compute()), 4)


def _mixup(recipe: Recipe, num_classes: int) -> Mixup | None:
    if recipe.mixup == 0 and recipe.cutmix == 0:
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mixup_prob,
        switch_prob=recipe.mixup_switch_prob,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )
