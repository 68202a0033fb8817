"""Optuna's samplers, through the view that they get of a search."""

import pytest

from search.strategy.sampling import SAMPLERS, UNCONDITIONAL, View
from space import SearchSpace, preset
from space.dimensions import Choice, Dimension

BASE = preset("inceptionnext_laptop")
SPACE = SearchSpace(
    base=BASE,
    dimensions={
        "branch ratio": Dimension(path="mixers.*.branch_ratio", choices=(0.25, 0.0625, 0.125)),
        "band kernel": Dimension(path="mixers.*.band_kernel_size", low=3, high=13, step=2),
        "depth": Dimension(path="depths.0", low=1, high=6),
        "norm": Dimension(path="norm", choices=("batchnorm", "layernorm")),
    },
    resolution=24,
)


def scored(chosen: dict[str, Choice]) -> tuple[float, float]:
    """Deeper is better and slower, a large kernel is better for nothing, LayerNorm is worse in both."""
    depth, kernel = float(chosen["depth"]), float(chosen["band kernel"])
    worse = chosen["norm"] == "layernorm"
    return 50 + 6 * depth + kernel - 9 * worse, 2 - 0.2 * depth - 0.3 * worse


def searched(sampler: str, trials: int, limit: float = 6) -> list[dict[str, Choice]]:
    view, found = View(SPACE, sampler, seed=0, trials=trials), []
    for _ in range(trials):
        proposal = view.propose()
        assert proposal is not None
        number, chosen = proposal
        found.append(chosen)
        view.end(number, scored(chosen), {"depth": float(chosen["depth"]) / limit - 1})
    return found


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "exhaustive"])
def test_samplers_choose_within_the_space(sampler: str) -> None:
    for chosen in searched(sampler, 14):
        assert list(chosen) == list(SPACE.dimensions)
        for name, value in chosen.items():
            assert value in SPACE.dimensions[name].values


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "gp"])
def test_samplers_learn_what_is_good_and_what_is_infeasible(sampler: str) -> None:
    trials = 30 if sampler == "gp" else 80
    late = searched(sampler, trials, limit=3)[-trials // 3 :]
    assert sum(float(chosen["depth"]) <= 3 for chosen in late) > 0.65 * len(late)  # half of the space
    assert sum(chosen["norm"] == "batchnorm" for chosen in late) > 0.65 * len(late)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "gp"])
def test_samplers_learn_from_what_others_proposed(sampler: str) -> None:
    view = View(SPACE, sampler, seed=0, trials=40)
    for chosen in searched("random", 40, limit=3):
        view.end(view.begin(chosen), scored(chosen), {"depth": float(chosen["depth"]) / 3 - 1})
    proposals = [view.propose() for _ in range(12)]
    depths = [float(one[1]["depth"]) for one in proposals if one is not None]
    assert sum(depth <= 3 for depth in depths) >= 7


def test_every_choice_is_proposed_once_then_none() -> None:
    view = View(SPACE, "exhaustive", seed=3)
    found = []
    while (proposal := view.propose()) is not None:
        found.append(tuple(proposal[1].values()))
    assert sorted(map(str, found)) == sorted(str(tuple(chosen.values())) for chosen in SPACE.assignments())
    assert len(set(found)) == SPACE.combinations
    assert found[:5] != [tuple(chosen.values()) for chosen in SPACE.assignments()][:5]


def test_a_choice_that_is_put_back_comes_again_last() -> None:
    view, found = View(SPACE, "exhaustive"), []
    first = view.propose()
    assert first is not None
    view.end(first[0], None)
    while (proposal := view.propose()) is not None:
        found.append(proposal[1])
        view.end(proposal[0], [1.0, 1.0])
    assert len(found) == SPACE.combinations
    assert found[-1] == first[1]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in (*UNCONDITIONAL, "exhaustive")])
def test_dimensions_that_exist_only_sometimes_are_sampled(sampler: str) -> None:
    kernel = Dimension(path="mixers.*.square_kernel_size", choices=(3, 5), when={"norm": ("batchnorm",)})
    space = SPACE.model_copy(update={"dimensions": {**SPACE.dimensions, "square kernel": kernel}})
    assert space.conditional and not SPACE.conditional
    view, seen = View(space, sampler, seed=0, trials=30), set()
    for _ in range(30):
        proposal = view.propose()
        assert proposal is not None
        assert ("square kernel" in proposal[1]) == (proposal[1]["norm"] == "batchnorm")
        seen.add(proposal[1]["norm"])
        view.end(proposal[0], scored(proposal[1]))
    assert seen == {"batchnorm", "layernorm"}
