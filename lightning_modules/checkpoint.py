"""Checkpoints from which a killed training goes on, and comes to the same bits as if it had not been killed."""

import logging
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from space.errors import first_line

PART = ".part"
log = logging.getLogger(__name__)


class Keeper(pl.callbacks.Checkpoint):
    """Saves the training to `path` at the end of an epoch, `every` so many seconds at most, the last epoch left out.

    A file appears whole or not at all. One that cannot be written, as on a full disk, is told once and done without.
    """

    def __init__(self, path: Path, every: float) -> None:
        self.path, self.every = path, every
        self.saved, self.able = time.monotonic(), True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        last = trainer.max_epochs is not None and trainer.current_epoch + 1 >= trainer.max_epochs
        if last or not self.able or time.monotonic() - self.saved < self.every:
            return
        part = self.path.with_suffix(f".{os.getpid()}{PART}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError where a file cannot be written
            part.unlink(missing_ok=True)
            self.able = False
            log.warning("no checkpoint can be written to %s: %s", self.path, first_line(error))
        self.saved = time.monotonic()


def completed_epochs(path: Path) -> int:
    """Return how many epochs a checkpoint has behind it; 0 where there is none that can be read, and remove that."""
    if not path.is_file():
        return 0
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True)["epoch"]) + 1
    except Exception as error:
        log.warning("%s cannot be read, so training begins anew: %s", path, first_line(error))
        path.unlink()
        return 0


def remove(path: Path) -> None:
    """Remove a checkpoint that is not needed any more, and what those left who were killed while they wrote it."""
    for file in (path, *path.parent.glob(f"{path.stem}.*{PART}")):
        file.unlink(missing_ok=True)


def random_state() -> dict[str, Any]:
    """Return the state of all generators of random numbers, as what `weights_only` loads."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *map(float, rest)],
        "python": [list(part) if isinstance(part, tuple) else part for part in random.getstate()],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set all generators to a state that `random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), int(position), int(has_gauss), gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
