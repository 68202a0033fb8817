"""Accuracy against throughput: which architectures nothing else beats, and what mattered in the search."""

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

Points = NDArray[np.float64]  # (n, 2), both maximised


def non_dominated(points: Points) -> NDArray[np.bool_]:
    """Return which points no other point equals or exceeds in both coordinates and exceeds in one."""
    order = np.lexsort((-points[:, 1], -points[:, 0]))
    x, y = points[order].T
    # Within one x the highest y comes first; a point must exceed all y of greater x, and equal its own x's highest.
    group = np.cumsum(np.r_[True, x[1:] != x[:-1]][: len(x)]) - 1
    heads = np.flatnonzero(np.r_[True, x[1:] != x[:-1]][: len(x)])
    before = np.r_[-np.inf, np.maximum.accumulate(y[heads])][group]
    found = np.empty(len(points), dtype=bool)
    found[order] = (y > before) & (y == y[heads][group])
    return found


def hypervolume(points: Points, reference: tuple[float, float] = (0.0, 0.0)) -> float:
    """Return the area between `reference` and the front of `points`, both coordinates maximised.

    Points that do not exceed the reference in both coordinates add nothing.
    """
    inside = points[(points > np.asarray(reference)).all(1)]
    area, height = 0.0, reference[1]
    for x, y in inside[np.lexsort((-inside[:, 1], -inside[:, 0]))]:
        if y > height:
            area += (x - reference[0]) * (y - height)
            height = y
    return area


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the complete, trained rows and whether each is ``on_front``.

    ``accuracy`` is the validation's: architectures are chosen by it, and the test accuracy is only reported.
    Speed is the ratio to the base, measured within rounds: images/s drift with the machine from trial to trial.
    """
    done = frame[(frame["state"] == "COMPLETE") & frame["val_accuracy"].notna() & frame["train_ratio"].notna()].copy()
    done["accuracy"] = done["val_accuracy"].astype(float)
    done["train_ratio"] = done["train_ratio"].astype(float)
    points = done[["accuracy", "train_ratio"]].to_numpy(dtype=float)
    done["on_front"] = non_dominated(points)
    return done


def front(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the architectures that no other beats in both accuracy and training throughput, fastest first.

    One reading each; search.analysis.dominance.noisy_front takes the noise into account.
    """
    done = scored(frame)
    return done[done["on_front"]].sort_values("train_ratio", ascending=False)


def hypervolume_over_trials(frame: pd.DataFrame) -> pd.Series:
    """Return the hypervolume after each complete trial, indexed by the trial's number.

    Unit: percentage points times training throughput over the fastest trial's, from the reference (0, 0).
    """
    done = scored(frame).sort_values("number")
    points = done[["accuracy", "train_ratio"]].to_numpy(dtype=float)
    if len(points):
        points = points / np.array([1.0, points[:, 1].max()])
    return pd.Series([hypervolume(points[: n + 1]) for n in range(len(points))], index=done["number"])


def importances(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the share of each sampled dimension in the variance of either score (fANOVA, Hutter et al. 2014).

    One row a dimension, columns accuracy and train_ratio; empty with fewer than ten complete trials, of
    which nothing could be said. A score that is the same in all trials has no shares: NaN.
    """
    done = scored(frame)
    sampled = [name for name in frame.columns if name.startswith("param.")]
    sampled = [name for name in sampled if done[name].notna().all() and done[name].nunique() > 1]
    scores = [score for score in ("accuracy", "train_ratio") if done[score].nunique() > 1]
    if len(done) < 10 or not sampled or not scores:
        return pd.DataFrame(columns=["accuracy", "train_ratio"])
    shares = {}
    for score in scores:
        study = optuna.create_study(direction="maximize")
        study.add_trials([_as_trial(row, sampled, score, done) for _, row in done.iterrows()])
        shares[score] = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    table = pd.DataFrame(shares, index=pd.Index(sampled), columns=["accuracy", "train_ratio"]).astype(float)
    return table.set_axis(table.index.str.removeprefix("param.")).sort_values(scores, ascending=False)


def _as_trial(row: pd.Series, sampled: list[str], score: str, done: pd.DataFrame) -> FrozenTrial:
    choices = {
        name: optuna.distributions.CategoricalDistribution(sorted(done[name].unique().tolist())) for name in sampled
    }
    return create_trial(
        state=TrialState.COMPLETE,
        params={name: getattr(row[name], "item", lambda name=name: row[name])() for name in sampled},
        distributions=dict(choices),
        value=float(row[score]),
    )
