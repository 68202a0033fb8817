import pytest

from lightning_modules.precision import resolve_device
from lightning_modules.recipe import Recipe, recipe
from space.errors import InputError


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_the_papers_recipe(size: str) -> None:
    """arXiv 2303.16900, Table 9; the rest from the authors' train.py."""
    paper = recipe(f"inceptionnext_{size}")
    assert (paper.epochs, paper.cooldown_epochs, paper.total_epochs) == (300, 10, 310)
    assert (paper.batch_size, paper.batch_size // paper.accumulate) == (4096, 128)
    assert (paper.optimizer, paper.lr, paper.weight_decay) == ("adamw", 4e-3, 0.05)
    assert (paper.schedule, paper.warmup_epochs, paper.warmup_lr, paper.min_lr) == ("cosine", 20, 1e-6, 1e-5)
    assert (paper.label_smoothing, paper.mixup, paper.cutmix, paper.mixup_switch_prob) == (0.1, 0.8, 1.0, 0.5)
    assert (paper.auto_augment, paper.random_erasing, paper.color_jitter) == ("rand-m9-mstd0.5-inc1", 0.25, 0.4)
    assert paper.random_resized_crop is not None
    assert (paper.random_resized_crop.scale, paper.random_resized_crop.ratio) == ((0.08, 1.0), (0.75, 1.3333))
    assert (paper.ema_decay, paper.precision, paper.eval_crop) == (None, "fp32", 0.875)


def test_attos_and_the_fine_tunings_recipe() -> None:
    atto, fine = recipe("inceptionnext_atto"), recipe("inceptionnext_base_384")
    assert (atto.epochs, atto.batch_size, atto.lr, atto.warmup_epochs, atto.mixup) == (450, 1280, 1e-3, 5, 0.2)
    assert (atto.random_erasing, atto.auto_augment) == (0.1, "rand-m5-inc1-mstd101")
    assert (fine.epochs, fine.batch_size, fine.lr, fine.ema_decay, fine.eval_crop) == (30, 1024, 5e-5, 0.9999, 1.0)


def test_an_unknown_recipe_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown recipe 'labtop', did you mean 'laptop'\?"):
        recipe("labtop")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"optimizer": "adamm"}, "unknown optimizer, did you mean 'adam"),
        ({"lr": 0}, "greater than 0"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"batch_size": 10, "accumulate": 4}, "batch_size 10 is not divided by accumulate 4"),
        ({"epochs": 3, "warmup_epochs": 3}, "warmup_epochs 3 leaves nothing of 3 epochs"),
        ({"precision": "fp8"}, "'fp32', 'tf32', 'bf16' or 'fp16'"),
        ({"ema_decay": 1.0}, "less than 1"),
        ({"label_smoothing": 1.0}, "less than 1"),
        ({"momentum": 0.9}, "Extra inputs"),
    ],
)
def test_a_wrong_value_is_told(fields: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Recipe(**fields)


def test_a_device_that_is_absent_is_told() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda")
    with pytest.raises(InputError, match="device 'cuda:99' is not on this machine; allowed: auto, cpu"):
        resolve_device("cuda:99")
