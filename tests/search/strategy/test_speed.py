"""What steps take, learnt from timed operators: of a made-up machine, and of the one that made the recorded table."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.strategy.predictors import rank_correlation
from search.strategy.speed import OperatorTimes
from search.table import read
from space.complexity import operators
from space.operators import Work

TABLE = Path(__file__).parents[3] / "studies" / "tables" / "laptop.parquet"
works = st.builds(Work, st.integers(0, 10**9), st.integers(1, 10**9), st.integers(1, 100))


def taken(kind: str, work: Work) -> float:
    a_byte = 1e-9 if kind == "norm" else 3e-9
    return 1e-10 * work.macs + a_byte * work.bytes + 1e-5 * work.calls


@given(st.lists(works, min_size=4, max_size=8, unique=True), works)
def test_a_machine_that_takes_so_much_for_everything_is_found_out(known: list[Work], asked: Work) -> None:
    steps = [({"norm": work}, {"norm": taken("norm", work)}) for work in known]
    table = np.array(known, dtype=float)
    if np.linalg.matrix_rank(table / table.max(0).clip(1)) == 3:
        found = OperatorTimes(steps).seconds({"norm": asked})
        assert found == pytest.approx(taken("norm", asked), rel=1e-3, abs=1e-9)


def test_kernels_of_another_size_are_told_by_their_shape_and_unknown_kinds_by_all() -> None:
    work = Work(1000, 1000, 1)
    times = OperatorTimes([({"depthwise 1x11": work, "norm": work}, {"depthwise 1x11": 3.0, "norm": 1.0})])
    assert times.seconds({"depthwise 1x7": work}) == pytest.approx(3.0)
    assert 1.0 < times.seconds({"attention": work}) < 3.0


def test_operators_timed_in_four_networks_rank_all_the_others() -> None:
    table = read(TABLE)
    made = [table.space.architecture(one) for one in table.choices]
    counted = [operators(one, table.study.data.resolution) for one in made]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(10):
        timed = rng.choice(len(made), 4, replace=False)
        times = OperatorTimes([(counted[place], table.operators[place]) for place in timed])
        others = np.setdiff1d(np.arange(len(made)), timed)
        expected = np.array([1 / times.seconds(counted[place]) for place in others])
        found.append(rank_correlation(expected, table.ratio[others]))
    assert min(found) > 0.9
