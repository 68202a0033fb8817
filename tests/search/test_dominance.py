"""Noisy fronts against paired intervals, closed cases and simulated rates."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.trial import TrialState
from trial_records import make, record

from search.analysis import answer, load, main_table
from search.analysis.dominance import NoisyFront, dominations, noisy_front
from search.analysis.scores import Scores
from search.predictions import pack
from search.strategy.ranking import hypervolume, non_dominated


def study(path: Path, arms: dict[str, tuple[list[float], float]], **rest: Any) -> pd.DataFrame:
    """Return trials of arms with their accuracies and speeds; intervals of speed reach 5 % to either side."""
    rows = [
        (record(arm, seed, value, speed, **rest), TrialState.COMPLETE)
        for arm, (values, speed) in arms.items()
        for seed, value in enumerate(values)
    ]
    name, storage = make(path, "ablation", rows)
    return load(name, storage=storage)


ARMS = {
    "base": ([90.0, 91.0, 92.5, 90.4], 1000.0),
    "better": ([95.1, 96.0, 97.2, 95.4], 1500.0),
    "rival": ([95.3, 95.8, 97.3, 95.6], 1450.0),
    "slow": ([99.0, 98.0, 99.5, 98.6], 500.0),
}


def test_differences_between_draws_are_as_wide_as_paired_intervals(tmp_path: Path) -> None:
    frame = study(tmp_path, ARMS)
    noisy, scores = noisy_front(frame), Scores.of(frame)
    assert noisy is not None
    for one, other in (("better", "base"), ("better", "rival"), ("slow", "base")):
        drawn = noisy.accuracy[:, noisy.arms.index(one)] - noisy.accuracy[:, noisy.arms.index(other)]
        low, high = scores.contrast({one: 1, other: -1}).interval()
        assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([low, high], abs=0.12 * (high - low))


def test_the_front_has_a_probability_a_band_and_an_area(tmp_path: Path) -> None:
    frame = study(tmp_path, ARMS)
    noisy = noisy_front(frame)
    assert noisy is not None
    chances = noisy.on_front
    assert chances["base"] < 0.01
    assert chances["slow"] > 0.95
    assert 0.2 < chances["rival"] < 0.98
    mid, low, high = noisy.hypervolume()
    means = frame.groupby("arm")[["test_accuracy", "train_ratio"]].mean().to_numpy(dtype=float)
    assert low < hypervolume(means) < high
    assert low < mid < high
    bottom, top = noisy.band(np.array([0.2, 1.0, 9.0]))
    assert bottom[0] <= 98.8 <= top[0]
    assert top[1] < top[0]
    assert np.isnan(bottom[2])
    table = main_table(frame).set_index("arm")
    assert table.loc["base (baseline)", "P(front)"] == "< 0.01"


def test_draws_are_judged_as_fronts_are() -> None:
    rng = np.random.default_rng(3)
    accuracy, speed = rng.normal(90, 2, (50, 6)), rng.lognormal(0, 0.1, (50, 6))
    noisy = NoisyFront(tuple("abcdef"), accuracy, speed)
    each = [np.column_stack(pair) for pair in zip(accuracy, speed, strict=True)]
    expected = np.mean([non_dominated(points) for points in each], axis=0)
    assert list(noisy.on_front.values()) == pytest.approx(expected.tolist())
    assert noisy.hypervolume()[0] == pytest.approx(np.median([hypervolume(points) for points in each]))


def test_one_dominates_another_only_when_both_are_shown(tmp_path: Path) -> None:
    frame = study(tmp_path, ARMS)
    found = dominations(frame)
    pairs = set(zip(found["better"], found["worse"], strict=True))
    assert ("better", "base") in pairs
    assert ("slow", "base") not in pairs
    assert not {("better", "rival"), ("rival", "better")} & pairs
    assert "“better” dominates “base”" in answer(frame)


def test_what_is_alike_is_seldom_said_to_dominate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    false = 0
    base = study(tmp_path, {name: ([90.0] * 4, 1000.0) for name in ("base", "b", "c")})
    for _ in range(60):
        frame = base.assign(test_accuracy=rng.normal(90, 1, len(base)), train_ratio=np.exp(rng.normal(0, 0.0255)))
        frame = frame.assign(train_ratio_low=frame["train_ratio"] * 0.95, train_ratio_high=frame["train_ratio"] / 0.95)
        frame.attrs = base.attrs
        false += len(dominations(frame)) > 0
    assert false <= 3


def test_test_images_are_part_of_the_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(1.5, 1.5, 200)
    rows = []
    for arm in ("base", "other"):
        taste = rng.normal(0, 1, 200)
        for seed in range(5):
            right = hard + taste + rng.normal(0, 0.1, 200) > 0
            one = record(arm, seed, 100 * float(right.mean()), 1000.0, test_correct=pack(right))
            rows.append((one, TrialState.COMPLETE))
    name, storage = make(tmp_path, "ablation", rows)
    frame = load(name, storage=storage)
    noisy, found = noisy_front(frame), Scores.of(frame).contrast({"other": 1, "base": -1})
    assert noisy is not None
    assert np.std(noisy.accuracy[:, 1] - noisy.accuracy[:, 0]) == pytest.approx(found.error, rel=0.15)


def test_too_few_seeds_leave_the_front_unknown(tmp_path: Path) -> None:
    frame = study(tmp_path, {arm: (values[:1], speed) for arm, (values, speed) in ARMS.items()})
    assert noisy_front(frame) is None
    assert dominations(frame).empty
    assert "P(front)" not in main_table(frame)


def test_a_search_knows_the_noise_of_its_validation_images(tmp_path: Path) -> None:
    rows = [
        (
            record(f"trial {n}", 0, 90.0 + n, 1000.0 - 100 * n, val_images=500) | {"baseline": n == 0},
            TrialState.COMPLETE,
        )
        for n in range(3)
    ]
    name, storage = make(tmp_path, "search", rows, dimensions={})
    noisy = noisy_front(load(name, storage=storage))
    assert noisy is not None
    assert np.std(noisy.accuracy[:, 0]) == pytest.approx(100 * np.sqrt(0.9 * 0.1 / 500), rel=0.1)
