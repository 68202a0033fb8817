"""Measure images per second: all networks interleaved, so that drift of the machine hits all alike."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from lightning_modules.precision import FORMATS, arithmetic, autocast, resolve_device
from search.throughput.protocol import Mode, Protocol
from space import Architecture, build
from space.errors import InputError

Step = Callable[[], None]


@dataclass(frozen=True)
class Candidate:
    """A network to be measured, and the pixels a side of its images."""

    architecture: Architecture
    resolution: int


def measure(
    candidates: Mapping[str, Candidate],
    *,
    reference: str,
    protocol: Protocol,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure every candidate against `reference`, one of them; return a plain record for each.

    A training step is forward, backward and an SGD step on random labels, drop path off, as in timm's
    benchmark, which the paper used; inference runs in eval mode. A ratio is the median, over rounds, of the
    candidate's images/s over the reference's in the same round; spreads are quartiles over rounds. A candidate
    that cannot run is ``{"failure": reason}``; without the reference, ratios are None.

    Raises InputError for a device that is absent.
    """
    device = resolve_device(device)
    records: dict[str, dict[str, Any]] = {
        name: {
            "train": None,
            "infer": None,
            "protocol": protocol.model_dump(mode="json"),
            "device": device,
            "threads": torch.get_num_threads(),
        }
        for name in candidates
    }
    seen = 0
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with arithmetic(protocol.precision), torch.random.fork_rng(enabled=True):
            torch.manual_seed(0)
            for mode in protocol.modes:
                speeds = _rounds(candidates, records, mode, protocol, device, on_progress, seen)
                seen += protocol.rounds * len(candidates)
                for name, per_round in speeds.items():
                    records[name][mode] = _summary(per_round, speeds.get(reference))
                    records[name][mode]["reference"] = candidates[reference].architecture.fingerprint
    finally:
        torch.backends.cudnn.benchmark = benchmark
    return {name: _failed_alone(record) for name, record in records.items()}


def _rounds(
    candidates: Mapping[str, Candidate],
    records: dict[str, dict[str, Any]],
    mode: Mode,
    protocol: Protocol,
    device: str,
    on_progress: Callable[[int, int], None] | None,
    seen: int,
) -> dict[str, list[float]]:
    """Return images/s of each round; candidates that fail get a reason in their record and drop out."""
    steps: dict[str, Step] = {}
    counts: dict[str, int] = {}
    speeds: dict[str, list[float]] = {}
    for name, candidate in candidates.items():
        if "failure" in records[name]:
            continue
        try:
            steps[name] = make_step(candidate, mode, protocol, device)
            counts[name] = _steps_per_block(steps[name], protocol, device)
            speeds[name] = []
        except (RuntimeError, MemoryError, InputError) as error:
            steps.pop(name, None)
            records[name]["failure"] = f"{mode}: {str(error).splitlines()[0]}"
    order = random.Random(0)
    total = len(protocol.modes) * protocol.rounds * len(candidates)
    for _ in range(protocol.rounds):
        for name in order.sample(sorted(steps), len(steps)):
            seconds = _timed(steps[name], counts[name], device)
            speeds[name].append(counts[name] * protocol.batch_size / seconds)
            seen += 1
            if on_progress is not None:
                on_progress(seen, total)
    return speeds


def make_step(candidate: Candidate, mode: Mode, protocol: Protocol, device: str) -> Step:
    """Build the network and return one step of it on synthetic images, ready to be timed."""
    candidate.architecture.check_resolution(candidate.resolution)
    architecture = candidate.architecture.replace({"drop_path": 0.0, "head_dropout": 0.0})
    network = build(architecture).to(device, memory_format=FORMATS[protocol.memory_format])  # type: ignore[call-overload]
    shape = (protocol.batch_size, architecture.in_channels, candidate.resolution, candidate.resolution)
    images = torch.randn(shape, device=device).contiguous(memory_format=FORMATS[protocol.memory_format])
    labels = torch.randint(architecture.num_classes, (protocol.batch_size,), device=device)
    call = torch.compile(network) if protocol.compile else network
    if mode == "infer":
        network.eval()

        def infer() -> None:
            with torch.inference_mode(), autocast(protocol.precision, device):
                call(images)

        return infer

    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=protocol.precision == "fp16")

    def train() -> None:
        optimizer.zero_grad()
        with autocast(protocol.precision, device):
            loss = cross_entropy(call(images), labels)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()

    return train


def _steps_per_block(step: Step, protocol: Protocol, device: str) -> int:
    _timed(step, protocol.warmup_steps, device)
    return max(1, round(protocol.block_seconds / _timed(step, 1, device)))


def _timed(step: Step, count: int, device: str) -> float:
    """Return the seconds of `count` steps; on a GPU by events, with no wait between the steps."""
    if torch.device(device).type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        begin.record()
        for _ in range(count):
            step()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000
    started = time.perf_counter()
    for _ in range(count):
        step()
    return time.perf_counter() - started


def _summary(speeds: list[float], reference: list[float] | None) -> dict[str, Any]:
    low, high = np.percentile(speeds, (25, 75))
    record = {"median": median(speeds), "low": float(low), "high": float(high), "rounds": speeds}
    if reference is None:
        return record | {"ratio": None, "ratio_low": None, "ratio_high": None}
    ratios = [own / other for own, other in zip(speeds, reference, strict=True)]
    low, high = np.percentile(ratios, (25, 75))
    return record | {"ratio": median(ratios), "ratio_low": float(low), "ratio_high": float(high)}


def _failed_alone(record: dict[str, Any]) -> dict[str, Any]:
    return {"failure": record["failure"]} if "failure" in record else record
