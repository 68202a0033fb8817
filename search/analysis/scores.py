"""Every trial's accuracy and right predictions as arrays, to be contrasted seed by seed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.analysis.inference import Difference, estimate
from search.predictions import Correct, unpack

POINTS = 100.0  # an image that is right, in percentage points of its own accuracy


def accuracy_column(frame: pd.DataFrame) -> str | None:
    """Return which accuracy a table is about: the test's where there is one, None where nothing was trained."""
    for name in ("test_accuracy", "val_accuracy"):
        if frame[name].notna().any():
            return name
    return None


@dataclass(frozen=True)
class Scores:
    """Accuracies in percent, (arms, seeds), NaN where a trial is not complete; `correct` where predictions were kept.

    `correct` has, by arm and seed as indices, which images of the test split were right.
    """

    arms: tuple[str, ...]
    seeds: NDArray[np.int_]
    accuracy: NDArray[np.float64]
    correct: Mapping[tuple[int, int], Correct]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Scores":
        """Read a study's trials."""
        column = accuracy_column(frame)
        arms = tuple(frame["arm"].drop_duplicates())
        if column is None:
            return cls(arms, np.array([], dtype=int), np.empty((len(arms), 0)), {})
        done = frame[(frame["state"] == "COMPLETE") & frame[column].notna()]
        seeds = np.sort(done["seed"].astype(int).unique())
        accuracy, correct = np.full((len(arms), len(seeds)), np.nan), {}
        for arm, seed, value, packed in done[["arm", "seed", column, "test_correct"]].itertuples(index=False):
            at = arms.index(arm), int(np.searchsorted(seeds, seed))
            accuracy[at] = value
            if column == "test_accuracy" and packed:
                correct[at] = unpack(packed)
        return cls(arms, seeds, accuracy, correct)

    def shared(self, *arms: str) -> NDArray[np.int_]:
        """Return the indices of the seeds that all of the arms have."""
        chosen = [self.arms.index(arm) for arm in arms]
        return np.flatnonzero(np.isfinite(self.accuracy[chosen]).all(0))

    def by_image(self, arm: str, seeds: NDArray[np.int_]) -> NDArray[np.float64] | None:
        """Return 100 for each right image and 0 for others, (seeds, images), or None where one was not kept."""
        index = self.arms.index(arm)
        kept = [self.correct.get((index, int(seed))) for seed in seeds]
        found = [one for one in kept if one is not None]
        if not found or len(found) < len(kept) or len({len(one) for one in found}) > 1:
            return None
        return POINTS * np.array(found, dtype=float)

    def contrast(self, weights: Mapping[str, float], count: int | None = None) -> Difference:
        """Estimate a weighted sum of arms' accuracies over the seeds that all of them have, or the first `count`.

        The weights of ``{arm: 1, baseline: -1}`` make the arm's difference from the baseline.
        """
        seeds = self.shared(*weights)[:count]
        parts = {True: np.zeros(len(seeds)), False: np.zeros(len(seeds))}
        images: NDArray[np.float64] | None = None
        kept = len(seeds) > 0
        for arm, weight in weights.items():
            parts[weight > 0] = parts[weight > 0] + abs(weight) * self.accuracy[self.arms.index(arm), seeds]
            each = self.by_image(arm, seeds) if kept else None
            kept = each is not None and (images is None or images.shape == each.shape)
            if kept and each is not None:
                images = weight * each if images is None else images + weight * each
        return estimate(parts[True], parts[False], images if kept else None)
