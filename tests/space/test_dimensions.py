import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from space import SearchSpace, complexity, preset
from space.errors import InputError

BASE = preset("inceptionnext_laptop").replace(
    {
        "depths": [2, 2],
        "widths": [16, 32],
        "mlp_ratios": [2, 2],
        "mixers": [{"kind": "inception", "branch_ratio": 0.25}] * 2,
    }
)
BAND = {"path": "mixers.*.band_kernel_size", "low": 3, "high": 11, "step": 2}
RATIO = {"path": "mixers.*.branch_ratio", "choices": [0.125, 0.25]}
DEPTH = {"path": "depths.1", "choices": [1, 2, 4]}
MIXER = {"path": "mixers.*.kind", "choices": ["inception"]}


def space(**fields: object) -> SearchSpace:
    return SearchSpace.parse({"base": BASE, "resolution": 16} | fields)


TIED = space(dimensions={"band": BAND, "ratio": RATIO, "depth": DEPTH})


def test_enumeration_holds_each_architecture_once() -> None:
    listed = list(TIED.enumerate())
    assert len(listed) == len(set(listed)) == TIED.size == TIED.combinations == 5 * 2 * 3
    assert all(TIED.contains(architecture) for architecture in listed)
    assert TIED.contains(BASE)


def test_a_tied_dimension_moves_all_stages_and_an_indexed_one_its_own() -> None:
    for architecture in TIED.enumerate():
        assert architecture.mixers[0] == architecture.mixers[1]
        assert architecture.depths[0] == 2
    uneven = BASE.replace({"mixers.0.band_kernel_size": 3})
    assert not TIED.contains(uneven)
    own = space(dimensions={"first": BAND | {"path": "mixers.0.band_kernel_size"}})
    assert own.contains(uneven)
    assert own.size == 5


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([3, 5, 7, 9, 11]), st.sampled_from([0.125, 0.25]), st.sampled_from([1, 2, 4]))
def test_what_is_suggested_is_contained(band: int, ratio: float, depth: int) -> None:
    chosen = {"band": band, "ratio": ratio, "depth": depth}
    architecture = TIED.suggest(FixedTrial(chosen))
    assert TIED.contains(architecture)
    assert TIED.choices_of(architecture) == chosen
    assert architecture.depths == (2, depth)
    assert {mixer.band_kernel_size for mixer in architecture.mixers} == {band}


def test_a_real_study_samples_the_space() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: float(TIED.contains(TIED.suggest(trial))), n_trials=20)
    assert {trial.value for trial in study.trials} == {1.0}


def test_a_conditional_dimension_exists_where_its_guard_says() -> None:
    mixed = space(
        dimensions={
            "bands": {"path": "mixers.*.arrangement", "choices": ["parallel", "sequential"]},
            "ratio": RATIO | {"when": {"bands": ["parallel"]}},
        }
    )
    assert mixed.size == 3  # parallel with two ratios, sequential with the base's
    assert set(mixed.choices_of(BASE.replace({"mixers.*.arrangement": "sequential"})) or {}) == {"bands"}
    trial = FixedTrial({"bands": "sequential"})
    assert mixed.suggest(trial).mixers[0].arrangement == "sequential"
    assert set(trial.params) == {"bands"}


def test_a_condition_on_the_kind_of_mixer() -> None:
    either = space(
        base=BASE.replace({"mixers.*": {"kind": "depthwise", "kernel_size": 7}}),
        dimensions={
            "mixer": {"path": "mixers.*", "choices": ["depthwise", "identity"]},
            "kernel": {"path": "mixers.*.kernel_size", "choices": [3, 7], "when": {"mixer": ["depthwise"]}},
        },
    )
    assert {(m.kind, getattr(m, "kernel_size", None)) for a in either.enumerate() for m in a.mixers} == {
        ("depthwise", 3),
        ("depthwise", 7),
        ("identity", None),
    }
    assert either.contains(BASE.replace({"mixers.*": {"kind": "identity"}}))


def test_limits_leave_the_large_ones_out() -> None:
    sizes = sorted(complexity(architecture, 16).params for architecture in TIED.enumerate())
    middle = sizes[len(sizes) // 2]
    limited = space(dimensions={"band": BAND, "ratio": RATIO, "depth": DEPTH}, max_params=middle)
    assert limited.size == sum(size <= middle for size in sizes)
    with pytest.raises(InputError, match=r"params [\d,]+ exceed the space's limit of"):
        limited.suggest(FixedTrial({"band": 11, "ratio": 0.25, "depth": 4}))
    assert not space(dimensions={"depth": DEPTH}, max_macs=1).contains(BASE)


def test_what_cannot_be_built_is_not_part_of_the_space() -> None:
    wide = space(dimensions={"ratio": {"path": "mixers.*.branch_ratio", "choices": [0.25, 0.5]}})
    assert wide.size == 1
    with pytest.raises(InputError, match="exceed 16 channels"):
        wide.suggest(FixedTrial({"ratio": 0.5}))


@pytest.mark.parametrize(
    ("dimensions", "told"),
    [
        ({}, "at least 1"),
        ({"k": {"path": "norm"}}, "either choices or low and high"),
        ({"k": {"path": "norm", "choices": ["x"], "low": 1, "high": 2}}, "either choices or low and high"),
        ({"k": {"path": "depths.0", "low": 3, "high": 1}}, "low 3 is above high 1"),
        ({"k": DEPTH | {"when": {"later": [1]}}}, "'later' is not a dimension before 'k'"),
        ({"d": DEPTH, "k": BAND | {"when": {"d": [9]}}}, "d is never 9"),
        ({"k": DEPTH | {"stepp": 1}}, "extra inputs are not permitted"),
    ],
)
def test_a_wrong_definition_is_told(dimensions: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        space(dimensions=dimensions)


def test_a_path_that_leads_nowhere_is_told() -> None:
    wrong = space(dimensions={"k": {"path": "mixers.*.bnad_kernel_size", "choices": [3]}})
    with pytest.raises(InputError, match="did you mean 'band_kernel_size'"):
        wrong.suggest(FixedTrial({"k": 3}))
