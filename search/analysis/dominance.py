"""Fronts with their uncertainty: which architectures are on them, given the noise of accuracy and of throughput."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from search.analysis.effects import effects
from search.analysis.fronts import scored
from search.analysis.inference import ALPHA, holm
from search.analysis.once import once
from search.analysis.scores import POINTS, Scores, accuracy_column

DRAWS = 4000
TWO_SIDED = float(stats.norm.ppf(1 - ALPHA / 2))
Array = NDArray[np.float64]


@dataclass(frozen=True)
class NoisyFront:
    """Accuracies (percent) and training throughputs (ratios) that the data leave possible: (draws, arms) each."""

    arms: tuple[str, ...]
    accuracy: Array
    speed: Array

    @property
    def on_front(self) -> dict[str, float]:
        """The probability of each arm that none beats it in both."""
        order, _, best = self._fastest_first()
        before = np.concatenate([np.full((len(best), 1), -np.inf), best[:, :-1]], axis=1)
        beaten = np.take_along_axis(self.accuracy, order, 1) <= before
        times = np.bincount(order.ravel(), weights=beaten.ravel(), minlength=len(self.arms))
        return dict(zip(self.arms, (1 - times / len(order)).tolist(), strict=True))

    def hypervolume(self) -> tuple[float, float, float]:
        """Return the area that the front dominates, in points times ratio: the median and a 95 % interval."""
        low, mid, high = np.quantile(self.hypervolumes(), (ALPHA / 2, 0.5, 1 - ALPHA / 2))
        return float(mid), float(low), float(high)

    def hypervolumes(self) -> Array:
        """Return that area in each draw."""
        _, speed, best = self._fastest_first()
        steps = speed - np.concatenate([speed[:, 1:], np.zeros((len(speed), 1))], axis=1)
        areas: Array = (steps * np.fmax(best, 0)).sum(1)
        return areas

    def only(self, kept: NDArray[np.bool_]) -> "NoisyFront":
        """Return the same draws of some of the arms."""
        arms = tuple(arm for arm, keep in zip(self.arms, kept, strict=True) if keep)
        return NoisyFront(arms, self.accuracy[:, kept], self.speed[:, kept])

    def band(self, speeds: Array) -> tuple[Array, Array]:
        """Return, for each speed, the ends of a 95 % interval of the best accuracy at that speed or more.

        NaN where it is not certain that any arm is as fast.
        """
        best = np.full((len(self.accuracy), len(speeds)), -np.inf)
        for index in range(len(self.arms)):
            fast = self.speed[:, index, None] >= speeds
            best = np.where(fast, np.maximum(best, self.accuracy[:, index, None]), best)
        low, high = np.quantile(best, (ALPHA / 2, 1 - ALPHA / 2), axis=0, method="nearest")
        known = np.isfinite(low)
        return np.where(known, low, np.nan), np.where(known, high, np.nan)

    def _fastest_first(self) -> tuple[NDArray[np.int_], Array, Array]:
        """Return the order by speed in each draw, the speeds in it, and the best accuracy so far."""
        order = np.argsort(-self.speed, axis=1)
        best = np.maximum.accumulate(np.take_along_axis(self.accuracy, order, 1), axis=1)
        return order, np.take_along_axis(self.speed, order, 1), best


@once
def noisy_front(frame: pd.DataFrame) -> NoisyFront | None:
    """Return what a study's noise leaves possible, or None where it is not known.

    Of an ablation: the noise between seeds and that of the test images, jointly for all arms, so that each
    difference between two arms has Student's t with its own paired variance; arms of fewer than two seeds are
    left out. Of a search: the noise of the validation images, and that between seeds, as far as some architectures have
    several: their variances pooled, taken to be that of all. Throughput: normal on the logarithmic scale, as wide as
    its interval.
    """
    rng = np.random.default_rng(0)
    if frame.attrs["definition"].get("kind") == "search":
        done = scored(frame)
        images = pd.to_numeric(done["val_images"]).to_numpy(dtype=float)
        if done.empty or np.isnan(images).any():
            return None
        share = done["accuracy"].to_numpy(dtype=float) / POINTS
        # Agresti and Coull's shrinkage: a network that got all images right is not known to be perfect.
        near = (share * images + 2) / (images + 4)
        error = POINTS * np.sqrt(near * (1 - near) / images)
        accuracy = POINTS * share + error * rng.standard_normal((DRAWS, len(done))) + _seed_noise(done, rng)
        return NoisyFront(tuple(done["arm"]), accuracy, _speeds(done, rng))
    if accuracy_column(frame) is None:
        return None
    scores, table = Scores.of(frame), effects(frame)
    table = table[(table["seeds"] > 1) & table["train_ratio"].notna()]
    if len(table) < 2:
        return None
    arms = tuple(table["arm"])
    return NoisyFront(arms, _accuracies(scores, arms, rng), _speeds(table, rng))


@once
def dominations(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of arms of which the data say that one is both faster and more accurate: better, worse, p.

    Both must be shown, each by a one-sided test (an intersection-union test, Berger 1982); p-values are corrected over
    all pairs (Holm), and pairs at 5 % or more are left out.
    """
    columns = ["better", "worse", "p"]
    kind = frame.attrs["definition"].get("kind")
    if accuracy_column(frame) is None or kind == "search":
        return pd.DataFrame(columns=columns)
    scores = Scores.of(frame)
    table = effects(frame).set_index("arm")
    table = table[table["train_ratio"].notna()]
    logs, errors = _log_speeds(table)
    speed = dict(zip(table.index, zip(logs, errors, strict=True), strict=True))
    rows = []
    for better, worse in permutations(table.index, 2):
        found = scores.contrast({better: 1, worse: -1})
        gap, noise = speed[better][0] - speed[worse][0], float(np.hypot(speed[better][1], speed[worse][1]))
        slower = float(stats.norm.sf(gap / noise)) if noise > 0 else float("nan")
        half = found.p_different() / 2
        rows.append((better, worse, float(np.maximum(half if found.effect > 0 else 1 - half, slower))))
    corrected = holm([p for *_, p in rows])
    found_rows = [(better, worse, p) for (better, worse, _), p in zip(rows, corrected, strict=True) if p < ALPHA]
    return pd.DataFrame(found_rows, columns=columns)


def _seed_noise(done: pd.DataFrame, rng: np.random.Generator) -> Array:
    """Draw what other seeds would have made of the mean accuracies of a search; nought where none has two."""
    seeds = done["seeds"].to_numpy(dtype=float)
    df = float((seeds - 1).sum())
    if df == 0:
        return np.zeros((DRAWS, len(done)))
    pooled = float(((seeds - 1) * done["seed_variance"].fillna(0)).sum() / df)
    # One draw of the variance for all, as it is one for all.
    spread = np.sqrt(pooled * df / stats.chi2.ppf(rng.random((DRAWS, 1)), df))
    noise: Array = spread / np.sqrt(seeds) * rng.standard_normal((DRAWS, len(done)))
    return noise


def _accuracies(scores: Scores, arms: tuple[str, ...], rng: np.random.Generator) -> Array:
    """Draw mean accuracies jointly, seeds' residuals mixed at random: any difference keeps its paired variance."""
    own = scores.accuracy[[scores.arms.index(arm) for arm in arms]]
    counts = np.isfinite(own).sum(1)
    residuals = np.nan_to_num(own - np.nanmean(own, axis=1, keepdims=True))
    mixed = rng.standard_normal((DRAWS, own.shape[1])) @ (residuals / np.sqrt(counts * (counts - 1))[:, None]).T
    # One draw of chance for all arms, so that arms of as many seeds widen together.
    chance, df = rng.random((DRAWS, 1)), counts - 1
    drawn: Array = np.nanmean(own, axis=1) + mixed * np.sqrt(df / stats.chi2.ppf(chance, df))
    covariance = _image_covariance(scores, arms)
    if covariance is not None:
        values, vectors = np.linalg.eigh(covariance)
        roots = vectors * np.sqrt(np.clip(values, 0, None))
        drawn = drawn + rng.standard_normal((DRAWS, len(arms))) @ roots.T
    return drawn


def _image_covariance(scores: Scores, arms: tuple[str, ...]) -> Array | None:
    """Return the covariance of the arms' mean accuracies over test sets, less what single readings add to it."""
    seeds = scores.shared(*arms)
    found = [scores.by_image(arm, seeds) for arm in arms]
    kept = [one for one in found if one is not None]
    if len(seeds) < 2 or len(kept) < len(arms) or len({one.shape for one in kept}) > 1:
        return None
    each = np.array(kept)
    images = each.shape[2]
    means = each.mean(1)
    residual = each - each.mean(2, keepdims=True) - means[:, None] + means.mean(1)[:, None, None]
    flat = residual.reshape(len(arms), -1)
    both = flat @ flat.T / ((len(seeds) - 1) * (images - 1))
    found_covariance: Array = np.cov(means) / images - both / (len(seeds) * images)
    return found_covariance


def _speeds(table: pd.DataFrame, rng: np.random.Generator) -> Array:
    logs, errors = _log_speeds(table)
    return np.exp(logs + errors * rng.standard_normal((DRAWS, len(table))))


def _log_speeds(table: pd.DataFrame) -> tuple[Array, Array]:
    """Return the logarithms of the ratios and their standard errors; none where there is no interval."""
    mid, low, high = (table[f"train_ratio{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
    return np.log(mid), np.nan_to_num(np.log(high / low) / (2 * TWO_SIDED))
