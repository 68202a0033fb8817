"""How much training each strategy needs for how good a front: replayed on a space that was trained whole.

    python -m benchmarks.search_strategies --repetitions 200

Every decision is made by the code that makes it in a search (search.candidates, search.gate); only the training and the
measurement are looked up in the table. The budget counts epochs of training: what is measured and not trained is
counted beside it. The quality of a front is the hypervolume of its architectures by their means over all seeds, over
that of the best front there is, so a lucky draw is worth nothing.
"""

import argparse
import heapq
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from threadpoolctl import threadpool_limits

from search.candidates import Candidates
from search.gate import Gate, Stopped
from search.plan import Job
from search.strategy.ranking import hypervolume, non_dominated
from search.strategy.sampling import SAMPLERS
from search.study import Study
from search.table import Table, read

HERE = Path(__file__).parent
TABLE = HERE.parent / "studies" / "tables" / "laptop.parquet"
PART = 3  # everybody's budget is what it takes to train such a part of the space
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

    @property
    def is_slow(self) -> bool:
        """Whether a model is fitted for every candidate."""
        return self.predictors or self.sampler in ("tpe", "gp")

    def study(self, table: Table, trials: int, **pruning: Any) -> Study:
        """Return the search for so many candidates of the table's space that follows this strategy."""
        rungs = {"audit": 0.0, "confidence": 0.95 if self.measure_first else None} | pruning
        if not self.pruning:
            rungs["first"] = table.study.recipe.total_epochs - 1
            rungs["warm_up"] = 10_000
        return Study.parse(
            table.study.to_dict()
            | {"kind": "search", "factors": {}, "arms": {}, "paper": None, "seeds": 1, "sampler": self.sampler}
            | {"dimensions": {name: one.model_dump() for name, one in table.space.dimensions.items()}}
            | {"trials": trials, "predictors": self.predictors, "baseline": "baseline"}
            | {"pruning": rungs if self.pruning or self.measure_first else None},
            self.name,
        )


def replay(
    table: Table, strategy: Strategy, seed: int, budget: int, workers: int = 1, **pruning: Any
) -> dict[str, Any]:
    """Search once; return the quality of the front after each epoch, and how many candidates came to what.

    `workers` work side by side in simulated time, in which an epoch takes as long as the network is slow.
    """
    study = strategy.study(table, 2 * len(table.choices) // 3, **pruning)
    search = Replay(table, study, seed, budget, workers, Quality(table))
    search.run()
    return {"quality": search.quality(), **search.counts}


class Decider:
    """What one worker decides by."""

    def __init__(self, study: Study, opened: optuna.Study, seed: int) -> None:
        self.candidates = Candidates(study, opened, lambda text: None, seed=seed)
        self.gate = Gate(study, opened)


class Replay:
    """One search over the table, or over anything that knows as much of its architectures.

    `front` is told what was trained to the end, and tells how good all of it is.
    """

    def __init__(
        self, table: Table, study: Study, seed: int, budget: int, workers: int, front: "Quality", *, alone: bool = False
    ) -> None:
        self.table, self.study, self.budget, self.front = table, study, budget, front
        self.rng = np.random.default_rng(seed)
        self.opened = optuna.create_study(directions=["maximize", "maximize"])
        # Workers know of each other what the storage says; `alone` lets them share what one of them made of it.
        deciders = [Decider(study, self.opened, 1000 * seed + number) for number in range(1 if alone else workers)]
        self.workers = [self._work(deciders[number % len(deciders)]) for number in range(workers)]
        self.spent, self.steps = 0, [(0, 0.0)]
        self.counts = {"complete": 0, "pruned": 0, "skipped": 0}

    def run(self) -> None:
        """Let all workers work, each epoch in its own time, until the budget is spent or no candidate is left."""
        clock = [(0.0, number) for number in range(len(self.workers))]
        while clock and self.spent < self.budget:
            now, number = heapq.heappop(clock)
            if (seconds := next(self.workers[number], None)) is not None:
                heapq.heappush(clock, (now + seconds, number))

    def quality(self) -> Any:
        """Return how good the front was after each epoch."""
        spent, quality = np.array(self.steps).T
        return quality[np.searchsorted(spent, np.arange(self.budget + 1), side="right") - 1]

    def _work(self, by: Decider) -> Iterator[float]:
        """Train candidates until none is left; yield how long each epoch takes."""
        while by.candidates.enqueue_next() is not None:
            trial = self.opened.ask()
            rows: list[dict[str, float]] = []
            trial.set_user_attr("seed", 0)
            try:
                yield from self._train(trial, rows, by.gate)
                state, scores = TrialState.COMPLETE, [max(row["val_accuracy"] for row in rows), self._ratio(trial)]
                self.front.add(self.table.index(trial.params), scores[0])
                self.steps.append((self.spent, self.front.now))
            except Stopped as stopped:
                state, scores = TrialState.PRUNED, None
                trial.set_user_attr("stopped", stopped.record())
            trial.set_user_attr("curves", rows)
            self.opened.tell(trial, scores, state=state)
            self.counts["complete" if scores else trial.user_attrs["stopped"]["why"]] += 1

    def _train(self, trial: optuna.Trial, rows: list[dict[str, float]], gate: Gate) -> Iterator[float]:
        architecture = self.study.space.suggest(trial)
        index, pixels = self.table.index(trial.params), self.study.data.resolution
        base = self.study.base
        job = Job(f"trial {trial.number}", "", architecture == base, 0, architecture, pixels, base)
        timed = [{"kind": kind, "seconds": seconds} for kind, seconds in self.table.operators[index].items()]
        throughput = {"train": {"ratio": self._ratio(trial)}, "operators": {"train": {"operators": timed}}}
        for name, value in {**self.table.counts[index], "throughput": throughput}.items():
            trial.set_user_attr(name, value)
        gate.before_training(trial, job, throughput)
        curve = self.table.curves[index, self.rng.integers(self.table.curves.shape[1])]
        for epoch, accuracy in enumerate(curve, 1):
            yield 1 / self._ratio(trial)
            rows.append({"epoch": epoch, "val_accuracy": float(accuracy)})
            self.spent = min(self.budget, self.spent + 1)
            gate.after_epoch(trial, job, rows, throughput)

    def _ratio(self, trial: optuna.Trial) -> float:
        return float(self.table.ratio[self.table.index(trial.params)])


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
    predicted = [Strategy(sampler, predictors=True) for sampler in ("random", "tpe")]
    rest = [
        Strategy(sampler, measure_first=measure_first, pruning=pruning)
        for sampler in ("random", "qmc", "tpe", "nsga2", "nsga3", "gp")
        for pruning in (False, True)
        for measure_first in (False, True)
    ]
    everything = [Strategy(sampler, True, True, True) for sampler in ("random", "tpe")]
    return [*predicted, Strategy("exhaustive"), *rest, *everything]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--samplers", nargs="*", default=SAMPLERS, help="of these only, beside random search")
    parser.add_argument("--slow", type=int, default=20, help="repetitions of those that fit models (default: 20)")
    parser.add_argument("--workers", type=int, default=1, help="simulated workers side by side (default: 1)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/search_strategies-TABLE.json")
    args = parser.parse_args()
    table, path = read(args.table), args.json or HERE / "results" / f"search_strategies-{args.table.stem}.json"
    budget = len(table.choices) // PART * table.study.recipe.total_epochs
    chosen = [one for one in strategies() if one == Strategy("random") or one.sampler in args.samplers]
    known = json.loads(path.read_text()) if path.exists() else {"goal": float("nan"), "strategies": {}}
    goal, results = known["goal"], known["strategies"]
    chosen.sort(key=lambda one: one != Strategy("random"))
    with ProcessPoolExecutor(args.processes, initializer=_quiet) as pool:
        for one in chosen:
            repetitions = min(args.repetitions, args.slow if one.is_slow else args.repetitions)
            if results.get(one.name, {}).get("repetitions", 0) >= repetitions:
                continue
            work = partial(replay, table, one, budget=budget, workers=args.workers)
            runs = list(pool.map(work, range(repetitions), chunksize=2))
            quality = np.array([run.pop("quality") for run in runs])
            if one == Strategy("random"):
                goal = float(quality.mean(0)[-1])
            needed = epochs_to_reach(quality, goal)
            ends = bootstrap(quality, partial(epochs_to_reach, goal=goal))
            at = {share: quality[:, round(share * budget)] for share in SHARES}
            results[one.name] = {
                "repetitions": repetitions,
                "share_of_budget": None if np.isnan(needed) else [needed / budget, *(end / budget for end in ends)],
                "quality": {
                    str(share): [float(found.mean()), *bootstrap(found, np.mean)] for share, found in at.items()
                },
                **{name: float(np.mean([run[name] for run in runs])) for name in runs[0]},
            }
            print(_line(one.name, results[one.name]), flush=True)
            found = {"budget": budget, "workers": args.workers, "goal": goal, "strategies": results}
            path.write_text(json.dumps(found, indent=1) + "\n")


def _line(name: str, found: dict[str, Any]) -> str:
    reached = found["share_of_budget"]
    share = "not reached" if reached is None else "{:.2f} [{:.2f} … {:.2f}]".format(*reached)
    quality = "  ".join(f"{at}: {mean:.3f}" for at, (mean, *_) in found["quality"].items())
    return f"{name:50s} {share:20s}  {quality}  complete {found['complete']:.0f}"


def _quiet() -> None:
    threadpool_limits(1)  # a process each is enough
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger().setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
