"""Anything that timm.data.create_dataset reads: ImageFolder, torchvision, Hugging Face, WebDataset, TFDS."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import timm.data
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ImageDataset
from torch.utils.data import Dataset, IterableDataset, Subset

from lightning_modules.data.base import Data
from space.errors import InputError, first_line
from space.fields import Real, Whole

# The names that timm takes for the same split of a folder.
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "eval", "evaluation"),
}


class UnreadableImage(ValueError):
    """An image that cannot be read; says which."""


class Images(Dataset[Any]):
    """PIL images and labels, as one of timm's readers finds them.

    timm's own data set puts another image in the place of one that cannot be read, and says so in passing.
    Raises UnreadableImage in its place.
    """

    def __init__(self, reader: Any, mode: str) -> None:
        self.reader, self.mode = reader, mode

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file, label, *_ = self.reader[index]
        try:
            return Image.open(file).convert(self.mode), label
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises any of these for a damaged file
            name = self.reader.filename(index, absolute=True)
            raise UnreadableImage(f"image {name}: cannot be read: {first_line(error)}") from error


class TimmData(BaseModel):
    """A data set named as timm names it: '' for class folders, ``torch/cifar10``, ``hfds/...``, ``wds/...``.

    Models are selected on `val_split` and reported on `test_split`. Without a `val_split`, a `val_share` of the
    training images, fixed by `data_seed`, is held out for it, so that the public validation set can be the test.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["timm"] = "timm"
    dataset: str = ""
    root: str = "."
    train_split: str = "train"
    val_split: str | None = None
    test_split: str = "validation"
    val_share: Real = Field(0.05, gt=0, lt=1)
    data_seed: Whole = Field(0, ge=0)
    resolution: Whole = Field(224, ge=8, le=2048)
    num_classes: Whole = Field(1000, ge=2, le=1_000_000)
    in_channels: Literal[1, 3] = 3
    mean: tuple[Real, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[Annotated[Real, Field(gt=0)], ...] = IMAGENET_DEFAULT_STD
    # Images a split, where the shards of a WebDataset do not say it.
    samples: dict[str, Annotated[Whole, Field(ge=1)]] = {}

    @model_validator(mode="after")
    def _statistics_fit(self) -> Self:
        if not len(self.mean) == len(self.std) == self.in_channels:
            raise ValueError(f"mean and std need a value for each of {self.in_channels} channels")
        return self

    @property
    def sizes(self) -> tuple[int, int, int] | None:
        """Images in train, val and test: not known before the files are read."""
        return None

    def load(self) -> Data:
        """Open the splits. Raises InputError, in one line, for a path that does not exist or has no images."""
        if not self.dataset.startswith(("hfds/", "hfids/", "tfds/")) and not Path(self.root).exists():
            raise InputError(f"data.root: {self.root!r} does not exist")
        if self.dataset == "":
            self._check_folders()
        train = self._split(self.train_split, training=True)
        test = self._split(self.test_split)
        if self.val_split is not None:
            val = self._split(self.val_split)
        elif isinstance(train, IterableDataset):
            raise InputError(f"data.val_split: {self.dataset!r} is read as a stream, so a split must be named")
        else:
            order = np.random.default_rng(self.data_seed).permutation(len(train))
            held = max(1, round(len(train) * self.val_share))
            if held >= len(train):
                raise InputError(f"data.root: {self.root!r} has too few training images ({len(train)})")
            train, val = Subset(train, order[held:].tolist()), Subset(train, order[:held].tolist())
        return Data(
            self.dataset or Path(self.root).name,
            self.in_channels,
            self.num_classes,
            self.resolution,
            train,
            val,
            test,
            in_memory=False,
            mean=self.mean,
            std=self.std,
        )

    def _check_folders(self) -> None:
        """Refuse a split that has no folder of its own: timm would read the whole root in its place."""
        for split in filter(None, (self.train_split, self.val_split, self.test_split)):
            names = SPLIT_FOLDERS.get(split, (split,))
            if not any((Path(self.root) / name).is_dir() for name in names):
                raise InputError(
                    f"data.root: {self.root!r} has no folder for split {split!r}; allowed: {', '.join(names)}"
                )

    def _split(self, split: str, training: bool = False) -> Any:
        mode = "L" if self.in_channels == 1 else "RGB"
        extra = {"num_samples": self.samples[split]} if split in self.samples else {}
        try:
            dataset = timm.data.create_dataset(
                self.dataset,
                root=self.root,
                split=split,
                is_training=training,
                download=False,
                batch_size=1,
                input_img_mode=mode,
                **extra,
            )
        except Exception as error:  # every reader of timm's raises its own kind
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"data: split {split!r} of {self.dataset or 'folder'!r} under root {self.root!r} "
                f"cannot be read: {reason}"
            ) from error
        if not isinstance(dataset, IterableDataset) and len(dataset) == 0:
            raise InputError(f"data.root: {self.root!r} has no images in split {split!r}")
        classes = getattr(getattr(dataset, "reader", None), "class_to_idx", None)
        if classes and len(classes) > self.num_classes:
            raise InputError(
                f"data.num_classes is {self.num_classes}, but split {split!r} under {self.root!r} has {len(classes)}"
            )
        return Images(dataset.reader, mode) if isinstance(dataset, ImageDataset) else dataset
