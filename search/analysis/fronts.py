"""Accuracy against throughput: which architectures nothing else beats, and what mattered in the search."""

import optuna
import pandas as pd
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.analysis.once import once
from search.strategy.ranking import hypervolume, non_dominated


@once
def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the architectures trained to the end that keep the constraints, and whether each is ``on_front``.

    ``accuracy`` is the validation's, the mean over the ``seeds`` it has: architectures are chosen by it, and the test
    accuracy is only reported. ``first_accuracy`` is that of its first seed, ``first_front`` whether it was on the front
    by that. ``seed_variance`` is NaN for one seed.
    Speed is the ratio to the base, measured within rounds: images/s drift with the machine from trial to trial.
    """
    done = frame[(frame["state"] == "COMPLETE") & frame["val_accuracy"].notna() & frame["train_ratio"].notna()]
    done = done[done["violation"] <= 0]
    accuracy = done["val_accuracy"].astype(float)
    by_arm = accuracy.groupby(done["arm"], sort=False)
    rows = done.sort_values(["number"]).drop_duplicates("arm").set_index("arm", drop=False)
    test = pd.to_numeric(done["test_accuracy"]).groupby(done["arm"]).mean()
    rows = rows.assign(
        accuracy=by_arm.mean(),
        first_accuracy=rows["val_accuracy"].astype(float),
        seeds=by_arm.size(),
        seed_variance=by_arm.var(),
        test_accuracy=test,
        train_ratio=rows["train_ratio"].astype(float),
    ).reset_index(drop=True)
    for name, column in (("on_front", "accuracy"), ("first_front", "first_accuracy")):
        rows[name] = non_dominated(rows[[column, "train_ratio"]].to_numpy(dtype=float))
    return rows


def front(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the architectures that no other beats in both accuracy and training throughput, fastest first.

    One reading each; search.analysis.dominance.noisy_front takes the noise into account.
    """
    done = scored(frame)
    return done[done["on_front"]].sort_values("train_ratio", ascending=False)


def hypervolume_over_trials(frame: pd.DataFrame) -> pd.Series:
    """Return the hypervolume after each complete trial, indexed by the trial's number.

    Unit: percentage points times the ratio of training throughput, from the reference (0, 0).
    """
    done = scored(frame).sort_values("number")
    points = done[["accuracy", "train_ratio"]].to_numpy(dtype=float)
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
