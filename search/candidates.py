"""A search's candidates: which one comes next, and what its sampler is shown of those that there are."""

import random
from collections.abc import Callable, Hashable, Iterable, Iterator
from statistics import median
from typing import NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from search.gate import PRUNED, breaks_counts
from search.measurements import newest, of_trial, speed_of
from search.queue import is_double, is_lost, is_over, job_key
from search.strategy.following import Following
from search.strategy.predictors import FEWEST, MOST, Array, Knowledge, counts, encode, extrapolate
from search.strategy.ranking import fronts
from search.strategy.sampling import MOST_TO_EXHAUST, View, shuffled
from search.strategy.speed import OperatorTimes
from search.study import Study
from space import Architecture, complexity
from space.complexity import operators
from space.dimensions import Choice
from space.errors import InputError

POOL = 128  # candidates drawn at random among which predictors choose, beside the sampler's own
TRIES = 8  # repetitions after which a sampler is taken not to know more
DRAWS = 10_000  # candidates drawn in a space that is too large to be listed, to find one that is new
RECENT = 256  # complete trials that curves are compared with
TIMED = 16  # networks whose operators predictors learn from


class Proposal(NamedTuple):
    """A candidate, and its number in the sampler's view, where the sampler proposed it."""

    chosen: dict[str, Choice]
    architecture: Architecture
    seed: int = 0
    number: int | None = None


class Candidates:
    """Adds to a search's queue, for one worker; any number may do so at once.

    `seed`: the sampler's, None for one of its own, as workers need that must not all propose the same.
    """

    def __init__(
        self, study: Study, opened: optuna.Study, tell: Callable[[str], None], *, seed: int | None = 0
    ) -> None:
        self.study, self.opened, self.tell = study, opened, tell
        begun = len(opened.get_trials(deepcopy=False))
        own = None if seed is None else seed + begun
        self.view = View(study.space, study.sampler, seed=own, trials=study.trials)
        self._known: set[str] = set()  # the fingerprints of all that were tried, or will be
        self._following = Following()
        self._jobs: dict[Hashable, FrozenTrial] = {}
        self._shown: dict[Hashable, int] = {}  # jobs, and their numbers in the view
        self._ended: set[Hashable] = set()
        self._curves = Curves()
        self._tried: list[FrozenTrial] = []  # the first seeds that were trained, if not to the end
        self._scores: list[list[float]] = []  # what the sampler was shown of these
        self._knowledge: Knowledge | None = None
        self._times: OperatorTimes | None = None
        self._rest: Iterator[dict[str, Choice]] | None = None
        self._dice = random.Random(own)
        self._pixels = study.data.resolution

    def enqueue_next(self) -> int | None:
        """Enqueue the next candidate; return its seed, or None where the search has got all that it wants, or can."""
        self._look()
        if len(self._known) >= self.study.trials:
            return None
        own = self._proposed() or self._anything_new()
        if own is None:
            self.tell(f"no candidate is left: {len(self._known)} of the {self.study.trials} that were asked for")
            return None
        chosen, expected = self._best(own)
        job = chosen.architecture.fingerprint, chosen.seed
        if chosen.number is not None:
            self._shown[job] = chosen.number
        elif own.number is not None:
            self.view.end(own.number, None)
        attrs = {"fingerprint": chosen.architecture.fingerprint, "seed": chosen.seed}
        self.opened.enqueue_trial(chosen.chosen, user_attrs=attrs | ({"expected": expected} if expected else {}))
        return chosen.seed

    def _look(self) -> None:
        """Learn what became of the trials since the last time, and show it to the sampler."""
        changed = []
        for trial in self._following.changed(self.opened):
            # What lacks a fingerprint was enqueued by hand, and is not known before it has run.
            if "fingerprint" not in trial.user_attrs or is_double(trial):
                continue
            job = job_key(trial)
            before = self._jobs.get(job)
            if before is None or before.number == trial.number or is_lost(before):
                self._jobs[job] = trial
                self._known.add(trial.user_attrs["fingerprint"])
                changed.append(job)
                if trial.state is TrialState.COMPLETE and job not in self._ended:
                    self._curves.add(trial)
        for job in changed:
            self._show(job, self._jobs[job])

    def _show(self, job: Hashable, trial: FrozenTrial) -> None:
        if job in self._ended:
            return
        if job not in self._shown:
            self._shown[job] = self.view.begin(trial.params or trial.system_attrs.get("fixed_params", {}))
        if not is_over(trial):
            return
        self._ended.add(job)
        found = scores(trial, self._curves)
        self.view.end(self._shown[job], found, self._violations(trial))
        if found is not None and trial.user_attrs.get("seed", 0) == 0 and _was_trained(trial):
            self._tried.append(trial)
            self._scores.append(found)

    def _proposed(self) -> Proposal | None:
        """Return what the sampler proposes: an architecture that nobody tried, or a further seed of one.

        Repetitions stay open meanwhile, which drives samplers that heed open candidates away from them.
        """
        repeated: list[int] = []
        found = None
        for _ in range(TRIES):
            if found is not None or (proposal := self.view.propose()) is None:
                break
            number, chosen = proposal
            repeated.append(number)
            try:
                architecture = self.study.space.architecture(chosen)
            except InputError:
                continue
            fingerprint, seed = architecture.fingerprint, 0
            first = self._jobs.get((fingerprint, 0))
            if first is not None and first.state is TrialState.COMPLETE:
                # The same again becomes a further seed of what was trained to the end.
                seed = next(one for one in range(self.study.first_seeds + 1) if (fingerprint, one) not in self._jobs)
            if (fingerprint, seed) not in self._jobs and seed < self.study.first_seeds:
                found = Proposal(chosen, architecture, seed, repeated.pop())
        for number in repeated:
            self.view.end(number, None)
        return found

    def _anything_new(self) -> Proposal | None:
        """Return what the sampler does not come to any more."""
        if self.study.space.combinations > MOST_TO_EXHAUST:
            return next(self._at_random(DRAWS), None)
        if self._rest is None:
            self._rest = iter(shuffled(self.study.space, len(self._known)))
        return next(self._untried(self._rest), None)

    def _best(self, own: Proposal) -> tuple[Proposal, list[float]]:
        """Return what comes next, and what is expected of it: the sampler's own, while no prediction is any good."""
        if not self.study.predicts or len(self._tried) < FEWEST:
            return own, []
        pool = [own, *self._drawn()]
        self._learn()
        assert self._knowledge is not None
        rows, prior = np.array([self._encoded(one.chosen, one.architecture) for one in pool]), self._prior(pool)
        index = 0 if self._knowledge.is_poor else self._knowledge.most_promising(rows, prior)
        expected = self._knowledge.expect(rows[[index]], prior[[index]])[0]
        return pool[index], [float(value) for value in expected]

    def _drawn(self) -> list[Proposal]:
        """Draw candidates that nobody tried, and that break no limit on what is counted."""
        found: dict[str, Proposal] = {}
        for one in self._at_random(4 * POOL):
            if not breaks_counts(self.study, complexity(one.architecture, self._pixels)):
                found[one.architecture.fingerprint] = one
            if len(found) == POOL:
                break
        return list(found.values())

    def _at_random(self, draws: int) -> Iterator[Proposal]:
        """Yield those of so many draws that nobody tried."""
        choose = self.study.space.choose
        return self._untried(choose(lambda name, values: self._dice.choice(values)) for _ in range(draws))

    def _untried(self, choices: Iterable[dict[str, Choice]]) -> Iterator[Proposal]:
        """Yield those that can be built, and that nobody tried."""
        for chosen in choices:
            try:
                architecture = self.study.space.architecture(chosen)
            except InputError:
                continue
            if architecture.fingerprint not in self._known:
                yield Proposal(chosen, architecture)

    def _learn(self) -> None:
        """Fit what is known, of a large search the best and the latest half of as many as can be fitted."""
        tried = self._tried
        if len(tried) > MOST:
            latest = np.arange(len(tried)) >= len(tried) - MOST // 2
            order = np.argsort(np.where(latest, -1, fronts(np.array(self._scores))), kind="stable")[:MOST]
            tried = [tried[place] for place in order]
        reached = np.array([self._curves.reached(trial) for trial in tried])
        made = [self.study.space.architecture(trial.params) for trial in tried]
        rows = np.array([self._encoded(trial.params, one) for trial, one in zip(tried, made, strict=True)])
        if self._knowledge is None or self._knowledge.is_outgrown(len(tried)):
            self._times = self._operator_times(tried)
        prior = self._prior([Proposal(trial.params, one) for trial, one in zip(tried, made, strict=True)])
        self._knowledge = Knowledge(rows, reached[:, :2], self._knowledge, errors=reached[:, 2], prior=prior)

    def _operator_times(self, tried: list[FrozenTrial]) -> OperatorTimes | None:
        """Learn from the operators that were timed along with throughput, where they were."""
        measured = newest(self.opened.user_attrs)
        known = []
        for trial in tried:
            timed = of_trial(trial, measured).get("operators", {}).get("train")
            if timed:
                works = operators(self.study.space.architecture(trial.params), self._pixels)
                known.append((works, {one["kind"]: one["seconds"] for one in timed["operators"]}))
            if len(known) == TIMED:
                break
        return OperatorTimes(known) if known else None

    def _prior(self, pool: list[Proposal]) -> Array:
        """Return the throughput that the timed operators let one expect, up to a factor that is the same for all."""
        if self._times is None:
            return np.ones(len(pool))
        return 1 / np.array([self._times.seconds(operators(one.architecture, self._pixels)) for one in pool])

    def _encoded(self, chosen: dict[str, Choice], architecture: Architecture) -> Array:
        return encode(self.study.space, chosen, counts(vars(complexity(architecture, self._pixels))))

    def _violations(self, trial: FrozenTrial) -> dict[str, float]:
        """Return how much each constraint is broken; what was not asked any more, since another was, is not known."""
        return {limit.metric: trial.constraints.get(limit.metric, 0.0) for limit in self.study.limits}


class Curves:
    """How the accuracies of complete trials grew, from which it follows what others would have come to."""

    def __init__(self) -> None:
        self._best: list[Array] = []  # accuracy so far, an epoch each
        self._values: list[list[float]] = []

    def add(self, trial: FrozenTrial) -> None:
        """Count a complete trial."""
        accuracies = [float(row["val_accuracy"]) for row in trial.user_attrs["curves"]]
        self._best.append(np.maximum.accumulate(accuracies))
        self._values.append(list(trial.values))
        self._best, self._values = self._best[-RECENT:], self._values[-RECENT:]

    def reached(self, trial: FrozenTrial) -> list[float]:
        """Return the accuracy and throughput that a trained trial came to, and the standard error of the former."""
        if trial.state is TrialState.COMPLETE:
            return [*trial.values, 0.0]
        epoch = int(trial.user_attrs["stopped"]["epoch"])
        so_far = max(float(row["val_accuracy"]) for row in trial.user_attrs["curves"] if row["epoch"] <= epoch)
        then, final = np.array([one[epoch - 1] for one in self._best]), np.array([one[0] for one in self._values])
        accuracy, error = extrapolate(so_far, then, final)
        return [accuracy, speed_of(trial.user_attrs["throughput"]), error]

    def middle(self) -> tuple[float, float]:
        """Return the median accuracy and throughput."""
        return (
            (median(one[0] for one in self._values), median(one[1] for one in self._values))
            if self._values
            else (0.0, 1.0)
        )


def scores(trial: FrozenTrial, curves: Curves) -> list[float] | None:
    """Return what the sampler is shown of a finished trial: accuracy and throughput, or None where nothing is known.

    Of one given up on the way: the accuracy that it would probably have come to. Of one that was not trained: the
    median accuracy, which neither draws nor deters.
    """
    if trial.state is TrialState.FAIL:
        return None
    if _was_trained(trial):
        return curves.reached(trial)[:2]
    attrs, (accuracy, speed) = trial.user_attrs, curves.middle()
    return [accuracy, speed_of(attrs["throughput"]) if "throughput" in attrs else speed]


def _was_trained(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.COMPLETE or trial.user_attrs.get("stopped", {}).get("why") == PRUNED
