"""Asynchronous successive halving for studies with several objectives, which Optuna's own pruners refuse."""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from search.strategy.following import Following
from search.strategy.ranking import Layers, Pile, Point, spread_order

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
        signs = tuple(1.0 if direction is StudyDirection.MAXIMIZE else -1.0 for direction in directions)
        rungs = self._rungs.setdefault(trial.storage, {}).setdefault(trial.study.study_name, _Rungs(signs))
        return self.stops(rungs.at(trial.study, name), rungs.signed(values))

    def stops(self, rung: Layers | Pile, point: Point) -> bool:
        """Say whether a point of those at a rung, all objectives maximised, is to be given up."""
        before, own = rung.around(point)
        kept = max(1, len(rung) // self.reduction)
        if len(rung) <= self.warm_up or not before or before + len(own) <= kept:
            return False
        if before >= kept:
            return True
        place = int(np.flatnonzero((own == point).all(1))[0])
        return before + int(np.flatnonzero(spread_order(own) == place)[0]) >= kept


class _Rungs:
    """What the trials of one study reached at each rung."""

    def __init__(self, signs: tuple[float, ...]) -> None:
        self._signs = signs
        self._following = Following()
        self._reached: dict[str, dict[int, Point]] = {}
        self._ranked: dict[str, Layers | Pile] = {}

    def signed(self, values: Sequence[float]) -> Point:
        """Return values all of which are maximised."""
        return tuple(sign * value for sign, value in zip(self._signs, values, strict=True))

    def at(self, study: optuna.Study, name: str) -> Layers | Pile:
        """Return what all trials reached at a rung. Who failed says nothing, and may have been tried again."""
        kind = Layers if len(self._signs) == 2 else Pile
        for trial in self._following.changed(study):
            for rung in [attr for attr in trial.user_attrs if attr.startswith(RUNG)]:
                reached = self._reached.setdefault(rung, {})
                before = reached.pop(trial.number, None)
                now = None if trial.state is TrialState.FAIL else self.signed(trial.user_attrs[rung])
                if now is not None:
                    reached[trial.number] = now
                if before is not None and before != now:
                    self._ranked[rung] = kind(reached.values())
                elif before is None and now is not None:
                    self._ranked.setdefault(rung, kind()).add(now)
        return self._ranked[name]
