"""What every data set gives: three splits and what a network needs to know of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch.utils.data import Dataset, TensorDataset

from space.errors import InputError
from space.fields import Whole

Images = NDArray[np.float32]  # (N, H, W), 0..1
Labels = NDArray[np.int64]  # (N,)
Drawn = tuple[Images, Labels]
Size = Annotated[Whole, Field(ge=1, le=10_000_000)]  # all of them are held in memory


@dataclass(frozen=True)
class Data:
    """A data set, loaded.

    In memory, a split is a TensorDataset of normalised images (N, C, H, W) and labels (N,); otherwise it
    yields PIL images and labels, which a loader crops, augments and normalises by `mean` and `std`.
    """

    name: str
    in_channels: int
    num_classes: int
    resolution: int
    train: Dataset[Any]
    val: Dataset[Any]
    test: Dataset[Any]
    in_memory: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Generated(BaseModel):
    """Fields of the data sets that are drawn at random: everything follows from `data_seed`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: Whole = Field(32, ge=8, le=1024)
    train_size: Size = 4000
    val_size: Size = 1000
    test_size: Size = 2000
    data_seed: Whole = Field(0, ge=0)

    @property
    def in_channels(self) -> int:
        """Images are grey."""
        return 1

    @property
    def sizes(self) -> tuple[int, int, int] | None:
        """Images in train, val and test."""
        return self.train_size, self.val_size, self.test_size

    def check_room(self) -> None:
        """Raise InputError where the largest split, as it is drawn, is more than the machine's free memory."""
        images = max(self.train_size, self.val_size, self.test_size)
        needed, free = 8 * images * self.resolution**2, psutil.virtual_memory().available
        if needed > free:
            raise InputError(
                f"data: {images:,} images of {self.resolution} pixels take {needed / 2**30:,.0f} GiB of memory, "
                f"{free / 2**30:,.0f} GiB are free; allowed: smaller train_size, val_size, test_size or resolution"
            )

    def draw_splits(self, draw: Callable[[np.random.Generator, int], Drawn]) -> dict[str, Drawn]:
        """Draw each split with a generator of its own."""
        sizes = {"train": self.train_size, "val": self.val_size, "test": self.test_size}
        return {
            split: draw(np.random.default_rng([self.data_seed, index]), n)
            for index, (split, n) in enumerate(sizes.items())
        }


def in_memory(name: str, splits: dict[str, tuple[Images, Labels]], num_classes: int) -> Data:
    """Normalise three splits by the training images' mean and standard deviation and hold them as tensors."""
    train = splits["train"][0]
    mean, std = float(train.mean()), float(train.std())
    sets = {
        split: TensorDataset(
            torch.from_numpy((images - mean) / std).float().unsqueeze(1), torch.from_numpy(labels).long()
        )
        for split, (images, labels) in splits.items()
    }
    return Data(
        name,
        1,
        num_classes,
        train.shape[-1],
        sets["train"],
        sets["val"],
        sets["test"],
        in_memory=True,
        mean=(mean,),
        std=(std,),
    )
