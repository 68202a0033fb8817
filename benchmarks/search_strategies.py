"""How much training each strategy needs for how good a front: replayed on a space that was trained whole.

    python -m benchmarks.search_strategies --repetitions 200

Every decision is made by the code that makes it in a search (search.candidates, search.gate); only the training and the
measurement are looked up in the table. The budget counts epochs of training: what is measured and not trained is
counted beside it. The quality of a front is the hypervolume of its architectures by their means over all seeds, over
that of the best front there is, so a lucky draw is worth nothing.
"""

import argparse
import json
import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from search.candidates import Candidates
from search.gate import Gate, Stopped
from search.plan import Job
from search.strategy.ranking import hypervolume, non_dominated
from search.strategy.sampling import SAMPLERS
from search.study import Study
from search.table import Table, read

HERE = Path(__file__).parent
TABLE = HERE.parent / "studies" / "tables" / "laptop.parquet"
CANDIDATES = 64  # what random search trains to the end: its budget is everybody's
SHARES = (0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Strategy:
    """A sampler, and what is done beside it."""

    sampler: str
    measure_first: bool = False
    pruning: bool = False
    predictors: bool = False

    @property
    def name(self) -> str:
        beside = [
            text
            for text, used in (
                ("measure first", self.measure_first),
                ("pruning", self.pruning),
                ("predictors", self.predictors),
            )
            if used
        ]
        return " + ".join([self.sampler, *beside])

    def study(self, table: Table, **pruning: Any) -> Study:
        """Return the search over the table's space that follows this strategy."""
        rungs = {"audit": 0.0, "confidence": 0.95 if self.measure_first else None} | pruning
        if not self.pruning:
            rungs["first"] = table.study.recipe.total_epochs - 1
            rungs["warm_up"] = 10_000
        return Study.parse(
            table.study.to_dict()
            | {"kind": "search", "factors": {}, "arms": {}, "paper": None, "seeds": 1, "sampler": self.sampler}
            | {"dimensions": {name: one.model_dump() for name, one in table.space.dimensions.items()}}
            | {"trials": 2 * len(table.choices) // 3, "predictors": self.predictors, "baseline": "baseline"}
            | {"pruning": rungs if self.pruning or self.measure_first else None},
            self.name,
        )


def replay(table: Table, strategy: Strategy, seed: int, budget: int, **pruning: Any) -> dict[str, Any]:
    """Search once; return the quality of the front after each epoch, and how many candidates came to what."""
    study = strategy.study(table, **pruning)
    rng = np.random.default_rng(seed)
    opened = optuna.create_study(directions=["maximize", "maximize"])
    candidates, gate = Candidates(study, opened, lambda text: None, seed=1000 * seed), Gate(study, opened)
    score = Quality(table)
    spent, quality = 0, np.zeros(budget + 1)
    counts = {"complete": 0, "pruned": 0, "skipped": 0}
    total = study.recipe.total_epochs
    while spent < budget and candidates.enqueue_next() is not None:
        trial = opened.ask()
        architecture = study.space.suggest(trial)
        index = table.index(trial.params)
        job = Job(
            f"trial {trial.number}", "", architecture == study.base, 0, architecture, study.data.resolution, study.base
        )
        for name, value in {**table.counts[index], "seed": 0}.items():
            trial.set_user_attr(name, value)
        throughput = {"train": {"ratio": float(table.ratio[index])}}
        curve = table.curves[index, rng.integers(table.curves.shape[1])]
        rows: list[dict[str, float]] = []
        trial.set_user_attr("throughput", throughput)
        try:
            gate.before_training(trial, job, throughput, "cpu")
            for epoch in range(1, total + 1):
                if spent >= budget:
                    break
                rows.append({"epoch": epoch, "val_accuracy": float(curve[epoch - 1])})
                spent += 1
                quality[spent:] = score.now
                gate.after_epoch(trial, job, rows, throughput)
            trial.set_user_attr("curves", rows)
            if len(rows) < total:
                break
            opened.tell(trial, [float(curve.max()), float(table.ratio[index])])
            score.add(index, float(curve.max()))
            counts["complete"] += 1
        except Stopped as stopped:
            trial.set_user_attr("curves", rows)
            trial.set_user_attr("stopped", stopped.record())
            opened.tell(trial, state=TrialState.PRUNED)
            counts[stopped.why] += 1
        quality[spent:] = score.now
    return {"quality": quality, **counts}


class Quality:
    """How good the front of what was trained to the end is, by the means over all of the table's seeds."""

    def __init__(self, table: Table) -> None:
        self.ratio, self.true = table.ratio, table.curves.max(2).mean(1)
        self.reference = float(self.true.min()), float(self.ratio.min())
        self.best = self._volume(np.arange(len(self.true)))
        self.found: dict[int, float] = {}
        self.now = 0.0

    def add(self, index: int, accuracy: float) -> None:
        """Count what was seen of an architecture."""
        self.found[index] = accuracy
        chosen = np.array(list(self.found))
        seen = np.column_stack([list(self.found.values()), self.ratio[chosen]])
        self.now = self._volume(chosen[non_dominated(seen)]) / self.best

    def _volume(self, chosen: Any) -> float:
        return hypervolume(np.column_stack([self.true[chosen], self.ratio[chosen]]), self.reference)


def epochs_to_reach(quality: Any, goal: float) -> float:
    """Return after how many epochs the mean quality (repetitions, epochs) reaches the goal; NaN where it never does."""
    reached = np.flatnonzero(quality.mean(0) >= goal)
    return float(reached[0]) if len(reached) else float("nan")


def bootstrap(values: Any, statistic: Any, draws: int = 400) -> tuple[float, float]:
    """Return the ends of the 95 % percentile interval of a statistic over repetitions."""
    rng = np.random.default_rng(0)
    found = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(draws)]
    return tuple(np.nanquantile(found, (0.025, 0.975)).tolist())  # type: ignore[return-value]


def strategies() -> list[Strategy]:
    """Return random search, and each sampler alone and with what can be done beside it."""
    found = [Strategy("exhaustive")] if "exhaustive" in SAMPLERS else []
    for sampler in ("random", "qmc", "tpe", "nsga2", "nsga3", "gp"):
        found += [
            Strategy(sampler),
            Strategy(sampler, measure_first=True),
            Strategy(sampler, pruning=True),
            Strategy(sampler, measure_first=True, pruning=True),
        ]
    return [*found, *(Strategy(sampler, True, True, True) for sampler in ("random", "tpe", "nsga2"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--only", nargs="*", help="strategies whose names contain one of these, beside random search")
    parser.add_argument("--slow", type=int, default=20, help="repetitions for strategies with gp (default: 20)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "search_strategies.json")
    args = parser.parse_args()
    table = read(args.table)
    budget = CANDIDATES * table.study.recipe.total_epochs
    chosen = [
        one
        for one in strategies()
        if not args.only or one == Strategy("random") or any(text in one.name for text in args.only)
    ]
    results: dict[str, Any] = {}
    goal = float("nan")
    chosen.sort(key=lambda one: one != Strategy("random"))
    with ProcessPoolExecutor(args.processes, initializer=_quiet) as pool:
        for one in chosen:
            repetitions = min(args.repetitions, args.slow) if one.sampler == "gp" else args.repetitions
            runs = list(pool.map(partial(replay, table, one, budget=budget), range(repetitions), chunksize=2))
            quality = np.array([run.pop("quality") for run in runs])
            if one == Strategy("random"):
                goal = float(quality.mean(0)[-1])
            needed = epochs_to_reach(quality, goal)
            ends = bootstrap(quality, partial(epochs_to_reach, goal=goal))
            at = {share: quality[:, round(share * budget)] for share in SHARES}
            results[one.name] = {
                "repetitions": repetitions,
                "share_of_budget": [needed / budget, ends[0] / budget, ends[1] / budget],
                "quality": {
                    str(share): [float(found.mean()), *bootstrap(found, np.mean)] for share, found in at.items()
                },
                **{name: float(np.mean([run[name] for run in runs])) for name in runs[0]},
            }
            print(_line(one.name, results[one.name]), flush=True)
    args.json.write_text(json.dumps({"budget": budget, "goal": goal, "strategies": results}, indent=1) + "\n")


def _line(name: str, found: dict[str, Any]) -> str:
    share, low, high = found["share_of_budget"]
    quality = "  ".join(f"{at}: {mean:.3f}" for at, (mean, *_) in found["quality"].items())
    return f"{name:50s} {share:.2f} [{low:.2f} … {high:.2f}]  {quality}  complete {found['complete']:.0f}"


def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger().setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
