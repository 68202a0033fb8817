"""Pathfinder: two dots; are they the ends of one dashed contour, or of two?

After Linsley et al. 2018 (arXiv 1805.08315) and its use in Long Range Arena (arXiv 2011.04006); the images
here are drawn by a generator of our own, so figures are not comparable with theirs.
"""

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lightning_modules.data.base import Data, Generated, Images, Labels, in_memory
from space.fields import Real, Whole

DASH, STEP = 3, 5  # pixels drawn, and from one dash's start to the next one's


class Pathfinder(Generated):
    """Two long contours of `contour_length` dashes and `distractors` short ones, each a smooth random walk.

    Label 1: both dots end the same contour. Label 0: the dots sit on ends of different contours. The two ends of
    one contour are closer together, on average, than those of two: at the defaults the distance of the dots alone
    tells the label in about three of four images, so that is the floor, not one half.
    """

    name: Literal["pathfinder"] = "pathfinder"
    resolution: Whole = Field(64, ge=32, le=512)
    contour_length: Whole = Field(6, ge=2, le=64)
    distractors: Whole = Field(6, ge=0, le=100)
    curvature: Real = Field(0.35, ge=0, le=1)
    noise: Real = Field(0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.contour_length * STEP > 2 * self.resolution:
            raise ValueError(
                f"contour_length {self.contour_length} does not fit into resolution {self.resolution}; "
                f"allowed: at most {2 * self.resolution // STEP}"
            )
        return self

    @property
    def num_classes(self) -> int:
        """Joined or not."""
        return 2

    def load(self) -> Data:
        """Draw the splits. Raises InputError where memory does not hold them."""
        self.check_room()
        return in_memory(self.name, self.draw_splits(self._draw), 2)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[Images, Labels]:
        labels = rng.permutation(np.arange(n) % 2).astype(np.int64)
        canvas = rng.normal(0, self.noise, size=(n, self.resolution, self.resolution)).astype(np.float32)
        first = self._contours(rng, n, self.contour_length)
        second = self._contours(rng, n, self.contour_length)
        for contour in (first, second):
            self._ink(canvas, contour, 1)
        for _ in range(self.distractors):
            self._ink(canvas, self._contours(rng, n, max(2, self.contour_length // 3)), 1)
        end = np.where(labels[:, None] == 1, first[:, -1], second[:, -1])
        for dot in (first[:, 0], end):
            around = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(1, -1, 2)
            self._ink(canvas, dot[:, None] + around, 1.5)
        return np.minimum(canvas, 1.5), labels

    def _contours(self, rng: np.random.Generator, n: int, dashes: int) -> NDArray[np.float64]:
        """Return the inked points (n, points, 2) of a walk whose heading drifts, reflected at the borders."""
        points = dashes * STEP
        drift = np.cumsum(rng.normal(0, self.curvature / np.sqrt(STEP), size=(n, points)), axis=1)
        heading = rng.uniform(0, 2 * np.pi, size=(n, 1)) + drift
        steps = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        walk = rng.uniform(0, self.resolution, size=(n, 1, 2)) + np.cumsum(steps, axis=1)
        period = 2 * (self.resolution - 1)
        folded = np.abs((walk + self.resolution - 1) % period - (self.resolution - 1))
        inked = np.arange(points) % STEP < DASH
        inked[-1] = True
        return np.asarray(folded[:, inked], dtype=np.float64)

    def _ink(self, canvas: Images, points: NDArray[np.float64], value: float) -> None:
        row, column = np.clip(np.rint(points).astype(np.int64), 0, self.resolution - 1).transpose(2, 0, 1)
        canvas[np.arange(len(canvas))[:, None], row, column] = value
