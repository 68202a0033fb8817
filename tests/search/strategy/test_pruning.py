"""Pruning with several objectives, for whoever has an Optuna study: no other part of the workbench is used."""

import subprocess
import sys
import warnings

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.strategy import ParetoPruner
from search.strategy.ranking import Layers, fronts, spread_order

SAMPLERS = {
    "tpe": lambda: optuna.samplers.TPESampler(seed=0),
    "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=0, population_size=8),
    "nsga3": lambda: optuna.samplers.NSGAIIISampler(seed=0, population_size=8),
    "gp": lambda: optuna.samplers.GPSampler(seed=0, n_startup_trials=5),
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
}
EPOCHS = 9


def search(study: optuna.Study, pruner: ParetoPruner, trials: int) -> int:
    """Search a made-up problem whose curves rise to their end; return how many epochs were trained."""
    trained = 0

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        nonlocal trained
        size, waste = trial.suggest_float("size", 0, 1), trial.suggest_float("waste", 0, 1)
        best, speed = 100 * size * (1 - 0.5 * waste), 2 - size - 0.5 * waste
        for epoch in range(1, EPOCHS + 1):
            trained += 1
            reached = best * (1 - 0.5**epoch)
            if pruner.report(trial, epoch, [reached, speed]):
                raise optuna.TrialPruned
        return best, speed

    study.optimize(objective, n_trials=trials)
    return trained


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_go_on_with_pruned_trials(sampler: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(directions=["maximize", "maximize"], sampler=SAMPLERS[sampler]())
    trials = 30 if sampler == "gp" else 60
    trained = search(study, ParetoPruner(), trials)
    states = [trial.state for trial in study.trials]
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert len(states) == trials
    # A sampler that proposes little but the front leaves little to be given up.
    assert trained < (1 if sampler == "gp" else 0.75) * EPOCHS * trials


def test_the_front_is_kept_at_a_fraction_of_the_training() -> None:
    """With curves that never cross, who is given up is dominated, or near somebody who goes on."""
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=optuna.samplers.RandomSampler(seed=1))
    search(study, ParetoPruner(), 150)
    whole = optuna.create_study(directions=["maximize", "maximize"], sampler=optuna.samplers.RandomSampler(seed=1))
    search(whole, ParetoPruner(first=EPOCHS), 150)

    def volume(of: optuna.Study) -> float:
        best = sorted((trial.values for trial in of.best_trials), reverse=True)
        area, height = 0.0, 0.0
        for accuracy, speed in best:
            area, height = area + accuracy * max(0.0, speed - height), max(height, speed)
        return area

    assert volume(study) > 0.97 * volume(whole)


def test_directions_are_heeded() -> None:
    """A loss and seconds, both minimised: the worst at the rung is given up, the best goes on."""
    study = optuna.create_study(directions=["minimize", "minimize"])
    pruner = ParetoPruner(warm_up=0)
    told = [pruner.report(study.ask(), 1, [value, value]) for value in (5.0, 4.0, 6.0, 3.0, 9.0)]
    assert told == [False, False, True, False, True]


def test_workers_share_the_rungs_through_the_storage(storage_url: str) -> None:
    for number in range(6):
        storage = optuna.storages.RDBStorage(storage_url)
        study = optuna.create_study(
            study_name="shared", storage=storage, directions=["maximize", "maximize"], load_if_exists=True
        )
        stops = ParetoPruner().report(study.ask(), 3, [50.0 - number, 1.0])
        assert stops == (number >= 3)


def test_failed_trials_are_not_compared_with() -> None:
    study = optuna.create_study(directions=["maximize", "maximize"])
    pruner = ParetoPruner(warm_up=0)
    failing = [study.ask() for _ in range(5)]
    for trial in failing:
        pruner.report(trial, 1, [99.0, 9.0])
    assert pruner.report(study.ask(), 1, [1.0, 1.0])
    for trial in failing[1:]:
        study.tell(trial, state=TrialState.FAIL)
    assert pruner.report(study.ask(), 1, [2.0, 2.0])
    study.tell(failing[0], state=TrialState.FAIL)
    assert not pruner.report(study.ask(), 1, [3.0, 3.0])


def test_a_trial_that_reports_again_stands_where_it_does_now() -> None:
    """As one that goes on from an earlier epoch, with other values."""
    study = optuna.create_study(directions=["maximize", "maximize"])
    pruner, again = ParetoPruner(warm_up=0), study.ask()
    assert not pruner.report(again, 1, [9.0, 9.0])
    assert pruner.report(study.ask(), 1, [8.0, 8.0])
    assert pruner.report(again, 1, [1.0, 1.0])
    assert not pruner.report(study.ask(), 1, [8.5, 8.5])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40), st.integers(2, 4))
def test_who_is_ahead_of_a_share_of_all_goes_on(values: list[tuple[int, int]], reduction: int) -> None:
    """The rule, spelled out: front by front, those of a front in the order that spreads."""
    layers, points = Layers(values), np.array(values, dtype=float)
    front, order = fronts(points), []
    for index in range(front.max() + 1):
        own = np.unique(points[front == index], axis=0)
        waiting = (front < index).sum()
        order += [(tuple(own[place]), waiting + step) for step, place in enumerate(spread_order(own))]
    for point, place in order:
        stops = ParetoPruner(reduction=reduction, warm_up=0).stops(layers, point)
        assert stops == ((front[(points == point).all(1)] > 0).all() and place >= max(1, len(points) // reduction))


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 2)), min_size=1, max_size=30), st.integers(2, 4))
def test_of_all_at_a_rung_the_front_and_a_share_go_on(values: list[tuple[float, float]], reduction: int) -> None:
    pruner = ParetoPruner(reduction=reduction, warm_up=0)
    points, layers = np.array(values), Layers(values)
    going_on = {point for point in values if not pruner.stops(layers, point)}
    first = {tuple(point) for point, front in zip(points, fronts(points), strict=True) if front == 0}
    assert first <= going_on
    assert len(going_on) <= max(len(first), len(points) // reduction)


@pytest.mark.parametrize("wrong", [{"first": 0}, {"reduction": 1}, {"warm_up": -1}])
def test_arguments_that_make_no_rungs_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="first is 1 or more"):
        ParetoPruner(**wrong)


@pytest.mark.parametrize("values", [[1.0], [1.0, float("nan")], [1.0, 2.0, 3.0]])
def test_values_that_are_not_one_number_an_objective_are_refused(values: list[float]) -> None:
    study = optuna.create_study(directions=["maximize", "maximize"])
    with pytest.raises(ValueError, match="one finite value for each of 2 objectives"):
        ParetoPruner().report(study.ask(), 1, values)


def test_it_needs_nothing_of_the_workbench_but_itself() -> None:
    loaded = (
        "import sys, search.strategy; print(*(n for n in ('torch', 'timm', 'mlflow', 'space') if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
