"""Batches: sliced from memory, or read by timm's loader."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from timm.data import create_loader
from timm.data.random_erasing import RandomErasing
from torch.nn.functional import pad
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from lightning_modules.data import Data
from lightning_modules.precision import FORMATS
from lightning_modules.recipe import Recipe

Batch = tuple[torch.Tensor, torch.Tensor]
EVAL_BATCH = 256


def train_loader(data: Data, recipe: Recipe, seed: int, device: str) -> Iterable[Batch]:
    """Return the training batches, in an order and with an augmentation that follow from `seed`."""
    size = recipe.batch_size // recipe.accumulate
    if isinstance(data.train, TensorDataset):
        return MemoryLoader(data.train, size, recipe, device, seed=seed)
    crop = recipe.random_resized_crop
    return _timm_loader(
        data,
        data.train,
        recipe,
        size,
        device,
        is_training=True,
        scale=crop.scale if crop else (1.0, 1.0),
        ratio=crop.ratio if crop else (1.0, 1.0),
        hflip=recipe.hflip,
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.auto_augment,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
        interpolation="random",
    )


def eval_loader(data: Data, split: Dataset[Any], recipe: Recipe, device: str) -> Iterable[Batch]:
    """Return a split's batches in their own order, without augmentation."""
    if isinstance(split, TensorDataset):
        return MemoryLoader(split, EVAL_BATCH, recipe, device, seed=None)
    return _timm_loader(data, split, recipe, EVAL_BATCH, device, crop_pct=recipe.eval_crop, interpolation="bicubic")


class MemoryLoader:
    """Whole batches of a data set that lies in memory, on the device it is used on.

    With a seed: a new order each epoch, augmented, the incomplete last batch dropped.
    """

    def __init__(self, split: TensorDataset, batch_size: int, recipe: Recipe, device: str, seed: int | None) -> None:
        images, labels = split.tensors
        self.format = FORMATS[recipe.memory_format]
        self.images = images.to(device, memory_format=self.format)
        self.labels = labels.to(device)
        self.batch_size = min(batch_size, len(labels))
        self.recipe, self.seed, self.epoch = recipe, seed, 0
        self.erase = RandomErasing(recipe.random_erasing, mode="pixel", device=device)

    def __len__(self) -> int:
        full, rest = divmod(len(self.labels), self.batch_size)
        return full + (self.seed is None and rest > 0)

    def __iter__(self) -> Iterator[Batch]:
        if self.seed is None:
            batches = (torch.split(tensor, self.batch_size) for tensor in (self.images, self.labels))
            yield from zip(*batches, strict=True)
            return
        # Its own generator: the order of the images depends on nothing but seed and epoch.
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        self.epoch += 1
        order = torch.randperm(len(self.labels), generator=generator).to(self.labels.device)
        for chosen in torch.split(order, self.batch_size)[: len(self)]:
            images = self._augmented(self.images[chosen], generator)
            yield images.contiguous(memory_format=self.format), self.labels[chosen]

    def _augmented(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        recipe = self.recipe
        if recipe.hflip:
            flip = torch.rand(len(images), generator=generator) < recipe.hflip
            images = torch.where(flip.to(images.device).view(-1, 1, 1, 1), images.flip(-1), images)
        if recipe.shift:
            images = _shifted(images, recipe.shift, generator)
        if recipe.random_erasing:
            images = self.erase(images)
        return images


def _shifted(images: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Move each image by up to `most` pixels in both directions; zeros come in from outside."""
    n, _, height, width = images.shape
    moves = torch.randint(0, 2 * most + 1, (2, n, 1), generator=generator).to(images.device)
    rows = moves[0] + torch.arange(height, device=images.device)
    columns = moves[1] + torch.arange(width, device=images.device)
    padded = pad(images, (most,) * 4).permute(0, 2, 3, 1)
    image = torch.arange(n, device=images.device).view(-1, 1, 1)
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class _WithTransform(Dataset[Any]):
    """Gives a split a transform of its own, which timm's loader sets, even where two splits share one data set."""

    def __init__(self, split: Any) -> None:
        self.split, self.transform = split, None

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.split[index]
        return self.transform(image) if self.transform is not None else image, label


def _timm_loader(
    data: Data, split: Dataset[Any], recipe: Recipe, size: int, device: str, **options: Any
) -> Iterable[Batch]:
    loader: Iterable[Batch] = create_loader(
        split if isinstance(split, IterableDataset) else _WithTransform(split),
        (data.in_channels, data.resolution, data.resolution),
        size,
        mean=data.mean,
        std=data.std,
        num_workers=recipe.workers,
        persistent_workers=recipe.workers > 0,
        pin_memory=torch.device(device).type == "cuda",
        use_prefetcher=False,
        device=torch.device(device),
        **options,
    )
    return loader
