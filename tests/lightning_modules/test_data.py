import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter

from lightning_modules.data import Alignment, Data, DataConfig, DigitPairs, Digits, Pathfinder, TimmData
from lightning_modules.data.digits import split_digits
from lightning_modules.fit import fit
from lightning_modules.recipe import Recipe
from space import Architecture, build
from space.errors import InputError

SMALL = {"train_size": 60, "val_size": 40, "test_size": 20}
IN_MEMORY = [Digits(), DigitPairs(**SMALL), Alignment(**SMALL), Pathfinder(**SMALL)]


@pytest.mark.parametrize("config", IN_MEMORY, ids=lambda config: config.name)
def test_a_set_in_memory_is_what_its_config_says(config: DigitPairs) -> None:
    torch.manual_seed(1)
    data = config.load()
    torch.manual_seed(2)
    again = config.load()
    assert (len(data.train), len(data.val), len(data.test)) == config.sizes
    for split in ("train", "val", "test"):
        images, labels = getattr(data, split).tensors
        assert images.shape[1:] == (config.in_channels, config.resolution, config.resolution)
        assert images.dtype == torch.float32
        assert set(labels.tolist()) <= set(range(config.num_classes))
        # The same to the bit, whatever the global generator did.
        assert torch.equal(images, getattr(again, split).tensors[0])
        assert torch.equal(labels, getattr(again, split).tensors[1])
    images = data.train.tensors[0]
    assert abs(float(images.mean())) < 1e-4
    assert abs(float(images.std()) - 1) < 1e-3
    assert TypeAdapter(DataConfig).validate_python(config.model_dump(mode="json")) == config


def test_another_seed_draws_other_images() -> None:
    first, second = (DigitPairs(**SMALL, data_seed=seed).load().train.tensors[0] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_digits_are_split_without_overlap_and_stratified() -> None:
    splits = split_digits()
    seen = [{image.tobytes() for image in images} for images, _ in splits.values()]
    assert sum(len(images) for images, _ in splits.values()) == 1797
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    for _, labels in splits.values():
        share = np.bincount(labels, minlength=10) / len(labels)
        assert np.all(np.abs(share - 0.1) < 0.01)


def test_the_label_of_a_pair_is_the_digit_on_the_left() -> None:
    """Read both digits back by matching the split's own digits in a picture without noise."""
    config = DigitPairs(**SMALL, noise=0.0)
    data = config.load()
    digits, labels = split_digits()["val"]
    digits, labels = digits[labels < 5], labels[labels < 5]
    images, told = data.val.tensors
    pixels = images[:, 0].numpy() * data.std[0] + data.mean[0]
    for image, label in zip(pixels[:10], told[:10].tolist(), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8))
        distance = ((windows[None] - digits[:, None, None]) ** 2).sum((-1, -2))
        found = sorted((np.argwhere(distance < 1e-6)).tolist(), key=lambda hit: hit[2])
        left, right = found[0], found[-1]
        assert labels[left[0]] == label != labels[right[0]]
        assert config.gap <= right[2] - left[2] <= config.gap + config.slack


def test_aligned_marks_share_a_row_or_a_column() -> None:
    data = Alignment(**SMALL, noise=0.0).load()
    images, labels = data.train.tensors
    assert labels.sum() == 30
    for image, label in zip(images[:, 0], labels.tolist(), strict=True):
        rows, columns = torch.nonzero(image > image.min() + 1, as_tuple=True)
        assert (len(set(rows.tolist())) == 3 or len(set(columns.tolist())) == 3) == bool(label)


def test_pathfinders_labels_are_balanced_and_show_two_dots() -> None:
    images, labels = Pathfinder(**SMALL, noise=0.0, distractors=0).load().train.tensors
    assert labels.sum() == 30
    brightest = (images == images.max()).flatten(1).sum(1)
    assert ((brightest > 9 - 6) & (brightest <= 18)).all()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "digit_pairs", "gap": 20}, "exceed resolution 24"),
        ({"name": "digit_pairs", "noise": -1}, "greater than or equal to 0"),
        ({"name": "alignment", "offset_low": 5, "offset_high": 2}, "offset_low 5 is above offset_high 2"),
        ({"name": "alignment", "gap": 31}, "must not exceed resolution 32"),
        ({"name": "pathfinder", "contour_length": 60}, "does not fit into resolution 64; allowed: at most 25"),
        ({"name": "digits", "resolutoin": 32}, "Extra inputs"),
        ({"name": "timm", "in_channels": 1}, "a value for each of 1 channels"),
        ({"name": "cifar"}, "does not match any of the expected tags"),
    ],
)
def test_a_config_that_cannot_be_drawn_is_told(fields: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TypeAdapter(DataConfig).validate_python(fields)


def image_folder(root: Path, per_class: int = 6) -> TimmData:
    rng = np.random.default_rng(0)
    for split, count in (("train", per_class), ("validation", 3)):
        for label, level in (("dark", 40), ("light", 200)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(rng.normal(level, 20, (20, 24, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return TimmData(root=str(root), num_classes=2, resolution=16, val_share=0.25)


def trained(data: Data, tmp_path: Path) -> float:
    fields = {"in_channels": 3, "num_classes": 2, "patch_size": 4, "depths": [1], "widths": [8], "mlp_ratios": 2}
    network = build(Architecture.parse(fields | {"mixers": {"kind": "identity"}, "layer_scale": 1.0}))
    recipe = Recipe(epochs=3, batch_size=4, lr=0.01, warmup_epochs=0, hflip=0.5, random_erasing=0.1, color_jitter=0.1)
    return fit(network, data, recipe, seed=0, workdir=tmp_path, device="cpu").test_accuracy


def test_a_folder_of_images_is_read_split_and_learned(tmp_path: Path) -> None:
    config = image_folder(tmp_path / "images")
    data = config.load()
    assert (len(data.train), len(data.val), len(data.test)) == (9, 3, 6)
    assert not set(data.train.indices) & set(data.val.indices)
    assert set(data.val.indices) == set(config.load().val.indices)
    assert trained(data, tmp_path) == 100


def test_a_web_dataset_is_read(tmp_path: Path) -> None:
    import webdataset

    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        with webdataset.TarWriter(str(tmp_path / f"{split}-000.tar")) as shard:
            for index in range(8):
                pixels = np.full((16, 16, 3), 40 + 160 * (index % 2)) + rng.integers(0, 20, (16, 16, 3))
                image = Image.fromarray(pixels.astype(np.uint8))
                shard.write({"__key__": f"{index:03d}", "jpg": image, "cls": index % 2})
    splits = {name: f"{name}-000.tar" for name in ("train", "val", "test")}
    config = TimmData(
        dataset="wds/mine",
        root=str(tmp_path),
        train_split=splits["train"],
        val_split=splits["val"],
        test_split=splits["test"],
        num_classes=2,
        resolution=16,
        samples=dict.fromkeys(splits.values(), 8),
    )
    assert trained(config.load(), tmp_path) == 100


def test_a_path_without_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.root: .*nowhere' does not exist"):
        TimmData(root=str(tmp_path / "nowhere")).load()
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError) as caught:
        TimmData(root=str(tmp_path)).load()
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    config = image_folder(tmp_path / "images")
    with pytest.raises(InputError, match="has no folder for split 'tset'; allowed: tset"):
        config.model_copy(update={"test_split": "tset"}).load()
    shutil.rmtree(tmp_path / "images/validation")
    with pytest.raises(InputError, match="has no folder for split 'validation'; allowed: val, valid"):
        config.load()
    many = image_folder(tmp_path / "many")
    (tmp_path / "many/train/third").mkdir()
    shutil.copy(tmp_path / "many/train/dark/0.png", tmp_path / "many/train/third")
    with pytest.raises(InputError, match=r"data.num_classes is 2, but split 'train' under .* has 3"):
        many.load()
    only = image_folder(tmp_path / "one", per_class=1).model_copy(update={"val_share": 0.99})
    with pytest.raises(InputError, match="too few training images"):
        only.load()
