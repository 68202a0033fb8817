"""Grids of factors against their definition, effects against statsmodels and truths that were planted."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from trial_records import make, record

from search.analysis import answer, load, main_table, write_report
from search.analysis.factorial import anova, steps
from search.analysis.tables import summary
from search.factorial import Factor, crossed
from search.study import Study, load_study
from space import preset
from space.errors import InputError

BASE = preset("inceptionnext_laptop")
KERNEL = Factor(path="mixers.*.band_kernel_size", levels=(3, 7, 11))
RATIO = Factor(path="mixers.*.branch_ratio", levels=("1/16", "1/4"))
DEPTH = Factor(path="depths.0", levels=(2, 3, 4))
FACTORS = {"kernel": KERNEL, "ratio": RATIO, "depth": DEPTH}


def test_a_full_grid_has_every_combination_once_and_starts_from_the_base() -> None:
    arms = crossed(BASE, FACTORS, 1)
    assert len(arms) == 18
    first = next(iter(arms.values()))
    assert first["factor"] == "baseline"
    assert BASE.replace(first["change"]) == BASE
    assert len({BASE.replace(arm["change"]) for arm in arms.values()}) == 18
    assert next(iter(arms)) == "kernel 11, ratio 1/4, depth 3"
    assert {arm["factor"] for arm in arms.values()} == {"baseline", "kernel", "ratio", "depth", "several"}


@given(st.sampled_from([(2, 2, 2), (2, 2, 2, 2), (4, 2, 2), (2, 4, 2, 2)]))
def test_a_half_has_each_level_equally_often(counts: tuple[int, ...]) -> None:
    paths = ("depths.0", "widths.0", "mixers.*.square_kernel_size", "patch_size")
    values = ((2, 3, 4, 5), (16, 32, 48, 64), (3, 5, 7, 9), (2, 1, 4, 8))
    factors = {
        path: Factor(path=path, levels=own[:count]) for path, own, count in zip(paths, values, counts, strict=False)
    }
    arms = crossed(BASE, factors, 2)
    assert len(arms) == np.prod(counts) // 2
    for name, count in zip(factors, counts, strict=True):
        found = pd.Series([arm["levels"][name] for arm in arms.values()]).value_counts()
        assert found.tolist() == [len(arms) // count] * count


def test_a_fraction_that_confuses_factors_is_refused() -> None:
    two = {"kernel": Factor(path=KERNEL.path, levels=(3, 11)), "ratio": RATIO}
    with pytest.raises(InputError, match=r"fraction 1/2 of a grid of 2 x 2 leaves 2 arms, too few"):
        crossed(BASE, two, 2)
    with pytest.raises(InputError, match=r"fraction 1/8 of a grid of 2 x 2: reduction too large"):
        crossed(BASE, two, 8)
    many = {f"depth {n}": Factor(path="depths.0", levels=tuple(range(2, 22))) for n in range(2)}
    with pytest.raises(InputError, match="400 combinations; at most 256"):
        crossed(BASE, many, 1)


FILE = """
question: Does one depend on the other?
kind: factorial
factors:
  kernel: {path: mixers.*.band_kernel_size, levels: [3, 11]}
  ratio: {path: mixers.*.branch_ratio, levels: [1/16, 1/4]}
"""


def test_a_study_of_factors_survives_its_record(write_study: Callable[..., str]) -> None:
    study = load_study(write_study(FILE))
    assert Study.parse(study.to_dict(), "record") == study
    assert study.baseline == "kernel 11, ratio 1/4"
    assert study.architecture(study.baseline) == study.base


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("fraction=0.3", "1 for the full grid, or a share such as 1/2"),
        ("fraction=1/99", "no smaller than 1/16"),
        ("factors.kernel.levels=[3]", "at least 2 items"),
        ("factors.kernel.levels=[3,3]", "has an entry twice"),
        ("factors.kernel.path=mixers.*.kernel", "no field 'kernel'"),
        ("factors.kernel.levels=[3,4]", "a kernel size must be odd"),
        ("seeds={min: 3, max: 5}", "seeds: a rule that adds them is for kind ablation"),
        ("kind=ablation", "factors: for kind factorial only"),
        ("arms={baseline: {}}", "kind factorial makes them from its factors"),
    ],
)
def test_a_mistake_in_factors_is_one_line(write_study: Callable[..., str], change: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load_study(write_study(FILE), overrides=[change])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def trained(
    path: Path,
    truth: Callable[..., float],
    *,
    seeds: int = 4,
    noise: float = 0.1,
    reduction: int = 1,
    third: bool = False,
) -> pd.DataFrame:
    """Return the trials of a grid whose accuracies follow `truth`, with noise of seeds and of trials."""
    factors = {"kernel": KERNEL, "ratio": RATIO} | ({"depth": DEPTH} if third else {})
    arms = crossed(BASE, factors, reduction)
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, seeds)
    rows = [
        (
            record(arm, seed, truth(*spec["levels"].values()) + shared[seed] + noise * rng.normal(), 1000.0)
            | {"baseline": spec["factor"] == "baseline", "factor": spec["factor"]},
            TrialState.COMPLETE,
        )
        for arm, spec in arms.items()
        for seed in range(seeds)
    ]
    definition = {"baseline": next(iter(arms)), "arms": arms, "margin": 1.0, "seeds": seeds}
    listed = {name: factor.model_dump(mode="json") for name, factor in factors.items()}
    name, storage = make(path, "factorial", rows, factors=listed, **definition)
    return load(name, storage=storage)


def alone(kernel: str, ratio: str, depth: str = "3") -> float:
    return 80 + 0.5 * int(kernel) - 3 * (ratio == "1/16") + 0.3 * int(depth)


def together(kernel: str, ratio: str) -> float:
    return alone(kernel, ratio) - 5 * (kernel == "3" and ratio == "1/16")


def test_effects_are_those_of_least_squares_with_seeds_as_blocks(tmp_path: Path) -> None:
    frame = trained(tmp_path, together)
    table = steps(frame).set_index("term")
    cells = {arm: spec["levels"] for arm, spec in frame.attrs["definition"]["arms"].items()}
    data = frame.assign(
        kernel=[cells[arm]["kernel"] for arm in frame["arm"]], ratio=[cells[a]["ratio"] for a in frame["arm"]]
    )
    data["accuracy"] = data["test_accuracy"].astype(float)
    fitted = smf.ols("accuracy ~ C(seed) + C(kernel, Treatment('11')) * C(ratio, Treatment('1/4'))", data).fit()
    for level in ("3", "7"):
        name = f"C(kernel, Treatment('11'))[T.{level}]:C(ratio, Treatment('1/4'))[T.1/16]"
        found = table.loc[f"kernel 11 → {level} × ratio 1/4 → 1/16", "effect"]
        assert found == pytest.approx(fitted.params[name])
    means = data.groupby("kernel")["accuracy"].mean()
    assert table.loc["kernel 11 → 3", "effect"] == pytest.approx(means["3"] - means["11"])


def test_what_was_planted_is_found(tmp_path: Path) -> None:
    frame = trained(tmp_path, together, seeds=6)
    table = steps(frame).set_index("term")
    assert table.loc["kernel 11 → 3 × ratio 1/4 → 1/16", "verdict"] == "depends"
    assert table.loc["kernel 11 → 7 × ratio 1/4 → 1/16", "verdict"] == "does not depend"
    assert table.loc["kernel 11 → 7", "verdict"] == "hurts"
    low, high = table.loc["kernel 11 → 3 × ratio 1/4 → 1/16", ["effect_low", "effect_high"]]
    assert low <= -5 <= high
    found = anova(frame)
    assert found is not None
    assert found["share"].sum() == pytest.approx(1)
    assert found["term"].tolist() == ["seed", "kernel", "ratio", "kernel × ratio", "rest"]
    assert (found.set_index("term").loc[["kernel", "ratio", "kernel × ratio"], "p"] < 0.001).all()


def test_a_fraction_tells_factors_apart_but_no_pairs(tmp_path: Path) -> None:
    frame = trained(tmp_path, alone, reduction=3, third=True, noise=0.0)
    table = steps(frame).set_index("term")
    assert set(table["kind"]) == {"main"}
    assert table.loc["kernel 11 → 3", "effect"] == pytest.approx(-4)
    assert table.loc["depth 3 → 4", "effect"] == pytest.approx(0.3)
    assert "cannot tell whether one factor's effect depends" in answer(frame)


def test_a_grid_with_holes_is_analysed_with_what_it_has(tmp_path: Path) -> None:
    frame = trained(tmp_path, together, seeds=4)
    attrs = frame.attrs
    frame = frame.assign(state=np.where(frame["number"] == 0, "FAIL", frame["state"]))
    frame.attrs = attrs
    table = steps(frame).set_index("term")
    assert table.loc["kernel 11 → 3 × ratio 1/4 → 1/16", "seeds"] == 3
    assert "1 failed trial is left out" in answer(frame)


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    frame = trained(tmp_path, together, seeds=1)
    assert set(steps(frame)["verdict"]) == {"undecided"}
    assert anova(frame) is None
    assert "too few seeds" in answer(frame)


def test_the_report_shows_factors_together(tmp_path: Path) -> None:
    frame = trained(tmp_path, together)
    paths = write_report(frame, tmp_path / "out", command="python -m search.run")
    assert {"interactions", "steps_csv", "variance_tex"} <= paths.keys()
    assert "kernel × ratio" in paths["variance_md"].read_text()
    assert "kernel 11 → 3 × ratio 1/4 → 1/16" in paths["report"].read_text()
    shown = main_table(frame)
    assert shown.columns[:2].tolist() == ["kernel", "ratio"]
    assert set(zip(shown["kernel"], shown["ratio"], strict=True)) == set(
        itertools.product(["3", "7", "11"], ["1/16", "1/4"])
    )
    assert len(summary(frame)["steps"]) == 5
