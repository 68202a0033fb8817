"""What a few seeds and one test set can decide: differences with intervals that hold, and verdicts on arms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Verdict = Literal["hurts", "helps", "equivalent", "undecided"]
ALPHA, POWER, MOST_SEEDS = 0.05, 0.8, 1000
LEAST = -60.0  # logarithm of the smallest p-value told


@dataclass(frozen=True)
class Difference:
    """A difference of mean accuracies, an arm's minus the baseline's, in percentage points, and what its noise is.

    `seed_variance` is that of the difference from seed to seed, `image_variance` that of its mean over seeds from one
    test set of this size to another, 0 where predictions were not kept. `correlation` is that of the two sides'
    accuracies over seeds: above zero, pairing by seed has narrowed the interval. `by_seed` has the differences.
    """

    effect: float
    seeds: int
    seed_variance: float
    image_variance: float = 0.0
    images: int = 0
    correlation: float = float("nan")
    by_seed: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """The standard error."""
        return float(np.sqrt(self._variances(np.array([self.seeds])))[0]) if self.seeds > 1 else float("nan")

    @property
    def df(self) -> float:
        """Degrees of freedom of the error, after Satterthwaite, as Hillis (2007) has them for readers and cases."""
        return float(self._dfs(np.array([self.seeds]))[0]) if self.seeds > 1 else float("nan")

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Return the ends of the interval that holds the difference in all but `alpha` of studies; NaN if unknown."""
        half = float(self._criticals(np.array([self.seeds]), alpha / 2)[0]) * self.error
        return self.effect - half, self.effect + half

    def p_different(self) -> float:
        """Return the two-sided p-value of no difference; NaN where the noise is unknown."""
        return 2 * self._tail(abs(self.effect))

    def p_not_equivalent(self, margin: float) -> float:
        """Return the p-value of a difference of `margin` or more: two one-sided tests (Schuirmann 1987)."""
        return self._tail(margin - abs(self.effect))

    def smallest_effect(self, alpha: float = ALPHA) -> float:
        """Return the difference that these seeds would have seen in four studies of five."""
        critical, grid = self._criticals(np.array([self.seeds]), alpha / 2)[0], np.linspace(0, 60, 6001)
        power = stats.nct.sf(critical, self.df, grid)
        seen = grid[np.nanargmax(power >= POWER)] if (power >= POWER).any() else float("nan")
        return float(seen * self.error)

    def seeds_needed(self, margin: float | None, alpha: float = ALPHA) -> int | None:
        """Return with how many seeds a difference like this one would be decided, in four studies of five.

        One beyond the margin is to be told from zero, one within it to be shown equivalent. None where more than
        a thousand would be needed: the test set, not the number of seeds, is then what is too small.
        """
        counts = np.arange(self.seeds + 1, MOST_SEEDS + 1)
        errors, dfs = np.sqrt(self._variances(counts)), self._dfs(counts)
        if margin is not None and abs(self.effect) < margin:
            power = stats.nct.sf(self._criticals(counts, alpha), dfs, (margin - abs(self.effect)) / errors)
        else:
            power = stats.nct.sf(self._criticals(counts, alpha / 2), dfs, abs(self.effect) / errors)
        enough = counts[power >= POWER]
        return int(enough[0]) if len(enough) else None

    def _criticals(self, seeds: NDArray[np.int_], tail: float) -> NDArray[np.float64]:
        """Return how many standard errors the difference exceeds in a share `tail` of studies.

        After Cochran and Cox (1950): each part's own quantile, weighed by its variance. Satterthwaite's degrees of
        freedom, which serve for planning, claim too much for three seeds (benchmarks/statistics_calibration.py).
        """
        own = self.seed_variance / seeds
        with np.errstate(invalid="ignore", divide="ignore"):
            found: NDArray[np.float64] = -own * special.stdtrit(np.maximum(seeds - 1, 0), tail)
            if self.image_variance > 0:
                found = found - self.image_variance * special.stdtrit(self.images - 1, tail)
            return found / self._variances(seeds)

    def _tail(self, distance: float) -> float:
        """Return in what share of studies a difference that is nought exceeds `distance` to one side."""
        if not self.error > 0:
            return float("nan")
        far = distance / self.error
        if self.image_variance == 0:
            return float(special.stdtr(self.seeds - 1, -far))
        count = np.array([self.seeds])

        def beyond(log_tail: float) -> float:
            return float(self._criticals(count, float(np.exp(log_tail)))[0]) - abs(far)

        found = LEAST if beyond(LEAST) < 0 else optimize.brentq(beyond, LEAST, np.log(0.5))
        tail = float(np.exp(found))
        return tail if far >= 0 else 1 - tail

    def _variances(self, seeds: NDArray[np.int_]) -> NDArray[np.float64]:
        return self.seed_variance / seeds + self.image_variance

    def _dfs(self, seeds: NDArray[np.int_]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            parts = (self.seed_variance / seeds) ** 2 / (seeds - 1) + self.image_variance**2 / max(1, self.images - 1)
            found: NDArray[np.float64] = self._variances(seeds) ** 2 / parts
        return found


def estimate(
    own: NDArray[np.float64], base: NDArray[np.float64], by_image: NDArray[np.float64] | None = None
) -> Difference:
    """Estimate the mean of ``own - base``, accuracies in percent at the same seeds, each an arm's or a mean of arms'.

    `by_image` has the same difference seed by seed and test image by test image, (seeds, images), in points. Seeds and
    images are then both a sample: the variance of the mean is that of two random factors crossed, as in reader studies,
    where readers and cases are (Obuchowski and Rockette 1995), so the interval holds for other seeds *and* other test
    images. A permutation of three seeds' signs cannot fall below p = 0.25 and a bootstrap of three seeds does not
    cover; Student's t on the differences holds for any variance of either side.

    The variance is unknown, and with it everything but the effect, for fewer than two seeds, and where all
    differences are equal: a few readings that happen to agree do not show that there is no noise.
    """
    d = own - base
    seeds = len(d)
    effect, by_seed = float(d.mean()) if seeds else float("nan"), tuple(d.tolist())
    if seeds < 2 or np.ptp(d) == 0:
        return Difference(effect, seeds, float("nan"), by_seed=by_seed)
    spread = np.ptp(own) > 0 and np.ptp(base) > 0
    correlation = float(np.corrcoef(own, base)[0, 1]) if spread and seeds > 2 else float("nan")
    seed_variance = float(d.var(ddof=1))
    if by_image is None:
        return Difference(effect, seeds, seed_variance, correlation=correlation, by_seed=by_seed)
    images = by_image.shape[1]
    means = by_image.mean(0)
    residual = by_image - by_image.mean(1, keepdims=True) - means + by_image.mean()
    both = float((residual**2).sum() / ((seeds - 1) * (images - 1)))
    image_variance = max(0.0, float(means.var(ddof=1)) / images - both / (seeds * images))
    return Difference(effect, seeds, seed_variance, image_variance, images, correlation, by_seed)


def looks(first: int, last: int) -> list[int]:
    """Return at how many seeds an adaptive study looks at its verdicts: each time twice as many.

    Every look costs a share of alpha, so looking more often decides less.
    """
    found = [first]
    while found[-1] < last:
        found.append(min(last, 2 * found[-1]))
    return found


def spent(count: int) -> list[float]:
    """Return the share of alpha that each of `count` looks may spend: half at the first, the rest evenly.

    Alpha spending (Lan and DeMets 1983) in its plainest form, whose shares add up to one: by the union bound the error
    rate holds whatever the correlation of the looks and however an arm came to be looked at again. Most effects that
    can be found are found at the first look, so it gets most.
    """
    return [1.0] if count == 1 else [0.5, *[0.5 / (count - 1)] * (count - 1)]


def interval_alpha(taken: int, planned: int, alpha: float = ALPHA) -> float:
    """Return at which level an interval covers its share of studies after `taken` of `planned` looks.

    An arm that stops early does so because its effect looks large, or its noise small, so a plain interval covers too
    little. 0.8 of the alpha spent so far was found by simulation (benchmarks/statistics_calibration.py). Repeated
    confidence intervals (Jennison and Turnbull 1989) cover for certain, but too much: 97 to 99 % there.
    """
    return alpha if planned == 1 else 0.8 * alpha * sum(spent(planned)[:taken])


@dataclass(frozen=True)
class Decision:
    """What the data say of one arm. p-values are corrected for the looks taken, and over the arms (Holm 1979)."""

    verdict: Verdict
    p_different: float
    p_not_equivalent: float


def decide(
    found: Mapping[str, Sequence[Difference]],
    *,
    planned: int = 1,
    margin: float | None = None,
    alpha: float = ALPHA,
) -> dict[str, Decision]:
    """Decide on every arm of a study; false verdicts of either sort in at most `alpha` of studies.

    `found` has each arm's differences, one a look, of the `planned` ones; the last is the newest. An arm is
    *equivalent* where a difference of the margin or more is ruled out, else *hurts* or *helps* where no difference is;
    else it is *undecided*. A verdict once reached stays.
    """
    different = holm([_over_looks([one.p_different() for one in arm], planned) for arm in found.values()])
    unlike = holm(
        [
            float("nan") if margin is None else _over_looks([one.p_not_equivalent(margin) for one in arm], planned)
            for arm in found.values()
        ]
    )
    decisions = {}
    for (name, arm), p, q in zip(found.items(), different, unlike, strict=True):
        verdict: Verdict = "undecided"
        if q < alpha:
            verdict = "equivalent"
        elif p < alpha:
            verdict = "helps" if arm[-1].effect > 0 else "hurts"
        decisions[name] = Decision(verdict, p, q)
    return decisions


def alpha_each(arms: int, planned: int = 1, alpha: float = ALPHA) -> float:
    """Return the p-value below which one arm of a study is decided whatever the others are, at its last look."""
    return alpha / max(1, arms) * spent(planned)[-1]


def _over_looks(values: Sequence[float], planned: int) -> float:
    """Return a p-value that holds after as many looks: the least of them, each over its share of alpha."""
    weighed = [p / share for p, share in zip(values, spent(planned), strict=False) if not np.isnan(p)]
    return min(1.0, *weighed) if weighed else float("nan")


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979); those that are NaN stay so, and do not count.

    statsmodels has it too, with a garbage collection in each call that takes longer than a simulated study.
    """
    p = np.asarray(values, dtype=float)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]
    p[order] = np.minimum(1.0, np.maximum.accumulate((len(order) - np.arange(len(order))) * p[order]))
    return [float(one) for one in p]
