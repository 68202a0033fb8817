"""Tables of whole spaces: made from a study's records, read back, and replayed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search_strategies import Quality, Replay, Strategy, replay
from search import table
from search.analysis import load
from search.table import Table, main, read
from space.errors import InputError

pytestmark = pytest.mark.usefixtures("runs")
TABLES = Path(table.__file__).parents[1] / "studies/tables"


@pytest.fixture(scope="module")
def shipped() -> Table:
    return read(TABLES / "laptop.parquet")


def test_a_studys_records_become_a_table(
    run_here: Callable[..., tuple[int, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here("kernel_by_ratio", "--seeds", "2")[0] == 0
    storage, file = f"sqlite:///{tmp_path / 'runs/studies.db'}", tmp_path / "table.parquet"
    assert main(["--study", "kernel_by_ratio", "--storage", storage, str(file)]) == 0
    assert "8 trials, 2 seeds each, written" in capsys.readouterr().err
    made, frame = read(file), load("kernel_by_ratio", storage=storage)
    assert made.space.combinations == len(made.choices) == 4
    assert made.study.to_dict() == frame.attrs["definition"]
    for index, chosen in enumerate(made.choices):
        assert made.index(chosen) == index
        fingerprint = made.space.architecture(chosen).fingerprint
        own = frame[frame["fingerprint"] == fingerprint].sort_values("seed")
        assert made.test[index].tolist() == own["test_accuracy"].tolist()
        assert made.ratio[index] == own["train_ratio"].iloc[0]
        assert made.counts[index]["params"] == own["params"].iloc[0]
        curves = [[point["val_accuracy"] for point in curve] for curve in own["curves"]]
        np.testing.assert_allclose(made.curves[index], curves, rtol=1e-6)


def test_what_makes_no_table_is_told_in_one_line(
    run_here: Callable[..., tuple[int, str]],
    write_study: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_here(write_study(arms={"base": {}}, baseline="base", seeds=1))[0] == 0
    storage, file = f"sqlite:///{tmp_path / 'runs/studies.db'}", tmp_path / "table.parquet"
    for args, told in (
        (["--study", "my_study"], "only a factorial study of the whole grid makes a table"),
        (["--study", "nothing"], "is not in the storage"),
    ):
        assert main([*args, "--storage", storage, str(file)]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    assert not file.exists()
    file.write_text("nothing")
    with pytest.raises(InputError, match="holds no table"):
        read(file)


@pytest.mark.parametrize("name", ["laptop", "digits"])
def test_the_tables_that_come_along_are_whole(name: str) -> None:
    shipped = read(TABLES / f"{name}.parquet")
    assert len(shipped.choices) == shipped.space.combinations == shipped.space.size
    assert shipped.curves.shape == (len(shipped.choices), shipped.test.shape[1], shipped.study.recipe.total_epochs)
    assert shipped.curves.min() >= 0 and shipped.curves.max() <= 100
    assert np.isfinite(shipped.ratio).all()
    base = shipped.index(shipped.space.choices_of(shipped.study.base) or {})
    assert shipped.ratio[base] == 1


def test_quality_is_that_of_the_front_by_its_means(shipped: Table) -> None:
    found = Quality(shipped)
    for index in range(len(shipped.choices)):
        found.add(index, float(found.true[index]))
    assert found.now == pytest.approx(1)
    lucky, worst = Quality(shipped), int(np.argmin(found.true))
    lucky.add(worst, 100.0)
    assert lucky.now == 0  # whatever it was seen to have


@pytest.mark.parametrize(
    "strategy",
    [Strategy("random"), Strategy("random", pruning=True), Strategy("nsga2", True, True), Strategy("exhaustive")],
)
def test_a_replay_spends_its_budget_and_decides_as_a_search_does(shipped: Table, strategy: Strategy) -> None:
    budget = 20 * shipped.study.recipe.total_epochs
    found = replay(shipped, strategy, 3, budget)
    again = replay(shipped, strategy, 3, budget)
    quality = found.pop("quality")
    assert np.array_equal(quality, again["quality"])
    assert len(quality) == budget + 1 and quality[0] == 0
    assert 0 < quality[-1] <= 1
    if not strategy.pruning and not strategy.measure_first:
        assert found == {"complete": 20, "pruned": 0, "skipped": 0}
    if strategy.pruning:
        assert found["pruned"] > 0
        assert found["complete"] + found["pruned"] > 20


def test_sixty_four_workers_at_once_try_no_architecture_twice(shipped: Table) -> None:
    study, budget = Strategy("nsga2", pruning=True).study(shipped, 150), 280
    search = Replay(shipped, study, 0, budget, 64, Quality(shipped))
    search.run()
    tried = [trial.user_attrs["fingerprint"] for trial in search.opened.get_trials(deepcopy=False)]
    assert len(tried) == len(set(tried)) > 64
    assert search.spent == budget
    assert sum(search.counts.values()) + 64 >= len(tried)
    assert 0 < search.quality()[-1] <= 1
