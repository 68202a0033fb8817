from collections.abc import Callable

import pytest

from search.plan import jobs, paper_rows
from search.study import Study, difference, list_scales, list_studies, load_study
from space.errors import InputError

ALL = [(study, scale) for study in list_studies() for scale in list_scales()]


@pytest.mark.parametrize(("study", "scale"), ALL)
def test_every_study_can_be_asked_at_every_scale(study: str, scale: str) -> None:
    asked = load_study(study, scale)
    assert asked.question
    assert Study.parse(asked.to_dict(), "again") == asked
    if asked.kind == "search":
        assert asked.space.contains(asked.base)
    else:
        planned = jobs(asked)
        assert len(planned) == len(asked.arms) * asked.seeds
        assert sum(job.baseline for job in planned) == asked.seeds
        assert all(job.architecture.stride <= job.resolution for job in planned)
    rows = paper_rows(asked)
    assert rows is None or set(rows["rows"]) <= set(asked.arms)


def test_arms_of_the_papers_ablation_differ_from_the_baseline_and_from_each_other() -> None:
    for scale in ("laptop", "imagenet"):
        asked = load_study("paper_table8", scale)
        built = [asked.architecture(arm) for arm in asked.arms]
        assert len(set(built)) == len(built) == 11


def test_arms_change_what_they_say() -> None:
    asked = load_study("kernel_ablation")
    assert asked.architecture("baseline") == asked.base
    assert {mixer.band_kernel_size for mixer in asked.architecture("band kernel 7").mixers} == {7}
    assert asked.architecture("no bands").mixers[0].branches == ("square",)


def test_overrides_reach_every_section() -> None:
    asked = load_study(
        "kernel_ablation",
        overrides=[
            "recipe.epochs=2",
            "data.noise=0.3",
            "throughput.budget=3",
            "seeds=7",
            "base.mixers.*.branch_ratio=1/8",
            "arms.no bands.factor=other",
        ],
    )
    assert (asked.recipe.epochs, asked.data.noise, asked.throughput.budget, asked.seeds) == (2, 0.3, 3, 7)
    assert asked.base.mixers[0].branch_ratio == 0.125
    assert asked.arms["no bands"].factor == "other"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["recipe.epoch=2"], "--set: recipe.epoch: no field 'epoch', did you mean 'epochs'?"),
        (["recipe.epochs"], "--set 'recipe.epochs': expected path.to.field=value"),
        (["recipe.epochs=0"], "recipe.epochs: input should be greater than or equal to 1 (got 0)"),
        (["recipe.epochs=many"], "recipe.epochs: input should be a valid integer"),
        (["recipe.optimizer=adamv"], "unknown optimizer, did you mean"),
        (["seeds=-1"], "seeds: a whole number from 1 to 10,000, or a rule such as"),
        (["base.mixers.*.band_kernel_size=4"], "must be odd and positive"),
        (["base.mixers.*.band_kernel_size=-3"], "must be odd and positive"),
        (["base.mixers.*.branch_ratio=0.5"], "3 branches of 16 channels exceed 32 channels; allowed: at most 1/3"),
        (["base.mixers.*.branch_ratio=0.01"], "rounds down to 0 channels"),
        (["base.depths=[2, 2]"], "both need one entry a stage"),
        (["data.resolution=25"], "resolution 25 is not divided by the network's stride 2"),
        (["base.num_classes=7"], "base.num_classes is 7, the data 'digit_pairs' has 5"),
        (["data.gap=20"], "exceed resolution 24"),
        (["data.name=mnist"], "does not match any of the expected tags"),
        (["baseline=nothing"], "baseline: 'nothing' is not one of the arms"),
        (["throughput.modes=[sprint]"], "throughput.modes"),
        (["arms.no bands.preset=inceptionnext_tinny"], "did you mean 'inceptionnext_tiny'?"),
        (["arms.no band.factor=x"], "no field 'no band', did you mean 'no bands'?"),
        (["seeds={min: 5, max: 3}"], "seeds: rule: min 5 is more than max 3"),
        (["seeds={min: 1}"], "seeds: rule: min: input should be greater than or equal to 2"),
        (["margin=-1"], "margin: percentage points of accuracy, a number above 0"),
        (["margin=5%"], "or null for none (got '5%')"),
        (["seeds=[1"], "--set seeds: '[1' is not a YAML value"),
    ],
)
def test_a_wrong_override_is_told_in_one_line(overrides: list[str], told: str) -> None:
    with pytest.raises(InputError) as caught:
        load_study("kernel_ablation", overrides=overrides)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "scale", "told"),
    [
        ("kernel_ablatoin", None, "unknown study 'kernel_ablatoin', did you mean 'kernel_ablation'?"),
        ("kernel_ablation", "labtop", "unknown scale 'labtop', did you mean 'laptop'?"),
        ("nowhere.yaml", None, "study file 'nowhere.yaml' does not exist"),
        ("kernel_ablation", "nowhere.yaml", "scale file 'nowhere.yaml' does not exist"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(name: str, scale: str | None, told: str) -> None:
    with pytest.raises(InputError, match=told.replace("?", r"\?")):
        load_study(name, scale)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("question: [unclosed", "cannot be read as YAML"),
        ("- a\n- list", "expected a mapping of fields, not list"),
        ("\x00", "cannot be read as YAML"),
        ("question: 3", "question: input should be a valid string (got 3)"),
        ("question: why\nquestoin: typo", "questoin: extra inputs are not permitted"),
        ("question: why", "kind ablation needs arms"),
        ("question: why\nkind: search", "kind search needs dimensions"),
        ("question: why\nkind: guess", "kind: input should be 'ablation', 'factorial', 'search' or 'table'"),
        ("question: why\nfamily: resnet\narms: {baseline: {}}", "has no base for 'resnet'"),
        ("question: why\narms: {baseline: {change: {nom: x}}}", "no field 'nom', did you mean 'norm'?"),
        ("question: why\narms: {baseline: {preset: inceptionnext}}", "unknown preset 'inceptionnext'"),
        ("question: why\nkind: search\ndimensions: {k: {path: norm}}", "give either choices or low and high"),
        ("question: why\nkind: search\ndimensions: {k: {path: norm, choices: [a, a]}}", "an entry twice"),
        ("question: why\nscales: 3\narms: {baseline: {}}", "scales: a mapping"),
    ],
)
def test_a_malformed_file_is_told_in_one_line(write_study: Callable[..., str], text: str, told: str) -> None:
    path = write_study(text)
    with pytest.raises(InputError) as caught:
        load_study(path)
    assert told in str(caught.value)
    assert "my_study.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_ones_own_is_a_study(write_study: Callable[..., str]) -> None:
    asked = load_study(write_study(arms={"baseline": {}, "deep": {"change": {"depths.0": 5}}}, paper=None))
    assert asked.full_name == "my_study-laptop"
    assert asked.architecture("deep").depths == (5,)


def test_an_unknown_row_of_the_paper_is_told() -> None:
    asked = load_study("kernel_ablation", overrides=["arms.no bands.paper=no such row"])
    with pytest.raises(InputError, match="ablation has no row 'no such row'; allowed: inceptionnext_tiny"):
        paper_rows(asked)


def test_difference_names_each_field() -> None:
    before = load_study("kernel_ablation").to_dict()
    after = load_study("kernel_ablation", overrides=["recipe.epochs=3", "data.noise=0.5"]).to_dict()
    assert difference(before, after) == ["data.noise was 0.1, is 0.5", "recipe.epochs was 9, is 3"]
    assert difference(before, before) == []
