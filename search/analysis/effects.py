"""What each arm changes: differences from the baseline, paired by seed, with intervals."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from search.analysis.inference import Difference, alpha_each, decide, difference, looks
from search.analysis.records import SPEEDS
from search.predictions import unpack

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
    seeds, Student's 95 % interval); effect, effect_low, effect_high (difference from the baseline at the same seeds,
    percentage points, 95 % interval for other seeds and other test images); p, p_equivalent (corrected over the
    arms, see search.analysis.inference.decide), verdict, smallest_effect, seeds_needed, correlation;
    train_ and infer_ throughput and ratio with their 95 % intervals, flags (what disturbed the measurement);
    params, macs, seconds.
    What fewer than two seeds cannot give is NaN.
    """
    column = accuracy_column(frame)
    done = frame[frame["state"] == "COMPLETE"]
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
            for name in SPEEDS.values():
                row[f"{mode}_{name}"] = own[f"{mode}_{name}"].astype(float).median()
        if column is not None:
            row |= _accuracy(own[column].dropna().tolist())
        rows.append(row)
    table = pd.DataFrame(rows)
    return table if column is None else table.merge(_decided(frame), on="arm", how="left", validate="1:1")


def differences(frame: pd.DataFrame, arm: str) -> pd.Series:
    """Return the arm's accuracy minus the baseline's, indexed by the seeds that both have, in points."""
    own, base = _paired(frame, arm)
    return (own["accuracy"] - base["accuracy"]).astype(float)


def compared(frame: pd.DataFrame, arm: str, seeds: int | None = None) -> Difference:
    """Estimate the arm's difference from the baseline over the seeds that both have, test images where kept.

    `seeds`: only the first so many of them.
    """
    own, base = (side.head(seeds) if seeds is not None else side for side in _paired(frame, arm))
    correct = None
    if accuracy_column(frame) == "test_accuracy" and len(own) and all([*own["test_correct"], *base["test_correct"]]):
        stacks = [np.array([unpack(packed) for packed in side["test_correct"]]) for side in (own, base)]
        if stacks[0].shape == stacks[1].shape:
            correct = (stacks[0], stacks[1])
    return difference(own["accuracy"].tolist(), base["accuracy"].tolist(), correct)


def _paired(frame: pd.DataFrame, arm: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the arm's and the baseline's complete trials at the seeds that both have, in the same order."""
    done = frame[(frame["state"] == "COMPLETE") & frame[accuracy_column(frame)].notna()]
    done = done.assign(accuracy=done[accuracy_column(frame)].astype(float))
    own, base = done[done["arm"] == arm].set_index("seed"), done[done["baseline"]].set_index("seed")
    seeds = own.index.intersection(base.index).sort_values()
    return own.loc[seeds], base.loc[seeds]


def planned_looks(seeds: Any) -> list[int]:
    """Return at how many seeds a study's verdicts are looked at; once at the end unless its seeds are adaptive."""
    return looks(seeds["min"], seeds["max"]) if isinstance(seeds, dict) else [0]


def _looked(frame: pd.DataFrame, arm: str, schedule: list[int]) -> list[Difference]:
    """Return an arm's differences at the looks it has had; of unknown noise before the first."""
    whole = compared(frame, arm)
    if schedule == [0]:
        return [whole]
    had = [compared(frame, arm, count) for count in schedule if count <= whole.seeds]
    return had or [replace(whole, seed_variance=float("nan"))]


def _decided(frame: pd.DataFrame) -> pd.DataFrame:
    arms = frame.loc[~frame["baseline"], "arm"].drop_duplicates()
    definition = frame.attrs["definition"]
    schedule = planned_looks(definition.get("seeds"))
    found = {arm: _looked(frame, arm, schedule) for arm in arms}
    margin, each = definition.get("margin"), alpha_each(len(found), len(schedule))
    decided = decide(found, planned=len(schedule), margin=margin)
    rows = []
    for arm in found:
        one, is_open = compared(frame, arm), decided[arm].verdict == "undecided"
        known = one.error > 0
        low, high = one.interval()
        rows.append(
            {
                "arm": arm,
                "effect": one.effect,
                "effect_low": low,
                "effect_high": high,
                "p": decided[arm].p_different,
                "p_equivalent": decided[arm].p_not_equivalent,
                "verdict": decided[arm].verdict,
                "smallest_effect": one.smallest_effect(each) if known else float("nan"),
                "seeds_needed": one.seeds_needed(margin, each) if known and is_open else None,
                "correlation": one.correlation,
            }
        )
    columns = ["arm", "effect", "effect_low", "effect_high", "p", "p_equivalent", "verdict", "smallest_effect"]
    return pd.DataFrame(rows, columns=[*columns, "seeds_needed", "correlation"])


def _accuracy(values: list[float]) -> dict[str, float]:
    mean, low, high = interval(values)
    # Student's interval knows nothing of the scale's ends; what lies beyond them is no accuracy.
    return {
        "accuracy": mean,
        "accuracy_low": float(np.fmax(low, 0)) if np.isfinite(low) else low,
        "accuracy_high": float(np.fmin(high, 100)) if np.isfinite(high) else high,
    }
