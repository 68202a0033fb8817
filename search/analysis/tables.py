"""Tables of a study, to be read, pasted and published."""

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from search.analysis.dominance import noisy_front
from search.analysis.effects import effects
from search.analysis.factorial import anova, is_factorial, levels, steps
from search.analysis.findings import by_dimension, replication
from search.analysis.fronts import front
from search.analysis.inference import Difference
from search.analysis.records import NESTED
from search.analysis.scores import Scores, accuracy_column

NONE = "–"
DISTURBED = "†"


def number(value: Any, digits: int = 2, sign: bool = False) -> str:
    """Format a number; what is missing is a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    return f"{value:{'+' if sign else ''},.{digits}f}"


def spread(mid: Any, low: Any, high: Any, digits: int = 2, sign: bool = False) -> str:
    """Format a value with its interval; a dash stands for an interval that the data cannot give."""
    if number(mid) == NONE:
        return NONE
    around = "–" if number(low) == NONE else f"{number(low, digits, sign)} … {number(high, digits, sign)}"
    return f"{number(mid, digits, sign)} [{around}]"


def ratio(row: pd.Series, mode: str) -> str:
    """Format a throughput ratio with its interval; a dagger marks a disturbed measurement."""
    mid, low, high = (row[f"{mode}_ratio{end}"] for end in ("", "_low", "_high"))
    if number(mid) == NONE:
        return NONE
    text = "1 (reference)" if mid == low == high == 1 else spread(mid, low, high, 3)
    return f"{text} {DISTURBED}" if f"{mode}: " in row["flags"] else text


def verdict(row: pd.Series) -> str:
    """Say what the data decide of an arm or step, and of an undecided one what it would take."""
    if row["verdict"] == "undecided":
        return f"undecided: {open_question(row)}"
    p = row["p_equivalent"] if row["verdict"] in ("equivalent", "does not depend") else row["p"]
    return f"{row['verdict']} (p {p:.2g})"


def open_question(row: pd.Series) -> str:
    """Say of an undecided arm or step what would have shown, and what it would take to decide."""
    if pd.isna(row["smallest_effect"]):
        return "too few seeds"
    would = f"{row['smallest_effect']:.1f} would show"
    if pd.isna(row["seeds_needed"]):
        return f"{would}; a larger test set needed"
    more = row["seeds_needed"] - row["seeds"]
    return f"{would}; about {more:.0f} more seed{'s' if more > 1 else ''}"


def main_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the study's result as text, ready to be shown: arms for an ablation, the front for a search."""
    return _front_table(frame) if _kind(frame) == "search" else _arms_table(frame)


def _kind(frame: pd.DataFrame) -> str:
    return str(frame.attrs["definition"].get("kind", "ablation"))


def _arms_table(frame: pd.DataFrame) -> pd.DataFrame:
    rows = []
    accuracy = accuracy_column(frame)
    name = {"test_accuracy": "test", "val_accuracy": "val"}.get(accuracy or "")
    resolutions = frame["resolution"].nunique() > 1
    noisy = noisy_front(frame)
    chances = noisy.on_front if noisy is not None else {}
    crossed = levels(frame) if is_factorial(frame) else None
    for _, row in effects(frame).iterrows():
        cells = {"arm": row["arm"] + (" (baseline)" if row["baseline"] else "")}
        if crossed is not None:
            cells = crossed.loc[row["arm"]].to_dict()
        if accuracy is not None:
            cells["seeds"] = str(row["seeds"]) + (f", {row['failed']} failed" if row["failed"] else "")
            cells[f"{name} accuracy %, 95 % CI"] = spread(row["accuracy"], row["accuracy_low"], row["accuracy_high"])
        if accuracy is not None and crossed is None:
            cells["effect, points, 95 % CI"] = (
                "reference"
                if row["baseline"]
                else spread(row["effect"], row["effect_low"], row["effect_high"], sign=True)
            )
            cells["verdict"] = "reference" if row["baseline"] else verdict(row)
        for mode in ("train", "infer"):
            cells[f"{mode} images/s"] = number(row[f"{mode}_throughput"], _speed_digits(frame))
            cells[f"{mode} ratio, 95 % CI"] = ratio(row, mode)
        if chances:
            cells["P(front)"] = probability(chances.get(row["arm"]))
        cells |= _counts(row)
        if resolutions:
            cells["pixels"] = str(row["resolution"])
        rows.append(cells)
    return pd.DataFrame(rows)


def steps_table(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return what each step of a factor does, as text, or None where the arms are no grid."""
    if not is_factorial(frame) or accuracy_column(frame) is None:
        return None
    rows = [
        {
            "step": row["term"],
            "seeds": str(row["seeds"]),
            "effect, points, 95 % CI": spread(row["effect"], row["effect_low"], row["effect_high"], sign=True),
            "verdict": verdict(row),
        }
        for _, row in steps(frame).iterrows()
    ]
    return pd.DataFrame(rows)


def variance_table(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return the analysis of variance as text, or None where there is none."""
    found = anova(frame) if is_factorial(frame) and accuracy_column(frame) is not None else None
    if found is None:
        return None
    rows = [
        {
            "term": row["term"],
            "df": str(row["df"]),
            "share of the variation": f"{row['share']:.1%}",
            "F": number(row["F"], 1),
            "p": NONE if pd.isna(row["p"]) else f"{row['p']:.2g}",
        }
        for _, row in found.iterrows()
    ]
    return pd.DataFrame(rows)


def probability(value: float | None) -> str:
    """Format a probability that was found from draws: none is certain."""
    return NONE if value is None else "> 0.99" if value > 0.99 else "< 0.01" if value < 0.01 else f"{value:.2f}"


def _speed_digits(frame: pd.DataFrame) -> int:
    slowest = pd.to_numeric(frame["train_throughput"]).min()
    return 2 if slowest < 10 else 1 if slowest < 100 else 0


def _counts(row: pd.Series) -> dict[str, str]:
    params, macs = float(row["params"]), float(row["macs"])
    return {
        "params M": number(params / 1e6, 1 if params >= 1e7 else 4),
        "MACs G": number(macs / 1e9, 1 if macs >= 1e9 else 4),
    }


def _front_table(frame: pd.DataFrame) -> pd.DataFrame:
    rows = []
    noisy = noisy_front(frame)
    chances = noisy.on_front if noisy is not None else {}
    for _, row in front(frame).iterrows():
        cells = {"architecture": row["arm"]}
        for name in frame.columns:
            if name.startswith("param."):
                cells[name.removeprefix("param.")] = _short(row[name])
        cells |= {
            "val accuracy %": number(row["accuracy"]),
            "seeds": str(row["seeds"]),
            "test accuracy %": number(row["test_accuracy"]),
            "train images/s": number(row["train_throughput"], _speed_digits(frame)),
            "train ratio, 95 % CI": ratio(row, "train"),
            "P(front)": probability(chances.get(row["arm"])),
        }
        rows.append(cells | _counts(row))
    return pd.DataFrame(rows)


def replication_table(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return the front before and after further seeds as text, or None where there are none."""
    found = replication(frame) if _kind(frame) == "search" else None
    if found is None:
        return None
    rows = [
        {
            "architecture": row.arm,
            "train ratio": number(row.train_ratio, 3),
            "val accuracy %, first seed": number(row.first),
            "mean over seeds": number(row.mean),
            "seeds": str(row.seeds),
            "on the front by the first": "yes" if row.before else "no",
            "by all": "yes" if row.after else "no",
        }
        for row in found.itertuples()
    ]
    return pd.DataFrame(rows)


def dimensions_table(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return how much of the front each value of each dimension reaches by itself, as text."""
    found = by_dimension(frame) if _kind(frame) == "search" else pd.DataFrame()
    if found.empty:
        return None
    rows = [
        {
            "dimension": row["dimension"],
            "value": _short(row["value"]),
            "trained to the end": str(row["tried"]),
            "share of the front, %, 95 % CI": _percent(row),
        }
        for _, row in found.iterrows()
    ]
    return pd.DataFrame(rows)


def _percent(row: pd.Series) -> str:
    mid, low, high = (100 * row[f"share{end}"] for end in ("", "_low", "_high"))
    return spread(mid, low, high, 1)


def _short(value: Any) -> str:
    return f"{value:g}" if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def agreement(ours: Difference, verdict: str, paper: float, margin: float | None = None) -> str:
    """Compare the direction of a published difference, of one seed, with ours.

    How far a single seed can be trusted the paper does not say: the spread of this study's own seeds is the
    yardstick. Where that is wider than the published difference, or ours is undecided, nobody can tell.
    """
    if verdict == "equivalent" and margin is not None and abs(paper) < margin:
        return "agrees"
    if verdict not in ("hurts", "helps"):
        return "cannot tell"
    single = float(stats.t.ppf(0.975, max(1, ours.seeds - 1)) * np.sqrt(ours.seed_variance))
    if abs(paper) <= single:
        return "cannot tell: one seed"
    return "agrees" if (paper > 0) == (ours.effect > 0) else "contradicts"


def paper_table(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return published rows beside ours, or None where the study names none.

    Accuracies as differences from either side's baseline row, throughput as ratios to it: levels of another
    data set or machine cannot be compared. The paper's baseline is the row that our baseline arm names.
    """
    definition = frame.attrs["definition"]
    published = definition.get("paper")
    if not published:
        return None
    theirs = published["rows"]
    base = theirs.get(definition["baseline"])
    ours, scores = effects(frame).set_index("arm"), Scores.of(frame)
    rows = []
    for arm, row in theirs.items():
        if arm not in ours.index:
            continue
        own = ours.loc[arm]
        cells = {"arm": arm}
        if "effect" in ours.columns:
            cells["effect, ours (points)"] = (
                "reference"
                if arm == definition["baseline"]
                else spread(own["effect"], own["effect_low"], own["effect_high"], sign=True)
            )
        if base is not None:
            cells["effect, paper (points, one seed)"] = (
                "reference" if row is base else number(row["top1"] - base["top1"], 1, sign=True)
            )
        if base is not None and "effect" in ours.columns and row is not base:
            cells["agreement"] = agreement(
                scores.contrast({arm: 1, definition["baseline"]: -1}),
                str(own["verdict"]),
                row["top1"] - base["top1"],
                definition.get("margin"),
            )
        for mode in ("train", "infer"):
            cells[f"{mode} ratio, ours"] = ratio(own, mode)
            if base is not None:
                cells[f"{mode} ratio, paper"] = number(row[mode] / base[mode], 3)
        cells |= {f"{name}, ours": value for name, value in _counts(own).items()}
        cells |= {"params M, paper": f"{row['params']:g}", "MACs G, paper": f"{row['macs']:g}"}
        rows.append(cells)
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the study's result as plain data that JSON can hold: counts of trials, a row an arm or choice."""
    table = front(frame) if _kind(frame) == "search" else effects(frame)
    states = {str(state).lower(): int(count) for state, count in frame["state"].value_counts().items()}
    found: dict[str, Any] = {"trials": states, "result": _records(table.drop(columns=list(NESTED), errors="ignore"))}
    if is_factorial(frame) and accuracy_column(frame) is not None:
        found["steps"] = _records(steps(frame))
    return found


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            str(key): list(value)
            if isinstance(value, tuple)
            else None
            if pd.isna(value)
            else getattr(value, "item", lambda value=value: value)()
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]


def markdown(table: pd.DataFrame) -> str:
    """Return a GitHub-style table."""
    head = [str(name) for name in table.columns]
    body = [[str(cell).replace("|", "\\|") for cell in row] for row in table.itertuples(index=False)]
    align = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, align, *body]) + "\n"
