"""Two real digits far apart on a noisy canvas; the label is the one on the left.

Either digit can be read from a few pixels; which of the two counts takes a view beyond the digit: of the other
one, or of how far away the canvas' borders are. On a canvas less than twice as wide as the gap the left digit always
lies in the left half, so what is rewarded there is reach, whether to the other digit or to the border.
"""

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from lightning_modules.data.base import Data, Generated, Images, Labels, in_memory
from lightning_modules.data.digits import split_digits
from space.fields import Real, Whole

SIZE = 8


class DigitPairs(Generated):
    """Pairs of digits of different classes, `gap` to `gap` + `slack` pixels from left edge to left edge.

    Digits of the three splits are different images. `classes` keeps the digits 0 to `classes` - 1; `noise` is
    the standard deviation of Gaussian noise on pixels of 0..1.
    """

    name: Literal["digit_pairs"] = "digit_pairs"
    resolution: Whole = Field(24, ge=2 * SIZE, le=1024)
    classes: Whole = Field(5, ge=2, le=10)
    gap: Whole = Field(12, ge=SIZE)
    slack: Whole = Field(2, ge=0)
    noise: Real = Field(0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.gap + self.slack + SIZE > self.resolution:
            raise ValueError(
                f"gap {self.gap} + slack {self.slack} + a digit's {SIZE} pixels exceed resolution {self.resolution}"
            )
        return self

    @property
    def num_classes(self) -> int:
        """The digits in use."""
        return self.classes

    def load(self) -> Data:
        """Draw the splits. Raises InputError where memory does not hold them."""
        self.check_room()
        sizes = {"train": self.train_size, "val": self.val_size, "test": self.test_size}
        splits = {}
        for index, (split, (images, labels)) in enumerate(split_digits().items()):
            rng = np.random.default_rng([self.data_seed, index])
            kept = labels < self.classes
            splits[split] = self._draw(rng, images[kept], labels[kept], sizes[split])
        return in_memory(self.name, splits, self.classes)

    def _draw(self, rng: np.random.Generator, digits: Images, labels: Labels, n: int) -> tuple[Images, Labels]:
        left = rng.integers(len(digits), size=n)
        right = rng.integers(len(digits), size=n)
        while (same := labels[left] == labels[right]).any():
            right[same] = rng.integers(len(digits), size=int(same.sum()))
        canvas = rng.normal(0, self.noise, size=(n, self.resolution, self.resolution)).astype(np.float32)
        distance = self.gap + rng.integers(self.slack + 1, size=n)
        x = rng.integers(self.resolution - SIZE - distance + 1)
        for chosen, column in ((left, x), (right, x + distance)):
            row = rng.integers(self.resolution - SIZE + 1, size=n)
            _paste(canvas, digits[chosen], row, column)
        return canvas, labels[left]


def _paste(canvas: Images, marks: Images, row: Labels, column: Labels) -> None:
    """Add marks (N, h, w) to canvases (N, H, W), each with its upper left corner at (row, column)."""
    _, height, width = marks.shape
    image = np.arange(len(canvas))[:, None, None]
    rows = row[:, None, None] + np.arange(height)[None, :, None]
    columns = column[:, None, None] + np.arange(width)[None, None, :]
    canvas[image, rows, columns] += marks
