"""The rounds on synthetic blocks and a synthetic clock: what is true is known."""

import itertools

import pytest

from benchmarks.throughput_calibration import Machine
from search.throughput.interleave import interleave, ratios
from search.throughput.intervals import interval
from search.throughput.protocol import Protocol


def protocol(**fields: object) -> Protocol:
    return Protocol.model_validate({"budget": 1e9, **fields})


@pytest.mark.parametrize("drift", [0.0, 0.001, 0.01])
def test_a_known_ratio_is_found_whatever_the_machine_does(drift: float) -> None:
    machine = Machine({"base": 100, "slow": 80, "same": 100}, drift=drift)
    found = interleave(
        machine.blocks(), "base", protocol(target=1e-9, max_rounds=3000), budget=1e9, clock=machine.clock
    )
    for name, truth in (("slow", 0.8), ("same", 1.0)):
        ratio = interval(ratios(found.speeds, name, "base"))
        assert ratio.centre == pytest.approx(truth, rel=0.002)
        assert ratio.low < truth < ratio.high
    if drift == 0.01:
        assert found.speeds["base"][-1] < 0.5 * found.speeds["base"][0]


def test_every_network_once_a_round_in_changing_order() -> None:
    seen: list[str] = []
    blocks = {name: lambda name=name: seen.append(name) or 1.0 for name in "abc"}  # type: ignore[misc]
    interleave(blocks, "a", protocol(min_rounds=50, max_rounds=50), budget=1e9)
    rounds = list(zip(seen[::3], seen[1::3], seen[2::3], strict=True))
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) == 6


def test_it_stops_at_the_target_the_budget_or_the_most_rounds_and_says_which() -> None:
    machine = Machine({"base": 100, "other": 90})
    found = interleave(machine.blocks(), "base", protocol(target=0.01), budget=1e9, clock=machine.clock)
    assert found.stopped == "target"
    assert interval(ratios(found.speeds, "other", "base")).half_width <= 0.01
    tighter = Machine({"base": 100, "other": 90})
    more = interleave(tighter.blocks(), "base", protocol(target=0.004), budget=1e9, clock=tighter.clock)
    assert more.stopped == "target"
    assert len(more.speeds["base"]) > 3 * len(found.speeds["base"])

    late = Machine({"base": 100, "other": 90})
    cut = interleave(late.blocks(), "base", protocol(target=1e-9), budget=30, clock=late.clock)
    assert cut.stopped == "budget"
    assert 30 <= cut.seconds < 31

    few = Machine({"base": 100, "other": 90})
    done = interleave(few.blocks(), "base", protocol(target=1e-9, max_rounds=20), budget=1e9, clock=few.clock)
    assert (done.stopped, len(done.speeds["other"])) == ("rounds", 20)


def test_rounds_enough_for_an_interval_are_timed_even_past_the_budget() -> None:
    machine = Machine({"base": 100, "other": 90}, noise=0)
    found = interleave(machine.blocks(), "base", protocol(min_rounds=12), budget=0.001, clock=machine.clock)
    assert (found.stopped, len(found.speeds["base"])) == ("budget", 3)
    steady = Machine({"base": 100, "other": 90}, noise=0)
    found = interleave(steady.blocks(), "base", protocol(min_rounds=12), budget=1e9, clock=steady.clock)
    assert (found.stopped, len(found.speeds["base"])) == ("target", 12)


def test_stopping_at_the_target_does_not_undo_the_interval() -> None:
    """Null: two names of one network. The 95 % interval at the moment of stopping covers 1 as often as it says."""
    covered = 0
    for seed in range(300):
        machine = Machine({"base": 100, "same": 100}, noise=0.03, drift=1e-4, seed=seed)
        found = interleave(machine.blocks(), "base", protocol(target=0.02), budget=1e9, clock=machine.clock)
        ratio = interval(ratios(found.speeds, "same", "base"))
        covered += ratio.low <= 1 <= ratio.high
    assert 0.915 <= covered / 300 <= 0.985


def test_joules_are_kept_apart_by_network() -> None:
    used = itertools.count(0.0, 2.0)
    found = interleave(
        {"a": lambda: 1.0, "b": lambda: 1.0},
        "a",
        protocol(min_rounds=5, max_rounds=5),
        budget=1e9,
        meter=lambda: next(used),
    )
    assert found.joules == {"a": 10.0, "b": 10.0}
