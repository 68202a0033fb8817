"""Asynchronous successive halving for studies with several objectives, which Optuna's own pruners refuse."""

from array import array
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from search.strategy.following import Following
from search.strategy.ranking import Points, rank

RUNG = "rung:"  # begins the names of the user attributes that hold what trials reached


class ParetoPruner:
    """Tells which trials to give up: at each rung those that another dominates and that are not among the best there,
    1 / `reduction` of all that came that far.

    Rungs are the steps `first`, `first` * `reduction`, `first` * `reduction`², ...; what trials reached there is kept
    in the study's own storage, so that any number of workers share it. The best are found by non-dominated sorting,
    ties broken so that the front stays spread: MO-ASHA (Schmucker et al. 2021, arXiv 2106.12639) in its stopping
    variant, in which nobody waits. The first `warm_up` trials at a rung go on in any case, and, unlike there, whoever
    nothing dominates: a share alone would give up parts of the front while few have come, or many are good.

    It needs nothing of the workbench but Optuna, in any storage, and is asked in the place of ``trial.should_prune``,
    which refuses several objectives (https://github.com/optuna/optuna/issues/3450)::

        pruner = ParetoPruner(first=1, reduction=3)

        def objective(trial):
            ...
            for epoch in range(1, 28):
                accuracy = train_an_epoch(network)
                if pruner.report(trial, epoch, [accuracy, throughput]):
                    raise optuna.TrialPruned
            return accuracy, throughput

    Raises ValueError for arguments that make no rungs.
    """

    def __init__(self, *, first: int = 1, reduction: int = 3, warm_up: int = 3) -> None:
        if first < 1 or reduction < 2 or warm_up < 0:
            raise ValueError("first is 1 or more, reduction 2 or more, and warm_up not negative")
        self.first, self.reduction, self.warm_up = first, reduction, warm_up
        self._rungs: WeakKeyDictionary[BaseStorage, dict[str, _Rungs]] = WeakKeyDictionary()

    def is_rung(self, step: int) -> bool:
        """Say whether trials are compared after this step."""
        rung = self.first
        while rung < step:
            rung *= self.reduction
        return rung == step

    def report(self, trial: optuna.Trial, step: int, values: Sequence[float]) -> bool:
        """Record what a trial reached after a step, one value an objective; say whether it should be given up.

        Raises ValueError for values that are not one finite number an objective.
        """
        directions = trial.study.directions
        if len(values) != len(directions) or not all(map(np.isfinite, values)):
            raise ValueError(f"one finite value for each of {len(directions)} objectives, got {list(values)}")
        if not self.is_rung(step):
            return False
        name = f"{RUNG}{step}"
        trial.set_user_attr(name, [float(value) for value in values])
        known = self._rungs.setdefault(trial.storage, {}).setdefault(trial.study.study_name, _Rungs())
        signs = [1.0 if direction is StudyDirection.MAXIMIZE else -1.0 for direction in directions]
        return self.stops(np.vstack([values, known.others(trial, name)]) * signs)

    def stops(self, reached: Points) -> bool:
        """Say whether the first of the points at a rung, all objectives maximised, is to be given up."""
        kept = max(1, len(reached) // self.reduction)
        own, others = reached[0], reached[1:]
        ahead = (others >= own).all(1) & (others > own).any(1)
        if len(reached) <= self.warm_up or not ahead.any():
            return False
        if ahead.sum() >= kept:
            return True  # all of these are on earlier fronts
        behind = (others <= own).all(1) & (others < own).any(1)  # these on later ones, and without a say
        return rank(np.vstack([own, others[~behind]]), 0)[0] >= kept


class _Rungs:
    """What the trials of one study reached at each rung."""

    def __init__(self) -> None:
        self._following = Following()
        self._rungs: dict[str, _Rung] = {}

    def others(self, trial: optuna.Trial, name: str) -> Points:
        """Return what all but this trial reached at a rung. Who failed says nothing, and may have been tried again."""
        for one in self._following.changed(trial.study):
            for attr in [attr for attr in one.user_attrs if attr.startswith(RUNG)]:
                rung = self._rungs.setdefault(attr, _Rung())
                if one.state is TrialState.FAIL:
                    rung.drop(one.number)
                elif one.number not in rung.places:
                    rung.add(one.number, one.user_attrs[attr])
        return self._rungs[name].others(trial.number)


class _Rung:
    """Points by the numbers of their trials, in memory that only grows, as most studies do."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self._values = array("d")

    def add(self, number: int, values: Sequence[float]) -> None:
        self.places[number] = len(self.places)
        self._values.extend(values)

    def drop(self, number: int) -> None:
        if number in self.places:
            left = {one: point for one, point in zip(self.places, self._points(), strict=True) if one != number}
            self.places, self._values = {}, array("d")
            for one, point in left.items():
                self.add(one, point)

    def others(self, number: int) -> Points:
        return np.delete(self._points(), self.places[number], axis=0)

    def _points(self) -> Points:
        return np.array(self._values).reshape(len(self.places), -1)
