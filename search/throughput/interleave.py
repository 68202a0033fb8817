"""Measure images per second: all networks interleaved, so that drift of the machine hits all alike."""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lightning_modules.precision import resolve_device
from search.throughput import quiet
from search.throughput.conditions import describe_device, watched
from search.throughput.energy import energy_meter
from search.throughput.intervals import Interval, interval
from search.throughput.protocol import Mode, Protocol
from search.throughput.steps import Candidate, Runner, largest_batch, out_of_memory, prepare

Block = Callable[[], float]
Stopped = Literal["target", "budget", "rounds"]
FEWEST = 3  # rounds without which there is no interval
LOOKS = 1.25  # the interval is looked at when the rounds have grown by this factor, not after each of them


@dataclass
class Rounds:
    """Images/s of every network in every round, joules of its blocks where they are counted, and why it ended."""

    speeds: dict[str, list[float]]
    stopped: Stopped
    seconds: float
    joules: dict[str, float] = field(default_factory=dict)


def measure(
    candidates: Mapping[str, Candidate],
    *,
    reference: str,
    protocol: Protocol,
    device: str = "auto",
    on_progress: Callable[[float, float], None] | None = None,
    on_wait: Callable[[], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure every candidate against `reference`, one of them; return a plain record for each.

    A record has, for each mode: images_per_s, low, high; ratio, ratio_low, ratio_high (to the reference, from
    ratios within rounds; None without it); rounds (images/s each), stopped (target, budget or rounds),
    memory_format, memory_bytes, first_step_seconds, warmup_seconds, steady, joules_per_image (None where not
    counted), reference (its fingerprint). Beside them flags (what disturbed the measurement, in words), facts,
    protocol, threads, and what describe_device tells. low and high are the ends of 95 % intervals.

    A candidate that cannot run is ``{"failure": reason}``. The device is had alone while this runs; `on_wait` is
    called where that has to be waited for, `on_progress` with the seconds spent and the budget.

    Raises InputError for a device that is absent or lacks what the protocol asks for.
    """
    device = resolve_device(device)
    protocol.check_device(device)
    with quiet.measuring(device, on_wait), protocol.applied():
        return _measure(candidates, reference, protocol, device, on_progress)


def _measure(
    candidates: Mapping[str, Candidate],
    reference: str,
    protocol: Protocol,
    device: str,
    on_progress: Callable[[float, float], None] | None,
) -> dict[str, dict[str, Any]]:
    about = {
        "protocol": protocol.model_dump(mode="json"),
        **describe_device(device),
    }
    records: dict[str, dict[str, Any]] = {name: {**about, "flags": [], "facts": {}} for name in candidates}
    before = 0.0
    for number, mode in enumerate(protocol.modes):
        share = max(0.0, protocol.budget - before) / (len(protocol.modes) - number)
        runners = _prepare(candidates, records, mode, protocol, device)
        blocks = {name: runner.block for name, runner in runners.items()}
        if not blocks:
            break

        def told(spent: float, before: float = before) -> None:
            if on_progress is not None:
                on_progress(min(before + spent, protocol.budget), protocol.budget)

        with watched(device) as watch:
            rounds = interleave(
                blocks,
                reference if reference in blocks else None,
                protocol,
                budget=share,
                meter=energy_meter(device),
                on_round=lambda spent, watch=watch, told=told: (watch.sample(), told(spent)),  # type: ignore[misc]
            )
        before += rounds.seconds
        seen = watch.conditions(rounds.speeds, reference)
        for name, runner in runners.items():
            records[name][mode] = _summary(rounds, name, runner, reference)
            records[name][mode]["reference"] = candidates[reference].architecture.fingerprint
            records[name]["flags"] += [f"{mode}: {flag}" for flag in seen.flags]
            records[name]["facts"][mode] = seen.facts
    return {name: _failed_alone(record) for name, record in records.items()}


def _prepare(
    candidates: Mapping[str, Candidate],
    records: dict[str, dict[str, Any]],
    mode: Mode,
    protocol: Protocol,
    device: str,
) -> dict[str, Runner]:
    """Return what can run; candidates that cannot get a reason in their record and drop out."""
    runners = {}
    for name, candidate in candidates.items():
        if "failure" in records[name]:
            continue
        try:
            runners[name] = prepare(candidate, mode, protocol, device)
        except (RuntimeError, MemoryError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if out_of_memory(error):
                fits = largest_batch(candidate, mode, protocol, device)
                reason = f"out of memory at batch size {protocol.images(mode)}; " + (
                    f"the largest that fits is about {fits}" if fits else "not even one image fits"
                )
            records[name]["failure"] = f"{mode}: {reason}"
    return runners


def interleave(
    blocks: Mapping[str, Block],
    reference: str | None,
    protocol: Protocol,
    *,
    budget: float,
    meter: Callable[[], float] | None = None,
    on_round: Callable[[float], object] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Rounds:
    """Time every block once a round, in random order, until the ratios are known well enough or `budget` is spent.

    A block returns images/s. Intervals are looked at only when the rounds have grown by a quarter: looking after
    each would stop at a lucky one.
    """
    order, started = random.Random(0), clock()
    speeds: dict[str, list[float]] = {name: [] for name in blocks}
    joules: dict[str, float] = defaultdict(float)
    look = float(protocol.min_rounds)
    for done in range(1, protocol.max_rounds + 1):
        for name in order.sample(sorted(blocks), len(blocks)):
            before = meter() if meter is not None else 0.0
            speeds[name].append(blocks[name]())
            if meter is not None:
                joules[name] += meter() - before
        spent = clock() - started
        if on_round is not None:
            on_round(spent)
        if done >= look:
            look *= LOOKS
            if _decided(speeds, reference, protocol.target):
                return Rounds(speeds, "target", spent, joules)
        if spent >= budget and done >= FEWEST:
            return Rounds(speeds, "budget", spent, joules)
    return Rounds(speeds, "rounds", clock() - started, joules)


def ratios(speeds: Mapping[str, Sequence[float]], name: str, reference: str) -> list[float]:
    """Return the images/s of a network over the reference's, round by round."""
    return [own / other for own, other in zip(speeds[name], speeds[reference], strict=True)]


def _decided(speeds: Mapping[str, Sequence[float]], reference: str | None, target: float) -> bool:
    """Tell whether every ratio is known to within the target; without anything to compare, every speed."""
    others = [name for name in speeds if name != reference]
    if reference is None or not others:
        found = [interval(values) for values in speeds.values()]
    else:
        found = [interval(ratios(speeds, name, reference)) for name in others]
    return all(one.half_width <= target for one in found)


def _summary(rounds: Rounds, name: str, runner: Runner, reference: str) -> dict[str, Any]:
    own = interval(rounds.speeds[name])
    record: dict[str, Any] = {
        "images_per_s": own.centre,
        **_ends(own, ""),
        "rounds": rounds.speeds[name],
        "stopped": rounds.stopped,
        "seconds": rounds.seconds,
        **runner.facts,
    }
    images = len(rounds.speeds[name]) * runner.steps * runner.images
    record["joules_per_image"] = rounds.joules[name] / images if name in rounds.joules else None
    if reference not in rounds.speeds:
        return record | {"ratio": None, "ratio_low": None, "ratio_high": None}
    if name == reference:
        return record | {"ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
    ratio = interval(ratios(rounds.speeds, name, reference))
    return record | {"ratio": ratio.centre, **_ends(ratio, "ratio_")}


def _ends(found: Interval, prefix: str) -> dict[str, float | None]:
    """Return the ends for a record, which is JSON and knows no NaN."""
    known = found.low == found.low
    return {f"{prefix}low": found.low if known else None, f"{prefix}high": found.high if known else None}


def _failed_alone(record: dict[str, Any]) -> dict[str, Any]:
    return {"failure": record["failure"]} if "failure" in record else record
