"""Real handwritten digits, 8x8 pixels: 1,797 images that come with scikit-learn (UCI Optical Recognition)."""

from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import interpolate

from lightning_modules.data.base import Data, Images, Labels, in_memory
from space.fields import Whole


class Digits(BaseModel):
    """The digits themselves, enlarged to `resolution`; 60 % train, 20 % val, 20 % test, stratified and fixed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["digits"] = "digits"
    resolution: Whole = Field(32, ge=8, le=512)

    @property
    def in_channels(self) -> int:
        """Images are grey."""
        return 1

    @property
    def num_classes(self) -> int:
        """Ten digits."""
        return 10

    @property
    def sizes(self) -> tuple[int, int, int] | None:
        """Images in train, val and test."""
        return 1077, 360, 360

    def load(self) -> Data:
        """Return the splits."""
        splits = {}
        for split, (images, labels) in split_digits().items():
            large = interpolate(
                torch.from_numpy(images).unsqueeze(1),
                size=self.resolution,
                mode="bilinear",
                align_corners=False,
            )
            splits[split] = (large.squeeze(1).numpy(), labels)
        return in_memory(self.name, splits, 10)


def split_digits() -> dict[str, tuple[Images, Labels]]:
    """Return train, val and test digits (N, 8, 8) in 0..1: 1,077, 360 and 360 images, no image in two splits."""
    bunch = load_digits()
    images = (bunch.images / 16).astype(np.float32)
    labels = bunch.target.astype(np.int64)
    rest, test = train_test_split(np.arange(len(labels)), test_size=360, random_state=0, stratify=labels)
    train, val = train_test_split(rest, test_size=360, random_state=0, stratify=labels[rest])
    return {name: (images[index], labels[index]) for name, index in (("train", train), ("val", val), ("test", test))}
