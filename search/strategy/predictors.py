"""What an architecture will probably reach, from those that were trained: to order by, never to report."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from search.strategy.ranking import hypervolume
from space.dimensions import Choice, SearchSpace

Array = NDArray[np.float64]
FEWEST = 8  # architectures below which nothing is fitted
POOR = 0.3  # rank correlation from which down an order is not followed
KERNEL = ConstantKernel(1.0, (0.1, 100)) * RBF(2.0, (0.3, 30)) + WhiteKernel(0.1, (1e-4, 1.0))


def encode(space: SearchSpace, chosen: Mapping[str, Choice], counts: Mapping[str, float]) -> Array:
    """Return an architecture as numbers: each dimension from 0 to 1 in its order, or a column a choice; log counts."""
    row: list[float] = []
    for name, dimension in space.dimensions.items():
        value, values = chosen.get(name), dimension.values
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
            place = sorted(values).index(value) if value in values else -1
            row.append(place / max(1, len(values) - 1))
        else:
            row += [float(one == value) for one in values]
    return np.array([*row, *(math.log(count) for count in counts.values())])


def counts(attrs: Mapping[str, Any]) -> dict[str, float]:
    """Return the counts that predictors go by."""
    return {name: float(attrs[name]) for name in ("params", "macs", "activations", "bytes")}


class Regression:
    """A Gaussian process over encoded architectures, with what it predicts of each from the others alone.

    `left_out` are those predictions (leave-one-out, Rasmussen and Williams 2006, equation 5.12), `quality` their rank
    correlation with what was found. `like`: one whose kernel is taken over, where fitting it anew takes too long.
    """

    def __init__(self, rows: Array, values: Array, like: "Regression | None" = None) -> None:
        self._mid, self._span = rows.mean(0), np.where(rows.std(0) > 0, rows.std(0), 1.0)
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        scaled, targets = (rows - self._mid) / self._span, (values - self._mean) / self._scale
        kernel = KERNEL if like is None else like.model.kernel_
        self.model: Any = GaussianProcessRegressor(
            kernel, optimizer="fmin_l_bfgs_b" if like is None else None, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of a length at its bound, which is as good
            self.model.fit(scaled, targets)
        inverse = np.linalg.inv(self.model.kernel_(scaled) + self.model.alpha * np.eye(len(rows)))
        self.values = values
        self.left_out: Array = values - self._scale * (inverse @ targets) / np.diag(inverse)

    @property
    def quality(self) -> float:
        """Spearman's rank correlation of predictions and findings, each architecture left out in turn."""
        return rank_correlation(self.left_out, self.values)

    @property
    def error(self) -> float:
        """The root mean square of the errors, each architecture left out in turn."""
        return float(np.sqrt(np.mean((self.values - self.left_out) ** 2)))

    def predict(self, rows: Array) -> Array:
        """Return the prediction for each row."""
        found: Array = self._mean + self._scale * self.model.predict((rows - self._mid) / self._span)
        return found

    def upper(self, row: Array, confidence: float) -> float:
        """Return what the row's value will not exceed, with this confidence; infinite where too few are known.

        The quantile of the residuals of left-out predictions (the jackknife of Barber et al. 2021, arXiv 1905.02928),
        which holds where candidates come in no particular order.
        """
        residuals = np.sort(self.values - self.left_out)
        place = math.ceil(confidence * (len(residuals) + 1))
        if place > len(residuals):
            return math.inf
        return float(self.predict(row[None])[0] + residuals[place - 1])


class Knowledge:
    """What the architectures tried so far let one expect of others: accuracy in percent, and throughput.

    `rows` encode them, `reached` (n, 2) has their accuracies and throughputs. Kernels are fitted anew whenever a
    quarter more is known than at the last fit: `before` is the knowledge that one had.
    """

    def __init__(self, rows: Array, reached: Array, before: "Knowledge | None" = None) -> None:
        kept = before if before is not None and len(rows) < 1.25 * before.fitted else None
        self.reached = reached
        self.fitted: int = len(rows) if kept is None else kept.fitted
        self.accuracy: Regression = Regression(rows, reached[:, 0], kept.accuracy if kept else None)
        self.speed: Regression = Regression(rows, np.log(reached[:, 1]), kept.speed if kept else None)

    @property
    def is_poor(self) -> bool:
        """Whether the order that it suggests is not worth following."""
        return min(self.accuracy.quality, self.speed.quality) <= POOR

    def expect(self, rows: Array) -> Array:
        """Return the accuracy and throughput expected of each row."""
        return np.column_stack([self.accuracy.predict(rows), np.exp(self.speed.predict(rows))])

    def most_promising(self, rows: Array) -> int:
        """Return which row would enlarge the hypervolume most, were it as accurate as the model's error allows."""
        hoped = self.expect(rows) + np.array([self.accuracy.error, 0.0])
        reference = (float(self.reached[:, 0].min()), 0.0)
        before = hypervolume(self.reached, reference)
        found = [hypervolume(np.vstack([self.reached, one]), reference) - before for one in hoped]
        return int(np.argmax(found))

    def cannot_reach(self, row: Array, speed: float, confidence: float) -> tuple[float, float] | None:
        """Say whether no plausible accuracy puts an architecture of this speed on the front of those tried so far.

        Return the most accuracy that is plausible with this confidence and the one it would have to beat, or None
        where it might.
        """
        faster = self.reached[self.reached[:, 1] >= speed, 0]
        if not len(faster):
            return None
        bound = min(100.0, self.accuracy.upper(row, confidence))
        return (bound, float(faster.max())) if bound < faster.max() else None


def rank_correlation(predicted: Array, found: Array) -> float:
    """Return Spearman's rank correlation; nought where it cannot be told."""
    if len(found) < FEWEST or np.ptp(predicted) == 0 or np.ptp(found) == 0:
        return 0.0
    return float(stats.spearmanr(predicted, found).statistic)
