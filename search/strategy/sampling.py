"""Samplers of Optuna's, over a study of their own in memory that shows them what they need.

They look at complete trials alone, and most of them know no other outcome: what was given up, or never trained, would
be lost on them. So they are shown every candidate as complete, with what can be said of it; the storage keeps what is
true. Numbers among a dimension's values keep their order there, which choices would lose.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import (
    BaseGASampler,
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import TrialState, create_trial

from space.dimensions import Choice, SearchSpace

SamplerName = Literal["auto", "tpe", "nsga2", "nsga3", "gp", "qmc", "random", "exhaustive"]
SAMPLERS: tuple[str, ...] = get_args(SamplerName)
UNCONDITIONAL = ("gp", "qmc")  # these need all dimensions in every candidate
AUTO = "tpe"  # what benchmarks/search_strategies.py found best, with predictors
MOST_TO_EXHAUST = 100_000  # combinations
START_UP = 10  # candidates at random before a model is fitted


def make(name: str, *, seed: int | None, trials: int) -> BaseSampler:
    """Return the sampler of that name, seeded, for a search of about so many candidates."""
    population = max(4, min(50, trials // 4))
    match AUTO if name == "auto" else name:
        case "tpe":
            return TPESampler(seed=seed, n_startup_trials=START_UP, constant_liar=True)
        case "nsga2":
            return NSGAIISampler(seed=seed, population_size=population)
        case "nsga3":
            return NSGAIIISampler(seed=seed, population_size=population)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=START_UP, warn_independent_sampling=False)
        case "qmc":
            return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        case "random":
            return RandomSampler(seed=seed)
    raise ValueError(f"no sampler of Optuna's is named {name!r}")


class View:
    """What a sampler sees of a search: candidates by their choices, each open or with its scores, all maximised."""

    def __init__(self, space: SearchSpace, name: str, *, seed: int | None = 0, trials: int = 100) -> None:
        self.space = space
        self._left = shuffled(space, seed) if name == "exhaustive" else None
        self._open: dict[int, dict[str, Choice]] = {}
        sampler = RandomSampler() if self._left is not None else make(name, seed=seed, trials=trials)
        self._study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)

    def propose(self) -> tuple[int, dict[str, Choice]] | None:
        """Return a number for a new candidate, open from now on, and its choices; None where all were proposed."""
        if self._left is not None:
            if not self._left:
                return None
            number = self.begin(chosen := self._left.pop())
            self._open[number] = chosen
            return number, chosen
        trial = self._study.ask()

        def pick(name: str, values: tuple[Choice, ...]) -> Choice:
            if scale := _scale(values):
                return scale[trial.suggest_int(name, 0, len(scale) - 1)]
            chosen: Choice = trial.suggest_categorical(name, values)  # type: ignore[assignment]  # none is None
            return chosen

        return trial.number, self.space.choose(pick)

    def begin(self, chosen: Mapping[str, Choice]) -> int:
        """Show a candidate that somebody else proposed; return its number. It is open from now on."""
        distributions = {name: _distribution(self.space.dimensions[name].values) for name in chosen}
        params = {name: self._coded(name, value) for name, value in chosen.items()}
        self._study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=distributions))
        trial = self._study.get_trials(deepcopy=False)[-1]
        if isinstance(self._study.sampler, BaseGASampler):
            self._study.sampler.get_trial_generation(self._study, trial)  # else it would not be among the parents
        return trial.number

    def end(self, number: int, scores: Sequence[float] | None, violations: Mapping[str, float] | None = None) -> None:
        """Close a candidate: with its scores and by how much it breaks each constraint, or as if it had never been."""
        if (chosen := self._open.pop(number, None)) is not None and scores is None and self._left is not None:
            self._left.insert(0, chosen)  # to come again, after all others
        asked = self._study.get_trials(deepcopy=False)[number]
        # Optuna knows no way to add constraints to a trial that another began, but to one that is made complete.
        self._study.tell(number, state=TrialState.FAIL)
        if scores is not None:
            self._study.add_trial(
                create_trial(
                    params=asked.params,
                    distributions=asked.distributions,
                    values=scores,
                    constraints=dict(violations) if violations else None,
                    system_attrs=asked.system_attrs,
                )
            )

    def _coded(self, name: str, value: Choice) -> Choice:
        scale = _scale(self.space.dimensions[name].values)
        return scale.index(value) if scale else value


def _scale(values: Sequence[Choice]) -> list[Choice]:
    """Return the values in their order where they have one, else none."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return sorted(numbers) if len(numbers) == len(values) else []


def _distribution(values: tuple[Choice, ...]) -> BaseDistribution:
    return IntDistribution(0, len(values) - 1) if _scale(values) else CategoricalDistribution(values)


def shuffled(space: SearchSpace, seed: int | None) -> list[dict[str, Choice]]:
    """Return every choice of the space in random order, so that an early end leaves out none in particular."""
    found = list(space.assignments())
    random.Random(seed).shuffle(found)
    return found
