"""How sure a measurement is: robust centres, with intervals that hold for rounds that resemble their neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.stats.mstats import trimmed_mean, trimmed_stde, winsorize

CONFIDENCE = 0.95
TRIM = (0.2, 0.2)
MOST_BATCHES = 40
FEWEST_FOR_MODES = 40


@dataclass(frozen=True)
class Interval:
    """A centre with the ends of its 95 % interval; the ends are NaN where fewer than three rounds cannot tell."""

    centre: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's width, as a share of the centre."""
        return (self.high - self.low) / 2 / self.centre


def interval(values: Sequence[float]) -> Interval:
    """Estimate the centre of positive `values`, given in the order in which they were measured.

    Works on logarithms, so that a ratio and its inverse have the same interval. A disturbed round is an outlier:
    the centre is the 20 % trimmed mean, its standard error that of Tukey and McLaughlin (1963), from the
    winsorised variance. Rounds that resemble their neighbours tell less than independent ones: they are gathered
    in at most 40 batches of neighbours, of trimmed means again (batch means; Schmeiser 1982), and what correlation
    is left between batches widens the interval and takes degrees of freedom by the effective number of a
    first-order autoregression, (1 - r) / (1 + r) (Bayley and Hammersley 1946), r corrected for its bias in short
    series (Marriott and Pope 1954) and never taken as negative. benchmarks/throughput_calibration.py shows the
    coverage.
    """
    logs = np.log(np.asarray(values, dtype=float))
    batches = _batches(logs)
    count = len(batches)
    if count < 3:
        return Interval(float(np.exp(logs.mean())), float("nan"), float("nan"))
    centre = float(trimmed_mean(batches, TRIM))
    kept = count - 2 * int(TRIM[0] * count)
    r = _correlation(np.asarray(winsorize(batches, TRIM)))
    widening = (1 + r) / (1 - r)
    quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, max(1.0, (kept - 1) / widening))
    half = float(quantile * trimmed_stde(batches, TRIM) * np.sqrt(widening))
    return Interval(float(np.exp(centre)), float(np.exp(centre - half)), float(np.exp(centre + half)))


def _batches(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    size = max(1, len(logs) // MOST_BATCHES)
    count = len(logs) // size
    centres: NDArray[np.float64] = stats.trim_mean(logs[len(logs) - count * size :].reshape(count, size), TRIM[0], 1)
    return centres


def _correlation(values: NDArray[np.float64]) -> float:
    """Return the correlation of neighbours, between 0 and 0.95."""
    centred, count = values - values.mean(), len(values)
    power = float(centred @ centred)
    if power == 0 or count <= 4:
        return 0.0
    raw = float(centred[:-1] @ centred[1:]) / power
    return min(0.95, max(0.0, (raw + 1 / count) / (1 - 4 / count)))


def bimodal(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the two centres where at least 40 `values` fall into two groups, else None.

    The groups are split at the widest gap inside the middle 80 %. They are two where that gap is wider than either
    group's own spread, the centres differ by more than 3 %, and Ashman's D exceeds 4: above 2 is the authors' mark
    for a mixture (Ashman, Bird and Zepf 1994), but a single bell cut in its middle has 2.6 already.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    if len(ordered) < FEWEST_FOR_MODES:
        return None
    margin = len(ordered) // 10
    gaps = np.diff(ordered)[margin - 1 : len(ordered) - margin]
    cut = margin + int(np.argmax(gaps))
    below, above = ordered[:cut], ordered[cut:]
    spreads = float(below.std(ddof=1)), float(above.std(ddof=1))
    centres = float(np.median(below)), float(np.median(above))
    apart = centres[1] - centres[0]
    ashman = np.sqrt(2) * apart / max(float(np.hypot(*spreads)), 1e-300)
    return centres if gaps.max() > max(spreads) and apart > 0.03 * centres[0] and ashman > 4 else None
