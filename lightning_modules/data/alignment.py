"""Two marks far apart in noise: on the same row or column, or a few pixels off?

A bag of local features cannot tell, so what the band kernels are worth is known by construction.
"""

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from lightning_modules.data.base import Data, Generated, Images, Labels, in_memory
from space.fields import Real, Whole

SIZE = 3


class Alignment(Generated):
    """Label 1 where both 3x3 marks share a row (or, in half of the images, a column), 0 where one is off.

    The marks are `gap` pixels apart or more, `offset_low` to `offset_high` pixels off; both labels are equally
    frequent. `noise` is the standard deviation of Gaussian noise on marks of height 1.
    """

    name: Literal["alignment"] = "alignment"
    gap: Whole = Field(12, ge=SIZE)
    offset_low: Whole = Field(2, ge=1)
    offset_high: Whole = Field(5, ge=1)
    noise: Real = Field(0.2, ge=0, le=2)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.offset_low > self.offset_high:
            raise ValueError(f"offset_low {self.offset_low} is above offset_high {self.offset_high}")
        if max(self.gap, self.offset_high) + SIZE > self.resolution:
            raise ValueError(f"gap and offset_high plus {SIZE} must not exceed resolution {self.resolution}")
        return self

    @property
    def num_classes(self) -> int:
        """Off or aligned."""
        return 2

    def load(self) -> Data:
        """Draw the splits. Raises InputError where memory does not hold them."""
        self.check_room()
        return in_memory(self.name, self.draw_splits(self._draw), 2)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[Images, Labels]:
        labels = rng.permutation(np.arange(n) % 2).astype(np.int64)
        canvas = rng.normal(0, self.noise, size=(n, self.resolution, self.resolution)).astype(np.float32)
        room = self.resolution - SIZE
        distance = rng.integers(self.gap, room + 1, size=n)
        along = rng.integers(room - distance + 1)
        offset = rng.integers(self.offset_low, self.offset_high + 1, size=n) * (1 - labels)
        across = rng.integers(room - offset + 1)
        flip = rng.random(n) < 0.5
        first, second = np.where(flip, across + offset, across), np.where(flip, across, across + offset)
        turn = rng.random(n) < 0.5
        image = np.arange(n)
        for position, place in ((along, first), (along + distance, second)):
            row, column = np.where(turn, position, place), np.where(turn, place, position)
            for dy in range(SIZE):
                for dx in range(SIZE):
                    canvas[image, row + dy, column + dx] += 1
        return canvas, labels
