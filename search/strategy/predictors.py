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
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from search.strategy.ranking import hypervolume_gains
from space.dimensions import Choice, SearchSpace

Array = NDArray[np.float64]
FEWEST = 5  # architectures below which nothing is fitted
MOST = 200  # architectures that are fitted: the time grows with the third power of their number
JUDGED = 8  # architectures below which a rank correlation says nothing
POOR = 0.3  # rank correlation from which down an order is not followed
UNSURE = 20.0  # points of accuracy by which a curve may be wrong that there is little to compare with
# A trend and what departs from it: with few architectures known, most of what can be told is the trend.
KERNEL = (
    ConstantKernel(1.0, (0.1, 100)) * RBF(2.0, (0.3, 30))
    + ConstantKernel(0.1, (1e-3, 10)) * DotProduct(1.0, "fixed")
    + WhiteKernel(0.1, (1e-3, 1.0))
)
CHANCES = stats.norm.ppf((0.1, 0.3, 0.5, 0.7, 0.9))


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


def extrapolate(so_far: float, then: Array, final: Array) -> tuple[float, float]:
    """Return the accuracy that a curve which has come to `so_far` probably ends with, and its standard error.

    By linear regression on other curves: `then`, at the same epoch, and `final`, in the end.
    """
    if len(final) < 3:
        return so_far + float(np.mean(final - then) if len(final) else 0.0), UNSURE
    slope = max(0.0, float(np.cov(then, final)[0, 1] / (np.var(then, ddof=1) or 1.0)))
    errors = final - final.mean() - slope * (then - then.mean())
    error = math.sqrt(float(errors @ errors) / (len(final) - 2))
    return min(100.0, float(final.mean() + slope * (so_far - then.mean()))), error


class Regression:
    """A Gaussian process over encoded architectures, with what it predicts of each from the others alone.

    `prior` is what was expected of each value by other means: the process is fitted to what is beyond. `errors` are
    standard errors of values that are not found but estimated; these do not count in what is said of its quality.
    `left_out` are the predictions from the others alone (leave-one-out, Rasmussen and Williams 2006, equation 5.12),
    `quality` their rank correlation with what was found. `like`: one whose kernel is taken over, where fitting it anew
    takes too long.
    """

    def __init__(
        self,
        rows: Array,
        values: Array,
        *,
        prior: Array | float = 0.0,
        errors: Array | float = 0.0,
        like: "Regression | None" = None,
    ) -> None:
        beyond = values - prior
        self._mid, self._span = rows.mean(0), np.where(rows.std(0) > 0, rows.std(0), 1.0)
        self._mean, self._scale = float(beyond.mean()), float(beyond.std()) or 1.0
        scaled, targets = (rows - self._mid) / self._span, (beyond - self._mean) / self._scale
        kernel = KERNEL if like is None else like.model.kernel_
        spread = np.broadcast_to(np.asarray(errors, dtype=float), len(rows))
        noise = 1e-10 + (spread / self._scale) ** 2
        self.model: Any = GaussianProcessRegressor(
            kernel, alpha=noise, optimizer="fmin_l_bfgs_b" if like is None else None, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of a length at its bound, which is as good
            self.model.fit(scaled, targets)
        inverse = np.linalg.inv(self.model.kernel_(scaled) + np.diag(noise))
        self.values, self._found = values, spread == 0
        self.left_out: Array = values - self._scale * (inverse @ targets) / np.diag(inverse)

    @property
    def quality(self) -> float:
        """Spearman's rank correlation of predictions and findings, each architecture left out in turn."""
        return rank_correlation(self.left_out[self._found], self.values[self._found])

    def predict(self, rows: Array, prior: Array | float = 0.0) -> Array:
        """Return the prediction for each row."""
        found: Array = prior + self._mean + self._scale * self.model.predict((rows - self._mid) / self._span)
        return found

    def spread(self, rows: Array) -> Array:
        """Return the standard deviation of what each row may have, its own noise among it."""
        found: Array = self._scale * self.model.predict((rows - self._mid) / self._span, return_std=True)[1]
        return found

    def upper(self, row: Array, confidence: float) -> float:
        """Return what the row's value will not exceed, with this confidence; infinite where too few are known.

        The quantile of the residuals of left-out predictions (the jackknife of Barber et al. 2021, arXiv 1905.02928),
        which holds where candidates come in no particular order.
        """
        residuals = np.sort((self.values - self.left_out)[self._found])
        place = math.ceil(confidence * (len(residuals) + 1))
        if place > len(residuals):
            return math.inf
        return float(self.predict(row[None])[0] + residuals[place - 1])


class Knowledge:
    """What the architectures tried so far let one expect of others: accuracy in percent, and throughput.

    `rows` encode them, `reached` (n, 2) has their accuracies and throughputs; `errors` are the standard errors of
    accuracies that are estimated, `prior` the throughputs that were expected before any was measured. Kernels are
    fitted anew whenever a quarter more is known than at the last fit: `before` is the knowledge that one had.
    """

    def __init__(
        self,
        rows: Array,
        reached: Array,
        before: "Knowledge | None" = None,
        *,
        errors: Array | float = 0.0,
        prior: Array | float = 1.0,
    ) -> None:
        kept = before if before is not None and not before.is_outgrown(len(rows)) else None
        found = np.broadcast_to(np.asarray(errors) == 0, len(rows))
        self.reached, self._worst = reached[found], reached.min(0)
        self.fitted: int = len(rows) if kept is None else kept.fitted
        self.accuracy: Regression = Regression(rows, reached[:, 0], errors=errors, like=kept.accuracy if kept else None)
        speeds = np.log(reached[:, 1])
        self.speed: Regression = Regression(rows, speeds, prior=np.log(prior), like=kept.speed if kept else None)

    def is_outgrown(self, count: int) -> bool:
        """Say whether its kernels were fitted to so few that with this many they are fitted anew."""
        return count >= 1.25 * self.fitted

    @property
    def is_poor(self) -> bool:
        """Whether the order that it suggests was found not worth following."""
        return len(self.reached) >= JUDGED and min(self.accuracy.quality, self.speed.quality) <= POOR

    def expect(self, rows: Array, prior: Array | float = 1.0) -> Array:
        """Return the accuracy and throughput expected of each row."""
        return np.column_stack([self.accuracy.predict(rows), np.exp(self.speed.predict(rows, np.log(prior)))])

    def most_promising(self, rows: Array, prior: Array | float = 1.0) -> int:
        """Return which row would enlarge the front's hypervolume most, in the mean over what its accuracy may be."""
        expected, spread = self.expect(rows, prior), self.accuracy.spread(rows)
        reference = self._worst * (1.0, 0.9)  # what is slower than all so far, and better, counts as well
        gains = np.zeros(len(rows))
        for chance in CHANCES:
            accuracy = np.minimum(100.0, expected[:, 0] + chance * spread)
            gains += hypervolume_gains(self.reached, np.column_stack([accuracy, expected[:, 1]]), reference)
        return int(np.argmax(gains))

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
    if len(found) < JUDGED or np.ptp(predicted) == 0 or np.ptp(found) == 0:
        return 0.0
    return float(stats.spearmanr(predicted, found).statistic)
