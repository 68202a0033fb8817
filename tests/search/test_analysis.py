"""Tables and figures from a real storage, against closed forms and scipy."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.text import Text
from optuna.trial import TrialState
from PIL import Image
from scipy import stats
from trial_records import make, measured, record

from search.analysis import (
    answer,
    effects,
    front,
    hypervolume,
    importances,
    load,
    main_table,
    paper_table,
    write_report,
)
from search.analysis.dominance import noisy_front
from search.analysis.efficiency import of_arms
from search.analysis.figures import GREY, all_figures
from search.analysis.findings import replication, savings
from search.analysis.fronts import scored
from search.analysis.inference import Difference
from search.analysis.scores import Scores
from search.analysis.tables import agreement, markdown, summary
from search.predictions import pack, unpack
from search.strategy.ranking import non_dominated
from search.throughput.operators import Breakdown, Operator
from search.throughput.roofline import Roofline

ACCURACY = {"base": [90.0, 92.0, 91.0], "small": [80.0, 85.0, 83.0], "same": [90.5, 91.5, 91.2]}
SPEED = {"base": 1000.0, "small": 1500.0, "same": 900.0}


def ablation(path: Path, **definition: Any) -> pd.DataFrame:
    rows = [
        (record(arm, seed, value, SPEED[arm]), TrialState.COMPLETE)
        for arm, accuracies in ACCURACY.items()
        for seed, value in enumerate(accuracies)
    ]
    rows.append((record("small", 3, 1.0, 1500.0, failure="out of <memory>"), TrialState.FAIL))
    name, storage = make(path, "ablation", rows, **definition)
    return load(name, storage=storage)


def search(path: Path, n: int = 16) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(n):
        a, b = (int(v) for v in rng.integers(1, 5, 2))
        attrs = record(f"trial {number}", 0, 60.0 + 8 * a + rng.normal(), 2000.0 - 300 * a + 50 * b + rng.normal())
        rows.append((attrs | {"params_sampled": {"a": a, "b": b}, "baseline": number == 0}, TrialState.COMPLETE))
    name, storage = make(path, "search", rows, dimensions={"a": {}, "b": {}})
    return load(name, storage=storage)


def test_a_row_a_trial(tmp_path: Path) -> None:
    frame = ablation(tmp_path)
    assert len(frame) == 10
    assert frame["state"].value_counts().to_dict() == {"COMPLETE": 9, "FAIL": 1}
    row = frame.iloc[3]
    assert (row["arm"], row["seed"], row["test_accuracy"], row["train_ratio"]) == ("small", 0, 80.0, 1.5)
    assert row["curves"][1]["val_accuracy"] == 52
    assert frame.attrs["study"] == "mine-laptop"


def test_effects_are_the_paired_differences(tmp_path: Path) -> None:
    table = effects(ablation(tmp_path)).set_index("arm")
    for arm in ("small", "same"):
        difference = np.array(ACCURACY[arm]) - np.array(ACCURACY["base"])
        paired = stats.ttest_rel(ACCURACY[arm], ACCURACY["base"])
        low, high = paired.confidence_interval(0.95)
        assert table.loc[arm, "effect"] == pytest.approx(difference.mean())
        assert (table.loc[arm, "effect_low"], table.loc[arm, "effect_high"]) == (
            pytest.approx(low),
            pytest.approx(high),
        )
        assert paired.pvalue <= table.loc[arm, "p"] <= 2 * paired.pvalue * (1 + 1e-9)  # Holm over two arms
    assert table.loc["small", "accuracy"] == pytest.approx(np.mean(ACCURACY["small"]))
    assert math.isnan(table.loc["base", "effect"])
    assert table["seeds"].tolist() == [3, 3, 3]
    assert table.loc["small", "failed"] == 1


def test_one_seed_gives_no_interval(tmp_path: Path) -> None:
    rows = [(record(arm, 0, ACCURACY[arm][0], SPEED[arm]), TrialState.COMPLETE) for arm in ACCURACY]
    name, storage = make(tmp_path, "ablation", rows)
    frame = load(name, storage=storage)
    table = effects(frame).set_index("arm")
    assert table.loc["small", "effect"] == -10
    assert table[["accuracy_low", "effect_low", "effect_high", "p"]].isna().all().all()
    assert main_table(frame).loc[1, "effect, points, 95 % CI"] == "-10.00 [–]"
    assert "undecided: small (-10.0; too few seeds), same (" in answer(frame)
    assert main_table(frame).loc[1, "verdict"] == "undecided: too few seeds"


def test_an_arm_whose_first_trial_is_to_come_has_no_effect_yet(tmp_path: Path) -> None:
    frame = ablation(tmp_path)
    frame = frame[(frame["arm"] != "small") | (frame["state"] == "FAIL")]
    assert "small (too few seeds)" in answer(frame)
    assert "nan" not in answer(frame)


def test_intervals_end_where_percentages_do(tmp_path: Path) -> None:
    rows = [(record("base", seed, value, 1000.0), TrialState.COMPLETE) for seed, value in enumerate((99.0, 80.0))]
    name, storage = make(tmp_path, "ablation", rows)
    table = effects(load(name, storage=storage))
    assert table["accuracy_high"].tolist() == [100]


def test_verdicts_answer_the_question_and_what_is_open_says_what_it_takes(tmp_path: Path) -> None:
    accuracies = {
        "base": [90.0, 90.4, 89.8, 90.1],
        "bad": [80.0, 80.5, 79.9, 80.2],
        "same": [90.05, 90.45, 89.9, 90.1],
        "open": [88.0, 92.0, 89.0, 94.0],
    }
    rows = [
        (record(arm, seed, value, 1000.0), TrialState.COMPLETE)
        for arm, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    name, storage = make(tmp_path, "ablation", rows, margin=1.0)
    frame = load(name, storage=storage)
    table = effects(frame).set_index("arm")
    assert table["verdict"].tolist()[1:] == ["hurts", "equivalent", "undecided"]
    assert table.loc["open", "seeds_needed"] > 4
    text = answer(frame)
    assert "hurts: bad (-9.9 [" in text
    assert "equivalent to the baseline within 1.0 points: same" in text
    assert "undecided: open (+0.7; " in text
    assert "more seeds" in text or "test set" in text
    paths = write_report(frame, tmp_path / "out", command="python -m search.run --study mine", live=True)
    assert 'http-equiv="refresh"' in paths["report"].read_text()
    tex = paths["result_tex"].read_text()
    assert "\\toprule" in tex
    for text in (tex, paths["result_md"].read_text(), str(Image.open(paths["effects"]).info["Description"])):
        assert ", commit abc: python -m search.run --study mine" in text
    final = write_report(frame, tmp_path / "out", command="")["report"].read_text()
    assert 'http-equiv="refresh"' not in final


def test_predictions_kept_widen_the_interval_to_other_test_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for arm, share in (("base", 0.9), ("small", 0.8)):
        for seed in range(3):
            right = rng.random(100) < share
            one = record(arm, seed, 100 * float(right.mean()), SPEED[arm], test_correct=pack(right))
            rows.append((one, TrialState.COMPLETE))
    name, storage = make(tmp_path, "ablation", rows)
    frame = load(name, storage=storage)
    weights = {"small": 1.0, "base": -1.0}
    found = Scores.of(frame).contrast(weights)
    assert found.images == 100
    assert found.image_variance >= 0
    bare = frame.assign(test_correct=[{}] * len(frame))
    bare.attrs = frame.attrs
    seeds_alone = Scores.of(bare).contrast(weights)
    assert seeds_alone.images == 0
    assert seeds_alone.effect == pytest.approx(found.effect)


@given(st.lists(st.booleans(), max_size=70))
def test_predictions_survive_being_packed(right: list[bool]) -> None:
    packed = json.loads(json.dumps(pack(np.array(right, dtype=bool))))
    assert unpack(packed).tolist() == right


@pytest.mark.parametrize(
    ("effect", "paper", "expected"),
    [
        (-10.0, -0.5, "cannot tell: one seed"),
        (-10.0, -9.0, "agrees"),
        (-10.0, 9.0, "contradicts"),
    ],
)
def test_a_published_difference_is_judged_by_this_studys_noise(effect: float, paper: float, expected: str) -> None:
    ours = Difference(effect, 4, 1.0)
    assert agreement(ours, "hurts", paper) == expected
    assert agreement(ours, "undecided", paper) == "cannot tell"
    assert agreement(Difference(0.0, 4, 0.01), "equivalent", 0.3, margin=1.0) == "agrees"


points = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(0, 6).map(float))


@given(points)
def test_the_front_is_what_no_point_dominates(values: np.ndarray) -> None:
    expected = [not any(all(other >= own) and any(other > own) for other in values) for own in values]
    assert non_dominated(values).tolist() == expected


@given(points, st.tuples(st.integers(0, 7), st.integers(0, 7)))
def test_the_hypervolume_counts_dominated_unit_squares(values: np.ndarray, extra: tuple[int, int]) -> None:
    grid = sum(any(x > i and y > j for x, y in values) for i in range(7) for j in range(7))
    assert hypervolume(values) == grid
    assert hypervolume(np.vstack([values, extra])) >= hypervolume(values)
    assert hypervolume(values[non_dominated(values)]) == hypervolume(values)


def test_a_search_reports_its_front_and_what_mattered(tmp_path: Path) -> None:
    frame = search(tmp_path)
    best = front(frame)
    assert best["train_ratio"].is_monotonic_decreasing
    assert best["accuracy"].is_monotonic_increasing
    shares = importances(frame)
    assert shares["accuracy"].sum() == pytest.approx(1)
    assert shares["accuracy"].idxmax() == "a"
    assert importances(frame.head(5)).empty
    assert f"{len(best)} of 16 architectures that were trained to the end are on the front" in answer(frame)
    assert len(summary(frame)["result"]) == len(best)


@pytest.mark.parametrize("kind", ["search", "ablation"])
def test_a_fronts_line_is_the_best_accuracy_at_each_speed_or_more(tmp_path: Path, kind: str) -> None:
    frame = search(tmp_path) if kind == "search" else ablation(tmp_path)
    points = scored(frame) if kind == "search" else effects(frame)
    drawn = [
        line for line in all_figures(frame)["accuracy_throughput"].axes[0].lines if line.get_drawstyle() == "steps-pre"
    ]
    assert len(drawn) == 1
    speeds, accuracies = (np.array(one, dtype=float) for one in drawn[0].get_data())
    assert len(speeds) > 1 and (np.diff(speeds) > 0).all()
    for speed in (speeds[:-1] + speeds[1:]) / 2:
        reached = points.loc[points["train_ratio"] >= speed, "accuracy"].max()
        assert accuracies[np.searchsorted(speeds, speed)] == reached


def test_operators_of_candidates_are_compared_at_one_speed_of_the_machine(tmp_path: Path) -> None:
    """Both take 30 and 10 parts; the second, of ratio 2, was timed while the machine had a quarter of its speed."""
    roofline = {"macs_per_s": 1e9, "bytes_per_s": 1e9}
    rows = []
    for arm, speed, accuracy, drift in (("trial 0", 1000.0, 90.0, 1.0), ("trial 1", 2000.0, 80.0, 4.0)):
        parts = (
            Operator("", kind, "", drift * part / speed, 10**5, 10**5) for kind, part in (("norm", 30), ("mlp", 10))
        )
        timed = Breakdown(64, drift * 64 / speed, tuple(parts)).to_dict()
        peaks = roofline | {"macs_per_s": 1e9 / drift}
        throughput = measured(speed) | {"operators": {"train": timed, "roofline": peaks}}
        rows.append((record(arm, 0, accuracy, speed, baseline=drift == 1, throughput=throughput), TrialState.COMPLETE))
    for kind, speed in (("search", 0.5), ("ablation", 2.0)):  # an ablation times all side by side: nothing to scale
        (tmp_path / kind).mkdir()
        name, storage = make(tmp_path / kind, kind, [(dict(attrs), state) for attrs, state in rows])
        found = of_arms(load(name, storage=storage))
        assert found is not None
        peaks_of_base, times = found
        assert peaks_of_base == Roofline(**roofline)
        assert times["trial 1"].step_seconds == pytest.approx(speed * times["trial 0"].step_seconds)
        assert times["trial 1"].by_kind()["norm"]["seconds"] == pytest.approx(speed * 30 / 1000)


def test_the_paper_stands_beside_as_differences_and_ratios(tmp_path: Path) -> None:
    rows = {
        "base": {"params": 28.1, "macs": 4.2, "train": 901, "infer": 2900, "top1": 82.3},
        "small": {"params": 28.0, "macs": 4.2, "train": 936, "infer": 3097, "top1": 81.8},
    }
    frame = ablation(tmp_path, paper={"rows": rows, "source": "arXiv, ablation", "machine": "A100, one seed"})
    table = paper_table(frame)
    assert table is not None
    cells = table.set_index("arm").loc["small"]
    assert cells["effect, paper (points, one seed)"] == "-0.5"
    assert cells["train ratio, paper"] == f"{936 / 901:.3f}"
    assert cells["train ratio, ours"].startswith("1.500 [")
    assert paper_table(search_free_of_paper(frame)) is None


def search_free_of_paper(frame: pd.DataFrame) -> pd.DataFrame:
    bare = frame.copy()
    bare.attrs = {**frame.attrs, "definition": frame.attrs["definition"] | {"paper": None}}
    return bare


@pytest.mark.parametrize("kind", ["ablation", "search", "table", "nothing finished"])
def test_the_report_is_one_page_that_escapes_what_people_typed(tmp_path: Path, kind: str) -> None:
    if kind == "ablation":
        frame = ablation(tmp_path)
    elif kind == "search":
        frame = search(tmp_path)
    else:
        state = TrialState.WAITING if kind == "nothing finished" else TrialState.COMPLETE
        rows = [(record(arm, 0, None, SPEED[arm]), state) for arm in ACCURACY]
        name, storage = make(tmp_path, "table", rows)
        frame = load(name, storage=storage)
    paths = write_report(frame, tmp_path / "out", command="python -m search.run --study '<b>'")
    assert all(path.stat().st_size > 0 for path in paths.values())
    page = paths["report"].read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;" in page
    if kind == "ablation":
        assert page.count("<svg") == 4
        assert "small, seed 3: out of &lt;memory&gt;" in page
        assert {"effects", "accuracy_throughput", "throughput", "learning_curves"} <= paths.keys()
        assert len(pd.read_csv(paths["trials"])) == 10
    if kind == "nothing finished":
        assert "No trial is complete yet" in page


def test_figures_of_many_arms_name_those_on_the_front(tmp_path: Path) -> None:
    arms = {"base": (90.0, 1000.0), "better": (95.0, 900.0), **{f"arm {n}": (80.0 - n, 990.0 - n) for n in range(20)}}
    rows = [
        (record(arm, seed, accuracy + seed, speed), TrialState.COMPLETE)
        for arm, (accuracy, speed) in arms.items()
        for seed in range(2)
    ]
    name, storage = make(tmp_path, "ablation", rows)
    figures = all_figures(load(name, storage=storage))
    told = [text.get_text() for text in figures["accuracy_throughput"].findobj(Text)]
    assert {"1", "2", "1  base", "2  better"} <= set(told)
    assert not any("arm" in text for text in told)
    colours = [line.get_color() for line in figures["learning_curves"].axes[0].lines]
    assert len(colours) == 22
    assert len([colour for colour in colours if colour != GREY]) == 2


def test_markdown_escapes_what_would_end_a_cell() -> None:
    assert markdown(pd.DataFrame({"a": ["x|y"]})).splitlines()[2] == "| x\\|y |"


def test_an_architectures_seeds_are_averaged_and_its_first_one_remembered(tmp_path: Path) -> None:
    rows = []
    made = {"lucky": ((95.0, 75.0), 1000.0), "steady": ((90.0, 92.0), 1000.0), "fast": ((70.0, 71.0), 2000.0)}
    for number, (seed, name) in enumerate((seed, name) for seed in (0, 1) for name in made):
        accuracies, speed = made[name]
        attrs = record(f"trial {number % 3}", seed, accuracies[seed], speed, fingerprint=name, val_images=1000)
        rows.append((attrs | {"params_sampled": {"a": 1 + number % 3}}, TrialState.COMPLETE))
    stopped = record("trial 6", 0, None, 900.0, fingerprint="slow") | {
        "stopped": {"why": "pruned", "epoch": 2, "text": "52.00 % after 2 epochs"},
        "params_sampled": {"a": 4},
        "curves": record("x", 0, 50.0, 1.0)["curves"],
    }
    rows.append((stopped, TrialState.PRUNED))
    name, storage = make(tmp_path, "search", rows, dimensions={"a": {}}, recipe={"epochs": 4})
    frame = load(name, storage=storage)
    done = scored(frame).set_index("fingerprint")
    assert done["accuracy"].to_dict() == {"lucky": 85.0, "steady": 91.0, "fast": 70.5}
    assert done["first_front"].to_dict() == {"lucky": True, "steady": False, "fast": True}
    assert done["on_front"].to_dict() == {"lucky": False, "steady": True, "fast": True}
    table = replication(frame)
    assert table is not None
    assert table["arm"].tolist() == ["trial 2", "trial 0", "trial 1"]
    found = savings(frame)
    assert found is not None
    assert (found.epochs, found.full, found.given_up, found.audited) == (8, 16, {"pruned": 1}, 0)
    assert "1 pruned; that saved 50% of the training" in answer(frame)
    assert "at 1 times the base's speed or more, trial 1 (91.0 %); at 1.5 times" in answer(frame)
    noisy = noisy_front(frame)
    assert noisy is not None
    # Seeds of one network lie 20 points apart, and that is taken to be so of all.
    assert np.std(noisy.accuracy[:, noisy.arms.index("trial 1")]) > 4
