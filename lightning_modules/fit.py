"""Train one network and score it once on the test split."""

import gc
import logging
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import nn

from lightning_modules.checkpoint import Keeper, completed_epochs, remove
from lightning_modules.classifier import Classifier, Row, TrainingFailed
from lightning_modules.data import Data
from lightning_modules.data.timm_data import UnreadableImage
from lightning_modules.loaders import MemoryLoader, eval_loader, train_loader
from lightning_modules.precision import FORMATS, arithmetic, resolve_device
from lightning_modules.recipe import Recipe
from space.errors import InputError, first_line

__all__ = ["FitResult", "LoaderDied", "TrainingFailed", "fit"]

CHECKPOINT_SECONDS = 60.0
PLUGINS = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class FitResult:
    """What came of a training; accuracies in percent, top-5 None for five classes or fewer.

    The epoch is chosen on the validation split; the test split is scored once, with that epoch's weights,
    which the network then holds. `test_correct` says, image by image in the split's order, what was right.
    """

    val_accuracy: float
    val_top5: float | None
    test_accuracy: float
    test_top5: float | None
    test_correct: NDArray[np.bool_]
    best_epoch: int
    curves: list[Row]
    seconds: float


def fit(
    network: nn.Module,
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    workdir: Path,
    device: str = "auto",
    on_epoch: Callable[[list[Row]], None] | None = None,
    checkpoint: Path | None = None,
    every: float = CHECKPOINT_SECONDS,
) -> FitResult:
    """Train `network` in place. All that is drawn comes from `seed`: the same seed and machine, the same bits.

    Where the file `checkpoint` is there, training goes on from it, to the same bits again (but not with workers
    that load images, whose random numbers are their own). It is written every so many seconds, and removed in the end.

    Raises TrainingFailed for a loss that is not finite, torch.OutOfMemoryError where memory runs out, InputError for an
    image that cannot be read, LoaderDied for a process of a loader that is killed, and KeyboardInterrupt where a person
    interrupts.
    """
    started = time.perf_counter()
    device = resolve_device(device)
    if recipe.workers:
        gc.collect()  # a loader's process is a copy of this one, and must not find what an earlier one left to collect
    pl.seed_everything(seed, workers=True, verbose=False)
    network.to(device, memory_format=FORMATS[recipe.memory_format])  # type: ignore[call-overload]
    loader = train_loader(data, recipe, seed, device)
    done = completed_epochs(checkpoint) if checkpoint is not None else 0
    if isinstance(loader, MemoryLoader):
        loader.epoch = done
    updates = -(-len(loader) // recipe.accumulate)  # type: ignore[arg-type]
    module = Classifier(network, recipe, data.num_classes, updates, on_epoch)
    with _quiet(), arithmetic(recipe.precision), _deterministic():
        trainer = pl.Trainer(
            max_epochs=recipe.total_epochs,
            accelerator="gpu" if torch.device(device).type == "cuda" else "cpu",
            devices=[torch.device(device).index or 0] if torch.device(device).type == "cuda" else 1,
            precision=PLUGINS[recipe.precision],  # type: ignore[arg-type]
            accumulate_grad_batches=recipe.accumulate,
            default_root_dir=workdir,
            logger=False,
            enable_checkpointing=checkpoint is not None,
            callbacks=[Keeper(checkpoint, every)] if checkpoint is not None else [],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        val, test = (eval_loader(data, split, recipe, device) for split in (data.val, data.test))
        if not data.in_memory and not done:
            # An image that cannot be read is found now, not after the training.
            _run(lambda: deque(test, maxlen=0))
        resume = str(checkpoint) if done else None
        _run(lambda: trainer.fit(module, loader, val, ckpt_path=resume, weights_only=True))
        module.evaluated.load_state_dict(module.best["state"])
        module.to(device)
        _run(lambda: trainer.test(module, test, verbose=False))
        test_accuracy, test_top5, _ = module.scores()
    network.load_state_dict(module.best["state"])
    if checkpoint is not None:
        remove(checkpoint)
    return FitResult(
        val_accuracy=module.best["accuracy"],
        val_top5=module.best["top5"],
        test_accuracy=test_accuracy,
        test_top5=test_top5,
        test_correct=torch.cat(module.correct).numpy(),
        best_epoch=module.best["epoch"],
        curves=module.curves,
        seconds=time.perf_counter() - started,
    )


class LoaderDied(RuntimeError):
    """A process that loads images was killed: no fault of the network that was trained."""


def _run(stage: Callable[[], object]) -> None:
    """Run a stage of the trainer; an interruption comes out as the KeyboardInterrupt it was.

    Lightning exits the process instead, and leaves Ctrl-C switched off. What a loader's process raised comes out as if
    raised here.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        stage()
    except SystemExit as error:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error
    except UnreadableImage as error:
        raise InputError(str(error).strip().splitlines()[-1].rpartition("UnreadableImage: ")[2]) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise LoaderDied(first_line(error)) from error


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice on devices and loaders out of the progress display."""
    names = ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torchmetrics)\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
