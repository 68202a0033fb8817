"""A search's candidates: which one comes next, and what its sampler is shown of those that there are."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict
from statistics import median
from typing import NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from search.gate import PRUNED
from search.measurements import speed_of
from search.queue import counted, is_over, job_key
from search.strategy.predictors import FEWEST, Knowledge, counts, encode
from search.strategy.sampling import MOST_TO_EXHAUST, View
from search.study import Study
from space import Architecture, complexity
from space.dimensions import Choice
from space.errors import InputError

POOL = 32  # proposals among which predictors choose the next
TRIES = 8  # repetitions after which a sampler is taken not to know more


class Proposal(NamedTuple):
    """A candidate that the sampler proposed, and its number there."""

    chosen: dict[str, Choice]
    architecture: Architecture
    seed: int
    number: int | None


class Candidates:
    """Adds to a search's queue, for one worker; any number may do so at once.

    `seed`: the sampler's, None for one of its own, as workers need that must not all propose the same.
    """

    def __init__(
        self, study: Study, opened: optuna.Study, tell: Callable[[str], None], *, seed: int | None = 0
    ) -> None:
        self.study, self.opened, self.tell = study, opened, tell
        begun = len(opened.get_trials(deepcopy=False))
        self.view = View(study.space, study.sampler, seed=None if seed is None else seed + begun, trials=study.trials)
        self._shown: dict[int, int] = {}  # trials, and the numbers of the view
        self._proposed: dict[Hashable, int] = {}
        self._ended: set[int] = set()
        self._knowledge: Knowledge | None = None
        self._pixels = study.data.resolution

    def enqueue_next(self) -> int | None:
        """Enqueue the next candidate; return its seed, or None where the search has got all that it wants, or can."""
        trials = [
            trial for trial in counted(self.opened.get_trials(deepcopy=False)) if "fingerprint" in trial.user_attrs
        ]  # what lacks it was enqueued by hand, and is not known before it has run
        self._show(trials)
        known = {trial.user_attrs["fingerprint"]: trial for trial in reversed(trials)}
        if len(known) >= self.study.trials:
            return None
        pool = self._proposals(known, {job_key(trial) for trial in trials})
        if not pool:
            self.tell(f"no candidate is left: {len(known)} of the {self.study.trials} that were asked for")
            return None
        index, expected = self._best(pool, trials)
        chosen = pool.pop(index)
        if chosen.number is not None:
            self._proposed[chosen.architecture.fingerprint, chosen.seed] = chosen.number
        self._put_back(one.number for one in pool)
        attrs = {"fingerprint": chosen.architecture.fingerprint, "seed": chosen.seed}
        self.opened.enqueue_trial(chosen.chosen, user_attrs=attrs | ({"expected": expected} if expected else {}))
        return chosen.seed

    def _proposals(self, known: dict[str, FrozenTrial], used: set[Hashable]) -> list[Proposal]:
        """Let the sampler propose as many as are compared with each other, none of them known or twice.

        Repetitions stay open meanwhile, which drives samplers that heed open candidates away from them.
        """
        pool: list[Proposal] = []
        repeated: list[int] = []
        wanted = POOL if self.study.predictors else 1
        for _ in range(wanted + TRIES):
            if len(pool) >= wanted or (proposal := self.view.propose()) is None:
                break
            number, chosen = proposal
            try:
                architecture = self.study.space.architecture(chosen)
            except InputError:
                repeated.append(number)
                continue
            fingerprint, seed = architecture.fingerprint, 0
            if (first := known.get(fingerprint)) is not None and first.state is TrialState.COMPLETE:
                # The same again becomes a further seed of what was trained to the end.
                seed = next(one for one in range(self.study.first_seeds + 1) if (fingerprint, one) not in used)
            pooled = {(one.architecture.fingerprint, one.seed) for one in pool}
            if (fingerprint, seed) in used | pooled or seed >= self.study.first_seeds:
                repeated.append(number)
            else:
                pool.append(Proposal(chosen, architecture, seed, number))
        self._put_back(repeated)
        if not pool and (new := self._anything_new(known)) is not None:
            pool.append(new)
        return pool

    def _put_back(self, numbers: Iterable[int | None]) -> None:
        """Let the sampler take proposals for never made."""
        for number in numbers:
            if number is not None:
                self.view.end(number, None)

    def _best(self, pool: list[Proposal], trials: list[FrozenTrial]) -> tuple[int, list[float]]:
        """Return which proposal comes next, and what is expected of it: the first, while no prediction is any good."""
        done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        tried = [trial for trial in trials if _was_trained(trial) and trial.user_attrs.get("seed", 0) == 0]
        if not self.study.predictors or len(tried) < FEWEST:
            return 0, []
        rows = np.array([encode(self.study.space, trial.params, counts(trial.user_attrs)) for trial in tried])
        reached = np.array([scores(trial, done) for trial in tried])
        self._knowledge = Knowledge(rows, reached, self._knowledge)
        options = np.array(
            [
                encode(self.study.space, one.chosen, counts(asdict(complexity(one.architecture, self._pixels))))
                for one in pool
            ]
        )
        index = 0 if self._knowledge.is_poor else self._knowledge.most_promising(options)
        return index, [float(value) for value in self._knowledge.expect(options[[index]])[0]]

    def _anything_new(self, known: dict[str, FrozenTrial]) -> Proposal | None:
        """Return what the sampler does not come to any more."""
        if self.study.space.combinations > MOST_TO_EXHAUST:
            return None
        rest = View(self.study.space, "exhaustive", seed=len(known))
        while (proposal := rest.propose()) is not None:
            try:
                architecture = self.study.space.architecture(proposal[1])
            except InputError:
                continue
            if architecture.fingerprint not in known:
                return Proposal(proposal[1], architecture, 0, None)
        return None

    def _show(self, trials: list[FrozenTrial]) -> None:
        """Let the sampler see what became of its candidates, and those of others."""
        done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        for trial in trials:
            if trial.number in self._ended:
                continue
            if trial.number not in self._shown:
                mine = self._proposed.pop(job_key(trial), None)
                chosen = trial.params or trial.system_attrs.get("fixed_params", {})
                self._shown[trial.number] = mine if mine is not None else self.view.begin(chosen)
            if is_over(trial):
                self._ended.add(trial.number)
                self.view.end(self._shown[trial.number], scores(trial, done), self._violations(trial))

    def _violations(self, trial: FrozenTrial) -> dict[str, float]:
        """Return how much each constraint is broken; what was not asked any more, since another was, is not known."""
        return {limit.metric: trial.constraints.get(limit.metric, 0.0) for limit in self.study.limits}


def scores(trial: FrozenTrial, done: list[FrozenTrial]) -> list[float] | None:
    """Return what the sampler is shown of a finished trial: accuracy and throughput, or None where nothing is known.

    Of one given up on the way: its accuracy at that epoch, and what the complete trials gained from there on, in the
    median. Of one that was not trained: the median accuracy, which neither draws nor deters.
    """
    if trial.state is TrialState.COMPLETE:
        return list(trial.values)
    if trial.state is TrialState.FAIL:
        return None
    attrs, stopped = trial.user_attrs, trial.user_attrs.get("stopped", {})
    speed = speed_of(attrs["throughput"]) if "throughput" in attrs else _median([one.values[1] for one in done], 1.0)
    if stopped.get("why") != PRUNED:
        return [_median([one.values[0] for one in done], 0.0), speed]
    epoch = int(stopped["epoch"])
    gains = [one.values[0] - _best_until(one, epoch) for one in done]
    return [min(100.0, _best_until(trial, epoch) + _median(gains, 0.0)), speed]


def _was_trained(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.COMPLETE or trial.user_attrs.get("stopped", {}).get("why") == PRUNED


def _median(values: list[float], otherwise: float) -> float:
    return median(values) if values else otherwise


def _best_until(trial: FrozenTrial, epoch: int) -> float:
    return max(float(row["val_accuracy"]) for row in trial.user_attrs["curves"] if row["epoch"] <= epoch)
