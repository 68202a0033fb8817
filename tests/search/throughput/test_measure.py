import json
import subprocess
import sys

import pytest
import torch

from search.throughput import Candidate, Protocol, TimmModel, measure
from search.throughput import steps as steps_module
from search.throughput.steps import Runner, largest_batch, make_step, peak_memory, prepare, warm_up
from space import Architecture
from space import build as build_architecture
from space.errors import InputError

QUICK = Protocol(batch_size=2, min_rounds=3, max_rounds=3, block_seconds=0.001, warmup_seconds=0)


def network(depth: int = 1, width: int = 8) -> Architecture:
    fields = {"in_channels": 1, "num_classes": 3, "patch_size": 2, "depths": [depth], "widths": [width]}
    return Architecture.parse(fields | {"mlp_ratios": 2, "mixers": "identity", "drop_path": 0.5})


def test_a_record_is_whole_and_plain() -> None:
    seen: list[tuple[float, float]] = []
    candidates = {"base": Candidate(network(), 8), "other": Candidate(network(2), 8)}
    found = measure(candidates, reference="base", protocol=QUICK, on_progress=lambda *done: seen.append(done))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len(seen) == 6
    assert all(0 <= spent <= budget == 60 for spent, budget in seen)
    for record in found.values():
        assert record["protocol"] == QUICK.model_dump(mode="json")
        assert record["torch"] == torch.__version__
        assert record["threads"] == torch.get_num_threads()
        assert record["device"]
        assert isinstance(record["flags"], list)
        for mode in ("train", "infer"):
            measured = record[mode]
            assert len(measured["rounds"]) == 3
            assert measured["low"] <= measured["images_per_s"] <= measured["high"]
            assert min(measured["rounds"]) <= measured["images_per_s"] <= max(measured["rounds"])
            assert measured["reference"] == network().fingerprint
            assert measured["stopped"] in ("target", "rounds")
            assert measured["first_step_seconds"] > 0
    base, other = found["base"]["train"], found["other"]["train"]
    assert (base["ratio"], base["ratio_low"], base["ratio_high"]) == (1, 1, 1)
    per_round = [a / b for a, b in zip(other["rounds"], base["rounds"], strict=True)]
    assert min(per_round) <= other["ratio"] <= max(per_round)


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
    assert found["base"]["train"]["images_per_s"] > 0
    without = measure(candidates, reference="odd", protocol=QUICK)
    assert without["base"]["train"]["ratio"] is None
    assert without["base"]["train"]["images_per_s"] > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_step_trains_and_inference_does_not(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    built: list[torch.nn.Module] = []

    def keep(architecture: Architecture) -> torch.nn.Module:
        built.append(build_architecture(architecture))
        return built[-1]

    monkeypatch.setattr(steps_module, "build_architecture", keep)
    protocol = Protocol.model_validate(QUICK.model_dump() | {"precision": precision})
    for mode, changes in (("train", True), ("infer", False), ("latency", False)):
        step = make_step(Candidate(network(), 8), mode, protocol, "cpu", "channels_last")  # type: ignore[arg-type]
        before = [parameter.detach().clone() for parameter in built[-1].parameters()]
        for _ in range(3):
            step()
        after = list(built[-1].parameters())
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) is changes
        assert built[-1].training is changes


def test_latency_is_of_one_image_and_timm_models_are_measured_too() -> None:
    protocol = QUICK.model_copy(update={"modes": ("latency", "infer")})
    candidates = {"ours": Candidate(network(), 32), "timm": Candidate(TimmModel("test_resnet", 1, 3), 32)}
    found = measure(candidates, reference="ours", protocol=protocol)
    assert found["timm"]["latency"]["images_per_s"] > 0
    assert "train" not in found["timm"]
    assert found["ours"]["infer"]["reference"] == network().fingerprint


def test_the_best_memory_format_is_the_faster_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"channels_last": 2.0, "contiguous": 1.0}

    def fake(candidate: object, mode: object, protocol: object, device: str, format_: str) -> Runner:
        return Runner(lambda: None, 1, device, facts={"memory_format": format_, "cost": slow[format_]})

    monkeypatch.setattr(steps_module, "_prepare", fake)
    monkeypatch.setattr(Runner, "block", lambda self: 1 / self.facts["cost"])
    both = QUICK.model_copy(update={"memory_format": "best"})
    assert prepare(Candidate(network(), 8), "infer", both, "cpu").facts["memory_format"] == "contiguous"
    slow["contiguous"] = 3.0
    assert prepare(Candidate(network(), 8), "infer", both, "cpu").facts["memory_format"] == "channels_last"


def test_warm_up_ends_when_block_times_stop_falling(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, *(0.001 * (1 + 30 / (n + 1)) for n in range(10_000))])
    seen: list[float] = []

    def timed(step: object, count: int, device: str) -> float:
        seen.append(next(times))
        return seen[-1] * count

    monkeypatch.setattr(steps_module, "timed", timed)
    runner = Runner(lambda: None, 1, "cpu")
    facts = warm_up(runner, Protocol(block_seconds=0.1))
    assert facts["steady"] is True
    assert 20 < len(seen) < 200  # not before the curve is flat, nor long after
    assert runner.steps == pytest.approx(0.1 / seen[-1], rel=0.1)


def test_memory_is_counted_and_grows_with_the_batch() -> None:
    small, large = (
        peak_memory(Candidate(network(4, 32), 32), "train", QUICK.model_copy(update={"batch_size": batch}))
        for batch in (8, 32)
    )
    images = 32 * 32 * 32 * 4
    assert small > 8 * 32 * 32 * 4
    assert large - small > images - 8 * 32 * 32 * 4
    assert 2.5 < large / small < 4.5
    assert peak_memory(Candidate(network(4, 32), 32), "infer", QUICK.model_copy(update={"batch_size": 32})) < large


LIMITED = """
import resource, torch
torch.set_num_threads(1)
from search.throughput import Candidate, Protocol, measure
from space import Architecture
network = Architecture.parse({"in_channels": 1, "num_classes": 3, "patch_size": 2, "depths": [1], "widths": [64],
                              "mlp_ratios": 2, "mixers": "identity"})
resource.setrlimit(resource.RLIMIT_AS, (resource.getpagesize() * int(open("/proc/self/statm").read().split()[0])
                                        + (1 << 30), -1))
protocol = Protocol(batch_size=16384, min_rounds=1, max_rounds=1, block_seconds=0.001, warmup_seconds=0)
print(measure({"a": Candidate(network, 32)}, reference="a", protocol=protocol)["a"])
"""


def test_out_of_memory_offers_the_largest_batch_that_fits() -> None:
    """In a process whose memory is really limited."""
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=300)
    assert "out of memory at batch size 16384; the largest that fits is about" in done.stdout, done.stderr
    fits = int(done.stdout.split("about ")[1].split("'")[0])
    assert 16 < fits < 16384


def test_not_even_one_image_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(architecture: Architecture) -> torch.nn.Module:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore")

    monkeypatch.setattr(steps_module, "build_architecture", refuse)
    assert largest_batch(Candidate(network(), 8), "train", QUICK, "cpu") is None
    found = measure({"a": Candidate(network(), 8)}, reference="a", protocol=QUICK)
    assert found["a"] == {"failure": "train: out of memory at batch size 2; not even one image fits"}


def test_state_outside_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    threads = torch.get_num_threads()
    measure({"base": Candidate(network(), 8)}, reference="base", protocol=QUICK.model_copy(update={"threads": 2}))
    after = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    assert after == before
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(2), expected)


def test_mistakes_are_told() -> None:
    with pytest.raises(InputError, match="device 'cuda:77' is not on this machine"):
        measure({"base": Candidate(network(), 8)}, reference="base", protocol=QUICK, device="cuda:77")
    for change, told in (
        ({"precision": "tf32"}, "precision tf32 needs an NVIDIA GPU"),
        ({"cuda_graphs": True}, "cuda_graphs needs a GPU"),
    ):
        protocol = QUICK.model_copy(update=change)
        with pytest.raises(InputError, match=told):
            measure({"base": Candidate(network(), 8)}, reference="base", protocol=protocol, device="cpu")
    for field, value in (
        ("min_rounds", 0),
        ("batch_size", 0),
        ("block_seconds", 0),
        ("modes", []),
        ("modes", ["train", "train"]),
        ("target", 1),
        ("budget", 0),
    ):
        with pytest.raises(ValueError, match=field):
            Protocol.model_validate({field: value})
    with pytest.raises(ValueError, match="min_rounds: 30 is more than max_rounds, 20"):
        Protocol(min_rounds=30, max_rounds=20)
