"""Trainings that are killed for real, and go on."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightning_modules import checkpoint
from lightning_modules.data import Data, DigitPairs, TimmData
from lightning_modules.fit import FitResult, fit
from lightning_modules.recipe import Recipe
from space import Architecture, build

PLAIN = Recipe(epochs=4, batch_size=16, warmup_epochs=1, workers=0)
FULL = PLAIN.model_copy(
    update={"mixup": 0.8, "cutmix": 1.0, "ema_decay": 0.9, "random_erasing": 0.5, "shift": 2, "accumulate": 2}
)
SMALL = {
    "num_classes": 5,
    "patch_size": 4,
    "depths": [2],
    "widths": [8],
    "mlp_ratios": 1,
    "mixers": {"kind": "identity"},
}


def network(data: Data) -> nn.Module:
    torch.manual_seed(0)
    fields = SMALL | {"in_channels": data.in_channels, "num_classes": data.num_classes, "drop_path": 0.3}
    return build(Architecture.parse(fields))


def pairs(folder: Path) -> Data:
    return DigitPairs(train_size=96, val_size=48, test_size=50).load()


def files(folder: Path) -> Data:
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        for label in range(3):
            (folder / split / str(label)).mkdir(parents=True, exist_ok=True)
            for number in range(16):
                pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / str(label) / f"{number}.png")
    return TimmData(root=str(folder), num_classes=3, resolution=16, val_share=0.2).load()


def trained(data: Data, recipe: Recipe, folder: Path, kill_after: int | None = None) -> tuple[FitResult, nn.Module]:
    """Train with a checkpoint an epoch; with `kill_after`, end the process in that epoch."""

    def on_epoch(rows: list[dict[str, float]]) -> None:
        if rows[-1]["epoch"] == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    model = network(data)
    kept = folder / "kept.ckpt"
    result = fit(model, data, recipe, seed=3, workdir=folder, device="cpu", on_epoch=on_epoch, checkpoint=kept, every=0)
    return result, model


def killed(data: Data, recipe: Recipe, folder: Path, after: int) -> None:
    process = multiprocessing.get_context("fork").Process(target=trained, args=(data, recipe, folder, after))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    "recipe", [PLAIN, FULL, PLAIN.model_copy(update={"precision": "bf16"})], ids=["plain", "full", "bf16"]
)
@pytest.mark.parametrize("load", [pairs, files])
def test_a_killed_training_comes_to_the_same_bits(tmp_path: Path, recipe: Recipe, load: object) -> None:
    assert callable(load)
    data = load(tmp_path)
    whole, weights = trained(data, recipe, tmp_path)
    killed(data, recipe, tmp_path, after=2)
    killed(data, recipe, tmp_path, after=4)
    assert (tmp_path / "kept.ckpt").is_file()
    resumed, again = trained(data, recipe, tmp_path)
    assert resumed.curves == whole.curves
    assert (resumed.best_epoch, resumed.test_accuracy) == (whole.best_epoch, whole.test_accuracy)
    assert np.array_equal(resumed.test_correct, whole.test_correct)
    for (name, value), other in zip(weights.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    assert list(tmp_path.glob("*.ckpt")) == []
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize("left", [0, 100, 0.5])
def test_what_a_power_cut_left_of_a_checkpoint_is_not_believed(
    tmp_path: Path, left: float, caplog: pytest.LogCaptureFixture
) -> None:
    data = pairs(tmp_path)
    whole, _ = trained(data, PLAIN, tmp_path)
    killed(data, PLAIN, tmp_path, after=3)
    kept = tmp_path / "kept.ckpt"
    with kept.open("rb+") as file:
        file.truncate(int(left if left >= 1 else left * kept.stat().st_size))
    again, _ = trained(data, PLAIN, tmp_path)
    assert "cannot be read, so training begins anew" in caplog.text
    assert again.curves == whole.curves


def test_a_full_disk_costs_the_checkpoint_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = pairs(tmp_path)
    whole, _ = trained(data, PLAIN, tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    result, _ = trained(data, PLAIN, tmp_path)
    assert caplog.text.count("no checkpoint can be written to") == 1
    assert "No space left on device" in caplog.text
    assert result.curves == whole.curves
    assert list(tmp_path.glob("kept*")) == []


def test_a_checkpoint_runs_no_code_when_it_is_read(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "evil"),))

    torch.save({"epoch": 1, "evil": Evil()}, tmp_path / "kept.ckpt")
    assert checkpoint.completed_epochs(tmp_path / "kept.ckpt") == 0
    assert not (tmp_path / "evil").exists()
