"""One trial: build, train, score. Its throughput was measured before, in quiet, and is handed in."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from lightning_modules.data import Data
from lightning_modules.fit import fit
from lightning_modules.recipe import Recipe
from search.measurements import speed_of
from search.plan import Job
from search.predictions import pack
from space.build import build_paired


def evaluate(
    job: Job,
    *,
    data: Data | None,
    recipe: Recipe,
    throughput: dict[str, Any],
    device: str,
    workdir: Path,
    on_epoch: Callable[[list[dict[str, float]]], None] | None = None,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train the job's network on `data` and return the trial's record; without data, train nothing.

    The result depends on the arguments alone: weights and everything drawn in training come from the job's seed.
    Weights that the network shares with the one it is `paired_with` start the same, data come in the same order.
    A training that was killed goes on from its file `checkpoint`, to the same result.
    Raises TrainingFailed for a loss that is not finite, torch.OutOfMemoryError where memory runs out.
    """
    started = time.perf_counter()
    record: dict[str, Any] = {"throughput": throughput}
    if data is not None:
        pl.seed_everything(job.seed, verbose=False)
        network, shared = build_paired(job.architecture, job.paired_with)
        result = fit(
            network,
            data,
            recipe,
            seed=job.seed,
            workdir=workdir,
            device=device,
            on_epoch=on_epoch,
            checkpoint=checkpoint,
        )
        record |= {
            "val_accuracy": result.val_accuracy,
            "val_images": len(data.val),  # type: ignore[arg-type]
            "val_top5": result.val_top5,
            "test_accuracy": result.test_accuracy,
            "test_top5": result.test_top5,
            "test_correct": pack(result.test_correct),
            "shared_start": shared,
            "best_epoch": result.best_epoch,
            "curves": result.curves,
        }
        train_seconds = result.seconds
    else:
        train_seconds = 0.0
    record["seconds"] = {"train": train_seconds, "total": time.perf_counter() - started}
    return record


def values(record: dict[str, Any]) -> list[float]:
    """Return the objectives of a record: validation accuracy, where trained, and training throughput."""
    throughput = speed_of(record["throughput"])
    accuracy = record.get("val_accuracy")
    found = [throughput] if accuracy is None else [accuracy, throughput]
    assert all(map(math.isfinite, found))
    return found
