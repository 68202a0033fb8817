import json

import pytest
import torch

from search.throughput import Candidate, Protocol, measure
from search.throughput.interleave import make_step
from space import Architecture, build
from space.errors import InputError

QUICK = Protocol(batch_size=2, rounds=3, block_seconds=0.001, warmup_steps=1)


def network(depth: int = 1, width: int = 8) -> Architecture:
    fields = {"in_channels": 1, "num_classes": 3, "patch_size": 2, "depths": [depth], "widths": [width]}
    return Architecture.parse(fields | {"mlp_ratios": 2, "mixers": "identity", "drop_path": 0.5})


def test_a_record_is_whole_and_plain() -> None:
    seen: list[tuple[int, int]] = []
    candidates = {"base": Candidate(network(), 8), "other": Candidate(network(2), 8)}
    found = measure(candidates, reference="base", protocol=QUICK, on_progress=lambda *done: seen.append(done))
    assert json.loads(json.dumps(found)) == found
    assert seen == [(n + 1, 12) for n in range(12)]
    for name, record in found.items():
        assert record["protocol"] == QUICK.model_dump(mode="json")
        assert record["device"] in ("cpu", "cuda")
        for mode in ("train", "infer"):
            measured = record[mode]
            assert len(measured["rounds"]) == 3
            assert measured["low"] <= measured["median"] <= measured["high"]
            assert measured["median"] == sorted(measured["rounds"])[1]
            assert measured["reference"] == network().fingerprint
            ratios = [a / b for a, b in zip(measured["rounds"], found["base"][mode]["rounds"], strict=True)]
            assert measured["ratio"] == sorted(ratios)[1], name
    assert found["base"]["train"]["ratio"] == found["base"]["infer"]["ratio_high"] == 1


def test_forty_times_the_work_is_slower() -> None:
    candidates = {"base": Candidate(network(), 16), "deep": Candidate(network(40), 16)}
    found = measure(candidates, reference="base", protocol=QUICK)
    assert found["deep"]["train"]["ratio"] < 1
    assert found["deep"]["infer"]["ratio"] < 1


def test_a_candidate_that_cannot_run_fails_alone() -> None:
    candidates = {"base": Candidate(network(), 8), "odd": Candidate(network(), 7)}
    found = measure(candidates, reference="base", protocol=QUICK)
    assert found["odd"] == {"failure": found["odd"]["failure"]}
    assert "resolution 7 is not divided" in found["odd"]["failure"]
    assert found["base"]["train"]["median"] > 0
    without = measure(candidates, reference="odd", protocol=QUICK)
    assert without["base"]["train"]["ratio"] is None
    assert without["base"]["train"]["median"] > 0


def test_out_of_memory_is_a_failure_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(architecture: Architecture) -> torch.nn.Module:
        if architecture.depths == (2,):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore")
        return build(architecture)

    monkeypatch.setattr("search.throughput.interleave.build", refuse)
    found = measure({"a": Candidate(network(), 8), "b": Candidate(network(2), 8)}, reference="a", protocol=QUICK)
    assert found["b"] == {"failure": "train: CUDA out of memory. Tried to allocate 20 GiB"}
    assert "failure" not in found["a"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_step_trains_and_inference_does_not(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    built: list[torch.nn.Module] = []
    monkeypatch.setattr("search.throughput.interleave.build", lambda a: built.append(build(a)) or built[-1])
    protocol = Protocol.model_validate(QUICK.model_dump() | {"precision": precision})
    for mode, changes in (("train", True), ("infer", False)):
        step = make_step(Candidate(network(), 8), mode, protocol, "cpu")
        before = [parameter.detach().clone() for parameter in built[-1].parameters()]
        for _ in range(3):
            step()
        after = list(built[-1].parameters())
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) is changes
        assert built[-1].training is changes


def test_state_outside_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    tf32 = Protocol.model_validate(QUICK.model_dump() | {"precision": "tf32"})
    measure({"base": Candidate(network(), 8)}, reference="base", protocol=tf32)
    after = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    assert after == before
    assert torch.equal(torch.rand(2), expected)


def test_mistakes_are_told() -> None:
    with pytest.raises(InputError, match="device 'cuda:77' is not on this machine"):
        measure({"base": Candidate(network(), 8)}, reference="base", protocol=QUICK, device="cuda:77")
    for field, value in (("rounds", 0), ("batch_size", 0), ("block_seconds", 0), ("modes", ["infer"])):
        with pytest.raises(ValueError, match=field):
            Protocol.model_validate({field: value})
