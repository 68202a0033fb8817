import copy
import math
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_modules.classifier import Classifier
from lightning_modules.data import Data, DigitPairs
from lightning_modules.fit import FitResult, TrainingFailed, fit
from lightning_modules.loaders import MemoryLoader, eval_loader
from lightning_modules.recipe import Recipe
from space import Architecture, build

DATA = DigitPairs(train_size=96, val_size=48, test_size=50).load()
SHORT = Recipe(epochs=3, batch_size=32, warmup_epochs=1)


def network(seed: int = 0, **fields: object) -> nn.Module:
    torch.manual_seed(seed)
    small = {"in_channels": 1, "num_classes": 5, "patch_size": 4, "depths": [1], "widths": [8], "mlp_ratios": 1}
    return build(Architecture.parse(small | {"mixers": {"kind": "identity"}, "layer_scale": 1.0} | fields))


def trained(tmp_path: Path, recipe: Recipe = SHORT, seed: int = 0, data: Data = DATA) -> tuple[FitResult, nn.Module]:
    model = network()
    return fit(model, data, recipe, seed=seed, workdir=tmp_path, device="cpu"), model


def accuracy(model: nn.Module, split: TensorDataset) -> float:
    images, labels = split.tensors
    with torch.no_grad():
        return round(100 * float((model.eval()(images).argmax(1) == labels).float().mean()), 4)


@pytest.mark.parametrize("recipe", [SHORT, SHORT.model_copy(update={"mixup": 0.8, "cutmix": 1.0, "ema_decay": 0.9})])
def test_the_same_seed_gives_the_same_bits(tmp_path: Path, recipe: Recipe) -> None:
    first, weights = trained(tmp_path, recipe)
    torch.rand(3)  # whatever the global generator went through
    second, again = trained(tmp_path, recipe)
    assert first.curves == second.curves
    assert (first.val_accuracy, first.test_accuracy) == (second.val_accuracy, second.test_accuracy)
    for (name, value), other in zip(weights.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    other_seed, _ = trained(tmp_path, recipe, seed=1)
    assert other_seed.curves != first.curves


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_epoch_is_kept_and_scored(tmp_path: Path, ema: float | None) -> None:
    result, model = trained(tmp_path, SHORT.model_copy(update={"ema_decay": ema, "lr": 0.05}))
    best = max(result.curves, key=lambda row: row["val_accuracy"])
    assert result.best_epoch == best["epoch"]
    assert result.val_accuracy == best["val_accuracy"] == accuracy(model, DATA.val)
    assert result.test_accuracy == accuracy(model, DATA.test)
    images, labels = DATA.test.tensors
    right = model.eval()(images).argmax(1) == labels
    assert result.test_correct.tolist() == right.tolist()
    assert result.val_top5 is None
    assert [row["epoch"] for row in result.curves] == [1, 2, 3]


def test_top5_is_given_for_more_than_five_classes(tmp_path: Path) -> None:
    data = DigitPairs(train_size=64, val_size=32, test_size=32, classes=10).load()
    result = fit(network(num_classes=10), data, SHORT, seed=0, workdir=tmp_path, device="cpu")
    assert result.val_top5 is not None
    assert result.val_top5 >= result.val_accuracy


def test_a_loss_that_is_not_finite_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"the loss is not finite \((nan|inf)\) in epoch \d+ at step \d+"):
        trained(tmp_path, SHORT.model_copy(update={"lr": 1e30, "warmup_epochs": 0}))


def test_an_interruption_comes_through(tmp_path: Path) -> None:
    def interrupt(rows: list[dict[str, float]]) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), DATA, SHORT, seed=0, workdir=tmp_path, device="cpu", on_epoch=interrupt)
    assert signal.getsignal(signal.SIGINT) is before


def test_training_is_silent_and_leaves_nothing_behind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_norms_and_biases_are_not_decayed() -> None:
    model = network()
    optimizer = Classifier(model, SHORT, 5, updates_per_epoch=3).configure_optimizers()
    decayed = [p for group in optimizer.param_groups if group["weight_decay"] > 0 for p in group["params"]]
    kept = [p for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]]
    assert all(parameter.ndim > 1 for parameter in decayed)
    assert all(parameter.ndim <= 1 for parameter in kept)
    assert len(decayed) + len(kept) == len(list(model.parameters()))


def test_the_learning_rate_warms_up_and_follows_a_cosine(tmp_path: Path) -> None:
    recipe = Recipe(
        epochs=5, batch_size=32, warmup_epochs=2, lr=0.01, warmup_lr=0.001, min_lr=0.0001, cooldown_epochs=1
    )
    result, _ = trained(tmp_path, recipe)
    rates = [row["lr"] for row in result.curves]
    assert len(rates) == 6
    assert rates[0] == pytest.approx(0.001 + (0.01 - 0.001) / 2)
    for epoch in (2, 3, 4):
        cosine = 0.0001 + (0.01 - 0.0001) * (1 + math.cos(math.pi * epoch / 5)) / 2
        assert rates[epoch - 1] == pytest.approx(cosine)
    assert rates[4:] == [pytest.approx(0.0001)] * 2


def test_accumulated_steps_are_the_large_batchs(tmp_path: Path) -> None:
    start = network(norm="layer_norm", layer_scale=None)
    results = []
    for accumulate in (1, 4):
        model = copy.deepcopy(start)
        recipe = Recipe(epochs=2, batch_size=32, accumulate=accumulate, optimizer="sgd", lr=0.1, warmup_epochs=0)
        fit(model, DATA, recipe, seed=0, workdir=tmp_path, device="cpu")
        results.append(model.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fields", [{"precision": "bf16"}, {"precision": "tf32"}, {"memory_format": "contiguous"}])
def test_other_arithmetic_runs_and_is_switched_back(tmp_path: Path, fields: dict[str, str]) -> None:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision(), torch.backends.cudnn.deterministic
    result, _ = trained(tmp_path, SHORT.model_copy(update=fields))
    assert all(math.isfinite(row["train_loss"]) for row in result.curves)
    after = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision(), torch.backends.cudnn.deterministic
    assert after == before


def loader(recipe: Recipe, seed: int | None = 0, n: int = 50) -> MemoryLoader:
    images = torch.arange(n).float().view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone()
    images[:, :, 0, 0] = 1000.0
    return MemoryLoader(TensorDataset(images, torch.arange(n)), 16, recipe, "cpu", seed)


def test_each_image_comes_once_an_epoch_in_a_new_order() -> None:
    batches = loader(SHORT)
    epochs = [torch.cat([labels for _, labels in batches]).tolist() for _ in range(3)]
    assert all(len(set(epoch)) == len(epoch) == 48 for epoch in epochs)  # the last two of 50 make no batch
    assert epochs[0] != epochs[1] != epochs[2]
    assert torch.cat([labels for _, labels in loader(SHORT)]).tolist() == epochs[0]
    assert torch.cat([labels for _, labels in loader(SHORT, seed=1)]).tolist() != epochs[0]
    for images, labels in loader(SHORT):
        assert torch.equal(images[:, 0, 4, 4].long(), labels)


def test_evaluation_keeps_order_and_every_image() -> None:
    batches = list(eval_loader(DATA, DATA.test, SHORT, "cpu"))
    assert torch.equal(torch.cat([labels for _, labels in batches]), DATA.test.tensors[1])
    whole = list(loader(SHORT, seed=None))
    assert [len(labels) for _, labels in whole] == [16, 16, 16, 2]


def test_flips_and_shifts_move_the_corner_as_they_say() -> None:
    flipped = torch.cat([images for images, _ in loader(Recipe(hflip=1.0))])
    assert (flipped[:, 0, 0, 7] == 1000).all()
    shifted = torch.cat([images for images, _ in loader(Recipe(shift=2), n=160)])[:, 0]
    corner = [tuple(torch.nonzero(image == 1000)[0].tolist()) for image in shifted if (image == 1000).any()]
    assert set(corner) == {(row, column) for row in range(3) for column in range(3)}
    assert 0.2 < len(corner) / len(shifted) < 0.55  # (3/5)², the rest moved out of the picture


def test_erasing_changes_a_part_of_the_images() -> None:
    erased = torch.cat([images for images, _ in loader(Recipe(random_erasing=1.0))])
    plain = torch.cat([images for images, _ in loader(Recipe())])
    differ = (erased != plain).flatten(1).any(1)
    assert differ.float().mean() > 0.9
