"""What each arm changes: differences from the baseline, paired by seed, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from search.analysis.inference import Difference, alpha_each, decide, interval_alpha, looks
from search.analysis.once import once
from search.analysis.records import SPEEDS
from search.analysis.scores import Scores, accuracy_column

CONFIDENCE = 0.95
JUDGED = (
    *("effect", "effect_low", "effect_high", "p", "p_equivalent"),
    *("verdict", "smallest_effect", "seeds_needed", "correlation", "by_seed"),
)


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


@once
def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row an arm, in the study's order.

    Columns: arm, factor, baseline, seeds, failed; accuracy, accuracy_low, accuracy_high (percent, mean over
    seeds, Student's 95 % interval); effect, effect_low, effect_high (difference from the baseline at the same seeds,
    percentage points, 95 % interval for other seeds and other test images); p, p_equivalent (corrected over the
    arms, see search.analysis.inference.decide), verdict, smallest_effect, seeds_needed, correlation, by_seed;
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


def planned_looks(seeds: Any) -> list[int]:
    """Return at how many seeds a study's verdicts are looked at; once at the end unless its seeds are adaptive."""
    return looks(seeds["min"], seeds["max"]) if isinstance(seeds, dict) else [0]


def _decided(frame: pd.DataFrame) -> pd.DataFrame:
    arms = frame.loc[~frame["baseline"], "arm"].drop_duplicates()
    base = next(iter(frame.loc[frame["baseline"], "arm"]), "")
    schedule = planned_looks(frame.attrs["definition"].get("seeds"))
    scores = Scores.of(frame)
    whole = {arm: scores.contrast({arm: 1, base: -1}) for arm in arms}
    looked = {arm: _looked(scores, arm, base, one, schedule) for arm, one in whole.items()}
    rows = judged(whole, looked, planned=len(schedule), margin=frame.attrs["definition"].get("margin"))
    return pd.DataFrame([{"arm": arm, **row} for arm, row in rows.items()], columns=["arm", *JUDGED])


def _looked(scores: Scores, arm: str, base: str, whole: Difference, schedule: list[int]) -> list[Difference]:
    """Return an arm's differences at the looks it has had; of unknown noise before the first."""
    if schedule == [0]:
        return [whole]
    had = [scores.contrast({arm: 1, base: -1}, count) for count in schedule if count <= whole.seeds]
    return had or [replace(whole, seed_variance=float("nan"))]


def judged(
    found: Mapping[str, Difference],
    looked: Mapping[str, Sequence[Difference]] | None = None,
    *,
    planned: int = 1,
    margin: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Return what is known of each contrast, the columns of JUDGED by name; p-values are corrected over all of them.

    `looked` has each contrast at the looks taken of the `planned` ones, where there were several.
    """
    looked = looked or {name: [one] for name, one in found.items()}
    each = alpha_each(len(found), planned)
    decided = decide(looked, planned=planned, margin=margin)
    rows = {}
    for name, one in found.items():
        low, high = one.interval(interval_alpha(len(looked[name]), planned))
        known, is_open = one.error > 0, decided[name].verdict == "undecided"
        values = (
            *(one.effect, low, high, decided[name].p_different, decided[name].p_not_equivalent),
            *(decided[name].verdict, one.smallest_effect(each) if known else float("nan")),
            *(one.seeds_needed(margin, each) if known and is_open else None, one.correlation, one.by_seed),
        )
        rows[name] = dict(zip(JUDGED, values, strict=True))
    return rows


def _accuracy(values: list[float]) -> dict[str, float]:
    mean, low, high = interval(values)
    # Student's interval knows nothing of the scale's ends; what lies beyond them is no accuracy.
    return {
        "accuracy": mean,
        "accuracy_low": float(np.fmax(low, 0)) if np.isfinite(low) else low,
        "accuracy_high": float(np.fmin(high, 100)) if np.isfinite(high) else high,
    }
