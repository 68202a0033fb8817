"""Studies that grow under their name, and forks of those that change."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.analysis import load
from search.plan import FORKED, defined, open_study
from search.storage import open_storage
from search.study import load_study
from search.worker import join

pytestmark = pytest.mark.usefixtures("runs")
TWO = {"baseline": "base", "arms": {"base": {}, "k3": {"change": {"mixers.*.band_kernel_size": 3}}}}
THREE = TWO["arms"] | {"k7": {"change": {"mixers.*.band_kernel_size": 7}}}  # type: ignore[operator]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(run_here: Run) -> Run:
    return lambda study, *args: run_here(study, "--seeds", "1", *args)


def studies(folder: Path) -> str:
    return f"sqlite:///{folder / 'runs/studies.db'}"


def started(url: str, name: str) -> dict[tuple[str, int], object]:
    trials = optuna.load_study(study_name=name, storage=url).get_trials(states=(TrialState.COMPLETE,))
    return {(t.user_attrs["arm"], t.user_attrs["seed"]): t.datetime_start for t in trials}


def test_arms_are_added_and_none_is_run_again(run: Run, write_study: Callable[..., str], tmp_path: Path) -> None:
    assert run(write_study(**TWO))[0] == 0
    before = started(studies(tmp_path), "my_study-laptop")
    code, told = run(write_study(**TWO | {"arms": THREE}))
    assert code == 0, told
    after = started(studies(tmp_path), "my_study-laptop")
    assert set(after) == {("base", 0), ("k3", 0), ("k7", 0)}
    assert {key: after[key] for key in before} == before
    code, told = run(write_study(**TWO))
    assert code == 2
    assert "arms.k7 was {" in told
    assert "is None; --fork NEW_NAME asks it under another name" in told


def test_factors_get_levels(run: Run, write_study: Callable[..., str], tmp_path: Path) -> None:
    def grid(*kernels: int) -> str:
        band = {"path": "mixers.*.band_kernel_size", "levels": list(kernels)}
        square = {"path": "mixers.*.square_kernel_size", "levels": [3, 5]}
        factors = {"band": band, "square": square}
        fields = {"kind": "factorial", "factors": factors, "arms": {}}
        return write_study(**fields)

    assert run(grid(11, 3))[0] == 0
    code, told = run(grid(11, 3, 7))
    assert code == 0, told
    assert len(started(studies(tmp_path), "my_study-laptop")) == 6


def test_a_worker_that_joined_before_runs_arms_that_were_added(
    write_study: Callable[..., str], miniature: list[str], tmp_path: Path
) -> None:
    from rich.console import Console

    from search.progress import LineProgress

    storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    open_study(load_study(write_study(**TWO), overrides=["seeds=1", *miniature]), storage)
    worker = join("my_study-laptop", storage, tmp_path, LineProgress(Console(stderr=True), 2, 0))
    open_study(load_study(write_study(**TWO | {"arms": THREE}), overrides=["seeds=1", *miniature]), storage)
    worker.run()
    assert load("my_study", storage=storage)["state"].tolist() == ["COMPLETE"] * 3


def test_a_default_of_another_kind_may_have_changed(write_study: Callable[..., str], tmp_path: Path) -> None:
    """A record of version 0.1 has a search's sampler, though it is of an ablation, and another one than now."""
    storage, study = open_storage(f"sqlite:///{tmp_path / 'studies.db'}"), load_study(write_study(**TWO))
    opened = open_study(study, storage)
    assert study.sampler != "tpe"
    opened.set_user_attr("definition", opened.user_attrs["definition"] | {"sampler": "tpe", "predictors": False})
    open_study(study, storage)
    assert defined(opened).arms == study.arms


def test_a_fork_keeps_what_still_holds(run: Run, write_study: Callable[..., str], tmp_path: Path) -> None:
    assert run(write_study(**TWO))[0] == 0
    changed = THREE | {"k3": {"change": {"mixers.*.band_kernel_size": 5}}}
    code, told = run(write_study(**TWO | {"arms": changed}))
    assert code == 2
    assert "arms.k3.change.mixers.*.band_kernel_size was 3, is 5" in told
    for _ in range(2):  # the same command again goes on
        code, told = run(write_study(**TWO | {"arms": changed}), "--fork", "other")
        assert code == 0, told
    frame = load("other", storage=studies(tmp_path))
    assert sorted(frame["arm"]) == ["base", "k3", "k7"]
    assert frame["state"].tolist() == ["COMPLETE"] * 3
    old, new = (started(studies(tmp_path), f"{name}-laptop") for name in ("my_study", "other"))
    assert new["base", 0] == old["base", 0]
    assert new["k3", 0] != old["k3", 0]
    opened = optuna.load_study(study_name="other-laptop", storage=studies(tmp_path))
    copied = [trial.user_attrs[FORKED] for trial in opened.get_trials() if FORKED in trial.user_attrs]
    assert copied == ["my_study-laptop, trial 0"]
    assert len(load("my_study", storage=studies(tmp_path))) == 2  # as it was


def test_another_recipe_leaves_nothing_that_holds(run: Run, write_study: Callable[..., str], tmp_path: Path) -> None:
    file = write_study(**TWO)
    assert run(file)[0] == 0
    code, told = run(file, "--fork", "longer", "--set", "recipe.epochs=2")
    assert code == 0, told
    opened = optuna.load_study(study_name="longer-laptop", storage=studies(tmp_path))
    assert not any(FORKED in trial.user_attrs for trial in opened.get_trials())
    assert len(opened.get_trials()) == 2


def test_a_search_goes_on_for_longer_and_forks(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for trials in (3, 5):
        assert run("pareto_search", "--set", f"trials={trials}")[0] == 0
        assert len(load("pareto_search", storage=studies(tmp_path))) == trials
    code, told = run("pareto_search", "--set", "trials=6", "--set", "sampler=random", "--fork", "random")
    assert code == 0, told
    frame = load("random", storage=studies(tmp_path))
    assert frame["state"].tolist() == ["COMPLETE"] * 6
    opened = optuna.load_study(study_name="random-laptop", storage=studies(tmp_path))
    assert sum(FORKED in trial.user_attrs for trial in opened.get_trials()) == 5


def test_mistakes_in_forks_are_one_line(run: Run, write_study: Callable[..., str]) -> None:
    file = write_study(**TWO)
    code, told = run(file, "--fork", "other")
    assert (code, told.count("\n")) == (2, 1)
    assert "--fork other: there is no study 'my_study-laptop' to be forked" in told
    assert run(file)[0] == run(file, "--name", "other")[0] == 0
    code, told = run(file, "--fork", "other")
    assert (code, told.count("\n")) == (2, 1)
    assert "--fork other: the storage has a study 'other-laptop' already" in told
