"""Searches from end to end: what is not trained, and why; seeds at the front; what the report says of it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import pandas as pd
import pytest

from search.analysis import answer, load, write_report
from search.analysis.findings import by_dimension, prediction_quality, replication, savings
from search.analysis.fronts import scored

pytestmark = pytest.mark.usefixtures("runs")
Run = Callable[..., tuple[int, str]]
EPOCHS = ("--set", "recipe.epochs=4")
DRAWN = ("--set", "predictors=false", "--set", "sampler=random")
PLAIN = ("--seeds", "1", "--set", "pruning=null", *DRAWN)


def records(folder: Path, name: str = "pareto_search") -> pd.DataFrame:
    return load(name, storage=f"sqlite:///{folder / 'runs/studies.db'}")


def test_what_breaks_a_constraint_is_not_trained(run_here: Run, tmp_path: Path) -> None:
    limits = 'constraints={params: "<= 17K", train_throughput: ">= 0.01x reference", memory: "<= 9 GB"}'
    code, told = run_here("pareto_search", *PLAIN, "--set", limits, "--set", "trials=8")
    assert code == 0, told
    frame = records(tmp_path)
    rest = frame[~frame["baseline"]]  # all are compared with the base, which is trained in any case
    assert len(rest) == 7
    assert (rest["stopped"] == "infeasible").equals(rest["params"] > 17_000)
    broken = rest[rest["stopped"] == "infeasible"]
    assert 0 < len(broken) < 7
    assert (broken["state"] == "PRUNED").all() and (broken["epochs"] == 0).all()
    assert broken["train_ratio"].isna().all()  # what is counted is checked before anything is measured
    assert (broken["violation"] == broken["params"] / 17_000 - 1).all()
    assert "infeasible: params" in told
    assert "images/s (ratio 1.000)" in told  # the base's
    assert scored(frame)["params"].max() <= 17_000


def test_an_empty_feasible_set_is_told_with_the_nearest(run_here: Run, tmp_path: Path) -> None:
    limit = 'constraints={params: "<= 5K"}'
    code, told = run_here("pareto_search", *PLAIN, "--set", limit, "--set", "trials=5")
    frame = records(tmp_path)
    nearest = frame[~frame["baseline"]].sort_values("params").iloc[0]
    assert code == 1
    assert f"No candidate keeps the constraints. The nearest is {nearest['arm']}: params" in told
    assert "No candidate keeps the constraints" in (tmp_path / "runs/pareto_search-laptop/report.html").read_text()


def test_rungs_stop_trials_and_an_audit_trains_some_on(run_here: Run, tmp_path: Path) -> None:
    # Drawn at random, the candidates are the same wherever this runs: half of them are far slower than the others and
    # no better, and an audit draws by fingerprint. What predictors choose depends on the throughput measured here.
    rungs = "pruning={first: 1, reduction: 2, warm_up: 2, audit: 0.4}"
    search = ("pareto_search", *EPOCHS, *DRAWN, "--set", rungs, "--set", "trials=14", "--seeds", "2")
    code, told = run_here(*search)
    assert code == 0, told
    frame = records(tmp_path)
    first = frame[frame["seed"] == 0]
    assert len(first) == 14 and first["fingerprint"].is_unique
    pruned, audited = first[first["stopped"] == "pruned"], first[first["audited"].notna()]
    assert len(pruned) and len(audited)
    assert pruned["epochs"].equals(pruned["stopped_epoch"].astype(int))
    assert set(pruned["epochs"]) <= {1, 2}
    assert (audited["epochs"] == 4).all() and (audited["state"] == "COMPLETE").all()
    found = savings(frame)
    assert found is not None
    assert (found.epochs, found.full) == (first["epochs"].sum(), 4 * len(first))
    assert found.audited == len(audited)
    # Whoever is near the front has a second seed; the others have one.
    again = frame[frame["seed"] == 1]
    assert set(again["arm"]) <= set(scored(frame)["arm"])
    assert set(scored(frame).query("on_front")["arm"]) <= set(again["arm"])
    assert replication(frame)["seeds"].max() == 2  # type: ignore[index]
    page = (tmp_path / "runs/pareto_search-laptop/report.html").read_text()
    assert "The front before and after further seeds" in page
    assert f"that saved {found.share:.0%} of the training" in page
    assert f"Of {found.audited} to be given up that were trained on" in page
    code, told = run_here(*search)
    assert code == 0 and len(records(tmp_path)) == len(frame)  # it was over


def test_a_search_starts_from_what_it_is_told_and_from_an_ablation(
    run_here: Run, write_study: Callable[..., str], tmp_path: Path
) -> None:
    kernels = {f"k{size}": {"change": {"mixers.*.band_kernel_size": size}} for size in (3, 7)}
    assert run_here(write_study(arms={"base": {}, **kernels}, baseline="base", seeds=1))[0] == 0
    start = "start=[inceptionnext_laptop, {depth: 4}, my_study]"
    code, told = run_here("pareto_search", *PLAIN, "--set", start, "--set", "trials=4")
    assert code == 0, told
    frame = records(tmp_path)
    assert frame["param.depth"].tolist() == [3, 4, 3, 3]
    assert frame["param.band kernel"].tolist() == [11, 11, 3, 7]


def test_a_space_is_exhausted_without_training_anything_twice(run_here: Run, tmp_path: Path) -> None:
    kernel = "kernel: {path: mixers.*.band_kernel_size, choices: [3, 5]}"
    small = f"dimensions={{depth: {{path: depths.0, choices: [1, 2]}}, {kernel}}}"
    for sampler in ("exhaustive", "tpe"):
        code, told = run_here(
            *("pareto_search", *PLAIN, "--name", sampler, "--set", small, "--set", f"sampler={sampler}"),
            *("--set", "trials=9"),
        )
        assert code == 0, told
        frame = records(tmp_path, sampler)
        assert Counter(zip(frame["param.depth"], frame["param.kernel"], strict=True)) == Counter(
            (depth, kernel) for depth in (1, 2) for kernel in (3, 5)
        )
        assert "no candidate is left: 4 of the 9 that were asked for" in told


def test_a_space_too_large_to_be_listed_is_drawn_from(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the sampler knows nothing at all, as where all that it proposes was tried."""
    monkeypatch.setattr("search.candidates.MOST_TO_EXHAUST", 1)
    monkeypatch.setattr("search.candidates.TRIES", 0)
    small = "dimensions={depth: {path: depths.0, choices: [1, 2]}}"
    code, told = run_here("pareto_search", *PLAIN, "--set", small, "--set", "trials=3")
    assert code == 0, told
    assert sorted(records(tmp_path)["param.depth"].dropna()) == [1, 2]
    assert "no candidate is left: " in told


def test_repetitions_become_further_seeds(run_here: Run, tmp_path: Path) -> None:
    small = "dimensions={depth: {path: depths.0, choices: [1, 2]}}"
    rest = ("--set", "pruning=null", *DRAWN, "--set", "trials=2")
    code, told = run_here("pareto_search", "--set", small, "--seeds", "3", *rest)
    assert code == 0, told
    frame = records(tmp_path)
    assert not frame.duplicated(["fingerprint", "seed"]).any()
    assert frame.groupby("arm")["seed"].apply(lambda seeds: sorted(seeds) == list(range(len(seeds)))).all()


def test_predictions_are_kept_and_judged(run_here: Run, tmp_path: Path) -> None:
    rest = ("--seeds", "1", "--set", "pruning=null", "--set", "trials=18")
    code, told = run_here("pareto_search", *rest)
    assert code == 0, told
    frame = records(tmp_path)
    expected = frame["expected_ratio"].notna()
    assert expected.sum() == 18 - 5  # from the sixth on
    quality = prediction_quality(frame)
    assert {name: count for name, (_, count) in quality.items()} == {"accuracy": 13, "ratio": 13}
    assert "How good the predictions were" in (tmp_path / "runs/pareto_search-laptop/report.html").read_text()
    table = by_dimension(frame)
    assert table.groupby("dimension")["tried"].sum().eq(18).all()
    assert table["share"].between(0, 1.0001).all()


def test_trials_in_optuna_say_what_became_of_them(run_here: Run, tmp_path: Path) -> None:
    limit = 'constraints={params: "<= 17K"}'
    assert run_here("pareto_search", *PLAIN, "--set", limit, "--set", "trials=6")[0] == 0
    study = optuna.load_study(study_name="pareto_search-laptop", storage=f"sqlite:///{tmp_path / 'runs/studies.db'}")
    for trial in study.trials:
        assert trial.constraints["params"] == pytest.approx(trial.user_attrs["params"] / 17_000 - 1)
        assert (trial.state.name == "PRUNED") == (trial.constraints["params"] > 0 and not trial.user_attrs["baseline"])


def test_the_answer_and_report_of_an_unfinished_search_are_plain(run_here: Run, tmp_path: Path) -> None:
    code, told = run_here("pareto_search", *PLAIN, "--set", "trials=1")
    assert code == 0, told
    frame = records(tmp_path)
    assert "1 of 1 architectures that were trained to the end are on the front" in answer(frame)
    empty = frame.iloc[:0].copy()
    empty.attrs = frame.attrs
    assert answer(empty) == "No trial is complete yet."
    write_report(empty, tmp_path / "empty", command="x")
