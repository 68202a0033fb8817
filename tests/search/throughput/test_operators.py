import json
from math import inf

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from search.throughput import Candidate, Protocol, TimmModel
from search.throughput.operators import Breakdown, Operator, break_down, explain
from search.throughput.roofline import Roofline, measure_roofline
from space import preset

SMALL = Candidate(preset("inceptionnext_laptop"), 24)
QUICK = Protocol(batch_size=4)


@pytest.fixture(scope="module")
def train() -> Breakdown:
    return break_down(SMALL, "train", QUICK, "cpu")


def test_inference_has_the_counted_macs() -> None:
    found = break_down(SMALL, "infer", QUICK, "cpu")
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        SMALL.build().eval()(torch.randn(4, 1, 24, 24))
    assert found.macs == flops.get_total_flops() // 2
    assert {one.phase for one in found.operators} == {"forward"}


def test_operators_lie_within_the_step_they_make_up(train: Breakdown) -> None:
    """Not a statement on speed: parts timed one by one cannot take more than a few times the whole."""
    assert 0 < train.accounted < 3
    assert all(one.seconds >= 0 for one in train.operators)


def test_a_backward_pass_has_twice_the_macs_but_for_the_first_layer(train: Breakdown) -> None:
    """A layer's backward pass makes two gradients, of its input and of its weights; the stem's, one."""
    macs = train.grouped(lambda one: f"{one.phase} {one.layer}")
    for name, part in macs.items():
        phase, layer = name.split(" ")
        if phase == "forward" and part["macs"]:
            gradients = 1 if layer == "stem.0" else 2
            assert macs[f"backward {layer}"]["macs"] == gradients * part["macs"], layer


def test_operators_are_named_by_branch_and_found_in_their_layers(train: Breakdown) -> None:
    layers = {one.layer: one.kind for one in train.operators if one.phase == "forward" and one.macs}
    block = "stages.0.blocks.1"
    assert layers[f"{block}.token_mixer.dwconv_hw"] == "depthwise 3x3"
    assert layers[f"{block}.token_mixer.dwconv_w"] == "depthwise 1x11"
    assert layers[f"{block}.token_mixer.dwconv_h"] == "depthwise 11x1"
    assert layers[f"{block}.mlp.fc1"] == "pointwise 1x1"
    kinds = {(one.layer, one.phase): one.kind for one in train.operators}
    assert ("head.fc2", "backward") in kinds
    concatenations = {one.layer for one in train.operators if one.kind == "concatenation"}
    assert concatenations == {f"stages.0.blocks.{number}.token_mixer" for number in range(3)}
    updates = [one for one in train.operators if one.phase == "update"]
    assert updates
    assert all(one.layer == "" for one in updates)
    weights = sum(parameter.numel() for parameter in SMALL.build().parameters())
    assert sum(one.bytes for one in updates) >= 2 * 4 * weights


def test_timms_models_are_broken_down_too() -> None:
    found = break_down(Candidate(TimmModel("test_convnext"), 64), "train", QUICK, "cpu")
    assert {"linear", "norm"} & set(found.by_kind())
    assert found.macs > 0


def test_a_breakdown_is_plain_data_and_back(train: Breakdown) -> None:
    assert Breakdown.from_dict(json.loads(json.dumps(train.to_dict()))) == train
    short = train.condensed()
    assert {kind: pytest.approx(part) for kind, part in short.by_kind().items()} == train.by_kind()
    assert (short.macs, short.bytes) == (train.macs, train.bytes)
    assert short.accounted == pytest.approx(train.accounted)
    assert len(short.operators) == len(train.by_kind())


def test_the_roofline_is_measured_and_explains() -> None:
    explained = explain({"a": SMALL}, modes=("infer",), protocol=QUICK, device="cpu")
    assert explained.roofline.macs_per_s > 1e9
    assert explained.roofline.bytes_per_s > 1e8
    assert list(explained.breakdowns["a"]) == ["infer"]


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 10**9)), min_size=1, max_size=8))
def test_parts_take_at_least_as_long_as_the_whole_at_the_roofline(parts: list[tuple[int, int]]) -> None:
    roofline = Roofline(macs_per_s=1e9, bytes_per_s=1e8)
    bound = roofline.bound({"macs": macs, "bytes": moved} for macs, moved in parts)
    whole = roofline.seconds(sum(macs for macs, _ in parts), sum(moved for _, moved in parts))
    assert bound >= whole * (1 - 1e-12)
    assert roofline.balance == 10


def test_below_the_balance_bytes_are_the_limit() -> None:
    roofline = Roofline(macs_per_s=100, bytes_per_s=10)
    assert roofline.seconds(macs=50, moved=10) == 1
    assert roofline.seconds(macs=200, moved=10) == 2
    assert measure_roofline("cpu", "bf16").macs_per_s < inf


def test_grouping_keeps_the_sum(train: Breakdown) -> None:
    whole = sum(one.seconds for one in train.operators)
    for name in ("kind", "layer", "phase"):
        parts = train.grouped(lambda one, name=name: str(getattr(one, name)))
        assert sum(part["seconds"] for part in parts.values()) == pytest.approx(whole)
        assert [part["seconds"] for part in parts.values()] == sorted(
            (part["seconds"] for part in parts.values()), reverse=True
        )
    assert isinstance(train.operators[0], Operator)
