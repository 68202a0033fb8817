"""Factorial studies: what each factor does, and whether it does so wherever the other factors stand."""

from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from numpy.typing import NDArray
from statsmodels.stats.anova import anova_lm

from search.analysis.effects import JUDGED, judged
from search.analysis.once import once
from search.analysis.scores import Scores

VERDICTS = {"hurts": "depends", "helps": "depends", "equivalent": "does not depend", "undecided": "undecided"}


def is_factorial(frame: pd.DataFrame) -> bool:
    """Say whether the study's arms are a grid of factors."""
    return bool(frame.attrs["definition"].get("kind") == "factorial")


def levels(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the level of each factor (columns) in each arm (rows), as text; the baseline's come first."""
    arms = frame.attrs["definition"]["arms"]
    return pd.DataFrame({arm: spec["levels"] for arm, spec in arms.items()}).T


@once
def steps(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what a step of each factor away from the baseline's level does, one row a step or pair of steps.

    Columns: term; kind (main, or interaction); factor, step, other, other_step; seeds; effect and what else
    search.analysis.effects.judged returns, corrected over all rows. A main effect is the mean over an even mixture of
    the other factors' levels. An interaction is by how much the step's effect is larger after the other factor's
    step: 0 where neither depends on the other. Effects are weighted sums of the arms' accuracies, the weights those of
    least squares with all pairs of factors (statsmodels), taken seed by seed: unlike the analysis of variance, this
    holds whatever the variance of each arm.

    Where the fraction cannot tell pairs of factors from single ones, main effects only, which then hold where there
    is no interaction.
    """
    cells = levels(frame)
    grid = _grid(cells)
    weights, pairs = _weights(cells, grid)
    rows: dict[str, dict[str, Any]] = {}
    found = {}
    scores = Scores.of(frame)

    def add(term: str, signs: NDArray[np.float64], **columns: str) -> None:
        own = signs @ weights
        used = {arm: float(one) for arm, one in zip(cells.index, own, strict=True) if abs(one) > 1e-9}
        found[term], rows[term] = scores.contrast(used), {"term": term, **columns}

    for name in cells.columns:
        for level in _others(cells, name):
            step = f"{_first(cells, name)} → {level}"
            add(f"{name} {step}", _step(grid, cells, name, level), kind="main", factor=name, step=step)
    for one, other in combinations(cells.columns, 2) if pairs else ():
        for level, second in product(_others(cells, one), _others(cells, other)):
            ways = [f"{_first(cells, name)} → {to}" for name, to in ((one, level), (other, second))]
            signs = _step(grid, cells, one, level, within=(other, second))
            columns = {"factor": one, "step": ways[0], "other": other, "other_step": ways[1]}
            add(f"{one} {ways[0]} × {other} {ways[1]}", signs, kind="interaction", **columns)
    known = judged(found, margin=frame.attrs["definition"].get("margin"))
    table = pd.DataFrame([row | known[term] | {"seeds": found[term].seeds} for term, row in rows.items()])
    table = table.reindex(columns=["term", "kind", "factor", "step", "other", "other_step", "seeds", *JUDGED])
    inner = table["kind"] == "interaction"
    table.loc[inner, "verdict"] = table.loc[inner, "verdict"].map(VERDICTS)
    return table


def anova(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return the analysis of variance with seeds as blocks: term, df, share of the variation, F, p (type II).

    None with fewer than two seeds, after which nothing is left to judge by. It takes all arms to vary alike from seed
    to seed; `steps` does not.
    """
    cells, scores = levels(frame), Scores.of(frame)
    names = {name: f"f{index}" for index, name in enumerate(cells.columns)}
    rows = [
        {"accuracy": value, "seed": int(seed), **{names[name]: cells.loc[arm, name] for name in names}}
        for arm, own in zip(scores.arms, scores.accuracy, strict=True)
        for seed, value in zip(scores.seeds, own, strict=True)
        if np.isfinite(value)
    ]
    if len({row["seed"] for row in rows}) < 2:
        return None
    data = pd.DataFrame(rows)
    _, pairs = _weights(cells, _grid(cells))
    model = smf.ols(f"accuracy ~ C(seed) + ({' + '.join(names.values())}) ** {1 + pairs}", data)
    if len(data) <= model.exog.shape[1] or np.linalg.matrix_rank(model.exog) < model.exog.shape[1]:
        return None
    table = anova_lm(model.fit(), typ=2)
    shown = {short: name for name, short in names.items()}
    terms = [
        "seed" if term == "C(seed)" else " × ".join(shown.get(p, p) for p in term.split(":")) for term in table.index
    ]
    return pd.DataFrame(
        {
            "term": [term.replace("Residual", "rest") for term in terms],
            "df": table["df"].astype(int).to_numpy(),
            "share": (table["sum_sq"] / table["sum_sq"].sum()).to_numpy(),
            "F": table["F"].to_numpy(),
            "p": table["PR(>F)"].to_numpy(),
        }
    )


def _first(cells: pd.DataFrame, name: str) -> str:
    return str(cells[name].iloc[0])


def _others(cells: pd.DataFrame, name: str) -> list[str]:
    return [str(level) for level in cells[name].unique()[1:]]


def _grid(cells: pd.DataFrame) -> pd.DataFrame:
    """Return every combination of the levels, whether it was run or not."""
    return pd.DataFrame(list(product(*(cells[name].unique() for name in cells.columns))), columns=cells.columns)


def _step(
    grid: pd.DataFrame, cells: pd.DataFrame, name: str, level: str, within: tuple[str, str] | None = None
) -> NDArray[np.float64]:
    """Return the weights on the grid of a step's mean effect, or of that `within` another step minus that before it."""
    signs = (grid[name] == level).astype(float) - (grid[name] == _first(cells, name)).astype(float)
    if within is None:
        return np.asarray(signs / (signs > 0).sum())
    other, second = within
    signs *= (grid[other] == second).astype(float) - (grid[other] == _first(cells, other)).astype(float)
    return np.asarray(2 * signs / (signs > 0).sum())


def _weights(cells: pd.DataFrame, grid: pd.DataFrame) -> tuple[NDArray[np.float64], bool]:
    """Return how much each arm counts for each combination's fitted mean, and whether pairs of factors are in the fit.

    Least squares is linear in the accuracies: the design's pseudo-inverse turns them into the coefficients.
    """
    names = {name: f"f{index}" for index, name in enumerate(cells.columns)}
    data, wanted = cells.rename(columns=names), grid.rename(columns=names)
    for pairs in (True, False):
        formula = f"accuracy ~ ({' + '.join(names.values())}) ** {1 + pairs}"
        # Both have all levels of every factor, so the columns are the same.
        run, whole = (smf.ols(formula, each.assign(accuracy=0.0)).exog for each in (data, wanted))
        if np.linalg.matrix_rank(run) == run.shape[1]:
            return whole @ np.linalg.pinv(run), pairs
    raise AssertionError("a study's grid always tells single factors apart")
