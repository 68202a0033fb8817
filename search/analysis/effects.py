"""What each arm changes: differences from the baseline, paired by seed, with intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


def accuracy_column(frame: pd.DataFrame) -> str | None:
    """Return which accuracy a table is about: the test's where there is one, None where nothing was trained."""
    for name in ("test_accuracy", "val_accuracy"):
        if frame[name].notna().any():
            return name
    return None


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, lower and upper end of Student's 95 % interval.

    The ends are NaN for fewer than two values, and where all are equal: a few readings that happen to agree do
    not show that there is no noise.
    """
    mean = float(np.mean(values)) if len(values) else float("nan")
    if len(set(values)) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row an arm, in the study's order.

    Columns: arm, factor, baseline, seeds, failed; accuracy, accuracy_low, accuracy_high (percent, mean over
    seeds, Student's 95 % interval); effect, effect_low, effect_high, p (difference from the baseline at the same
    seeds, percentage points, and the paired t test's p-value, not corrected for the number of arms);
    train_ and infer_ throughput and ratio with their 95 % intervals, flags (what disturbed the measurement);
    params, macs, seconds.
    What fewer than two seeds cannot give is NaN.
    """
    column = accuracy_column(frame)
    done = frame[frame["state"] == "COMPLETE"]
    baseline = done[done["baseline"]]
    rows = []
    for arm, planned in frame.groupby("arm", sort=False):
        own = done[done["arm"] == arm]
        first = planned.iloc[0]
        row = {
            "arm": arm,
            "factor": first["factor"],
            "baseline": bool(first["baseline"]),
            "seeds": len(own),
            "failed": int((planned["state"] == "FAIL").sum()),
            **{name: first[name] for name in ("params", "macs", "resolution")},
            "seconds": own["seconds_total"].mean(),
            "flags": "; ".join(dict.fromkeys(flag for flag in own["flags"] if flag)),
        }
        for mode in ("train", "infer"):
            for name in (
                "throughput",
                "throughput_low",
                "throughput_high",
                "ratio",
                "ratio_low",
                "ratio_high",
            ):
                row[f"{mode}_{name}"] = own[f"{mode}_{name}"].astype(float).median()
        if column is not None:
            row |= _accuracy(own, baseline, column, bool(first["baseline"]))
        rows.append(row)
    return pd.DataFrame(rows)


def differences(frame: pd.DataFrame, arm: str) -> pd.Series:
    """Return the arm's accuracy minus the baseline's, indexed by the seeds that both have, in points."""
    column = accuracy_column(frame)
    done = frame[frame["state"] == "COMPLETE"]
    own = done[done["arm"] == arm].set_index("seed")[column]
    base = done[done["baseline"]].set_index("seed")[column]
    return (own - base).dropna().astype(float)


def _accuracy(own: pd.DataFrame, baseline: pd.DataFrame, column: str, is_baseline: bool) -> dict[str, float | None]:
    mean, low, high = interval(own[column].dropna().tolist())
    # Student's interval knows nothing of the scale's ends; what lies beyond them is no accuracy.
    row: dict[str, float | None] = {
        "accuracy": mean,
        "accuracy_low": float(np.fmax(low, 0)) if np.isfinite(low) else low,
        "accuracy_high": float(np.fmin(high, 100)) if np.isfinite(high) else high,
    }
    if is_baseline:
        return row | dict.fromkeys(("effect", "effect_low", "effect_high", "p"), float("nan"))
    paired = (own.set_index("seed")[column] - baseline.set_index("seed")[column]).dropna().astype(float)
    effect, effect_low, effect_high = interval(paired.tolist())
    # Differences that do not vary have no t statistic.
    p = float(stats.ttest_1samp(paired, 0).pvalue) if paired.nunique() > 1 else float("nan")
    return row | {"effect": effect, "effect_low": effect_low, "effect_high": effect_high, "p": p}
