"""What a search found beside its front: what was saved and missed, what luck there was, what the front is made of."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from search.analysis.dominance import noisy_front
from search.analysis.fronts import scored
from search.analysis.inference import ALPHA
from search.analysis.once import once
from search.strategy.predictors import JUDGED, rank_correlation
from search.strategy.ranking import hypervolume


@dataclass(frozen=True)
class Savings:
    """How much training pruning saved, and what the audit says of what it missed.

    `epochs` were trained of the first seeds, of `full` that all feasible candidates would have taken. Of the
    candidates that were to be given up, `audited` were trained to the end all the same; `missed` of these are on the
    front, `regret` is the share of the front's hypervolume that it would lack without them, and `missed_low`,
    `missed_high` the 95 % interval (Clopper and Pearson 1934) of the share of all those `given_up` that would be.
    """

    epochs: int
    full: int
    given_up: dict[str, int]
    audited: int
    missed: int
    missed_low: float
    missed_high: float
    regret: float

    @property
    def share(self) -> float:
        """The share of training that was saved."""
        return 1 - self.epochs / self.full if self.full else 0.0


def savings(frame: pd.DataFrame) -> Savings | None:
    """Return what was saved and missed, or None where nothing was to be given up."""
    first = frame[(pd.to_numeric(frame["seed"]) == 0) & frame["state"].isin(["COMPLETE", "PRUNED"])]
    given_up = first["stopped"].value_counts().to_dict()
    if not given_up and first["audited"].isna().all():
        return None
    recipe = frame.attrs["definition"].get("recipe") or {}
    total = int(recipe.get("epochs", 0)) + int(recipe.get("cooldown_epochs", 0))
    trained = first[first["stopped"] != "infeasible"]
    done = scored(frame)
    audited = done[done["audited"].notna()]
    missed, n = int(audited["on_front"].sum()), len(audited)
    low, high = stats.binomtest(missed, n).proportion_ci(1 - ALPHA) if n else (0.0, 1.0)
    points = done[["accuracy", "train_ratio"]].to_numpy(dtype=float)
    volume = hypervolume(points)
    without = hypervolume(points[done["audited"].isna().to_numpy()])
    return Savings(
        epochs=int(trained["epochs"].sum()),
        full=total * len(trained),
        given_up={str(why): int(count) for why, count in given_up.items()},
        audited=n,
        missed=missed,
        missed_low=float(low),
        missed_high=float(high),
        regret=1 - without / volume if volume else 0.0,
    )


def replication(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return who was on the front by the first seed alone or is by all: arm, first, mean, seeds, before, after.

    None where no architecture has a second seed.
    """
    done = scored(frame)
    if done.empty or done["seeds"].max() < 2:
        return None
    shown = done[done["first_front"] | done["on_front"]].sort_values("train_ratio", ascending=False)
    columns = {"first_accuracy": "first", "accuracy": "mean", "first_front": "before", "on_front": "after"}
    return shown.rename(columns=columns)[["arm", "train_ratio", "first", "mean", "seeds", "before", "after"]]


@once
def by_dimension(frame: pd.DataFrame) -> pd.DataFrame:
    """Return how much of the front each value of each dimension reaches by itself.

    One row a dimension and value: tried (architectures that were trained to the end), share (of the whole front's
    hypervolume, the median over what noise leaves possible), share_low, share_high (its 95 % interval). What was given
    up is not counted against a value.
    """
    done, noisy = scored(frame), noisy_front(frame)
    rows: list[dict[str, Any]] = []
    if noisy is not None and len(done) > 1 and ((whole := noisy.hypervolumes()) > 0).any():
        for name in [str(one) for one in frame.columns if str(one).startswith("param.")]:
            for value in sorted(done[name].dropna().unique()):
                own = (done[name] == value).to_numpy()
                shares = noisy.only(own).hypervolumes()[whole > 0] / whole[whole > 0]
                low, mid, high = np.quantile(shares, (ALPHA / 2, 0.5, 1 - ALPHA / 2))
                cells = {"tried": int(own.sum()), "share": mid, "share_low": low, "share_high": high}
                rows.append({"dimension": name.removeprefix("param."), "value": value, **cells})
    return pd.DataFrame(rows, columns=["dimension", "value", "tried", "share", "share_low", "share_high"])


def prediction_quality(frame: pd.DataFrame) -> dict[str, tuple[float, int]]:
    """Return Spearman's rank correlation of what was expected beforehand and found, and of how many; where enough."""
    first = frame[pd.to_numeric(frame["seed"]) == 0]
    found = {}
    for name, column in (("accuracy", "val_accuracy"), ("ratio", "train_ratio")):
        known = first[first[f"expected_{name}"].notna() & first[column].notna()]
        if len(known) >= JUDGED:
            pair = (known[f"expected_{name}"].to_numpy(dtype=float), known[column].to_numpy(dtype=float))
            found[name] = rank_correlation(*pair), len(known)
    return found


def nearest_feasible(frame: pd.DataFrame) -> pd.Series | None:
    """Return, where constraints left nothing, the candidate that breaks them least."""
    broken = frame[frame["stopped"] == "infeasible"]
    if broken.empty or len(scored(frame)):
        return None
    return broken.iloc[int(np.argmin(broken["violation"].to_numpy(dtype=float)))]
